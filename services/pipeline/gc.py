"""Delete what no kept version lists, in two phases a day apart, so that nobody's reads are cut off."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from services.core import layout
from services.core.catalog import Pointer, Version, marks_from_bytes, read_pointer, read_version
from services.core.errors import CollectionNotFound, ObjectMissing, PreconditionFailed, PublishConflict
from services.core.store import Store

KEPT_VERSIONS = 10
"""Newest versions that are kept besides the current, the previous and the pinned ones."""

IDLE = dt.timedelta(days=7)
"""A segment is marked when nothing was written to it for this long; a render that takes longer writes meanwhile."""

GRACE = dt.timedelta(days=1)
"""A marked segment is deleted this much later."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a pass did, or would do."""

    product: str
    marked: tuple[str, ...]
    """Segments that were marked now."""

    deleted: tuple[str, ...]
    """Segments that were deleted now."""

    forgotten: tuple[str, ...]
    """Version files that were deleted because they listed a deleted segment."""

    freed: int
    """Bytes."""


def collect(
    store: Store,
    product: str,
    *,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    idle: dt.timedelta = IDLE,
    grace: dt.timedelta = GRACE,
    dry_run: bool = False,
) -> Collected:
    """One pass over a collection: delete what was marked long enough ago, mark what is idle now.

    Raises:
        CollectionNotFound: if the collection was never published.
        PublishConflict: if another gc runs at the same time.
    """
    if not dry_run:
        store.probe()
    found = read_pointer(store, product)
    if found is None:
        raise CollectionNotFound(f"there is no collection {product!r}")
    moment = now()
    marks, tag = _read_marks(store, product)
    versions = _versions(store, product)
    listed = {segment for name in _kept(found[0], versions) for segment in read_version(store, product, name).segments}
    written = _last_written(store, product)
    # somebody may have gone on writing to a segment before it was marked and seen: such a mark is dropped
    unused = {name for name, (last, _) in written.items() if name not in listed and moment - last >= idle}
    ripe = {name for name in unused & set(marks) if moment - dt.datetime.fromisoformat(marks[name]) >= grace}
    idle_now = unused - set(marks)
    forgotten = sorted(
        name
        for name in versions
        if ripe & set(_segments(store, product, name)) and name not in _kept(found[0], versions)
    )
    freed = sum(written[name][1] for name in ripe)
    if not dry_run:
        # versions first: a version that is there must be readable
        store.delete([layout.version_key(product, name) for name in forgotten])
        for name in sorted(ripe):
            store.delete([key for key, _, _ in store.list(layout.segment_prefix(product, name))])
        left = {name: at for name, at in marks.items() if name in unused - ripe}
        left.update({name: moment.isoformat(timespec="seconds") for name in sorted(idle_now)})
        if left != marks:
            _write_marks(store, product, left, tag)
    return Collected(
        product=product,
        marked=tuple(sorted(idle_now)),
        deleted=tuple(sorted(ripe)),
        forgotten=tuple(forgotten),
        freed=freed,
    )


def _versions(store: Store, product: str) -> list[str]:
    """Version ids, newest first."""
    prefix = layout.versions_prefix(product)
    entries = sorted(store.list(prefix), key=lambda entry: entry[2], reverse=True)
    return [key.removeprefix(prefix).removesuffix(".json") for key, _, _ in entries]


def _kept(pointer: Pointer, versions: list[str]) -> set[str]:
    named = {pointer.version, *pointer.pinned, *versions[:KEPT_VERSIONS]}
    if pointer.previous is not None and pointer.previous in versions:
        named.add(pointer.previous)
    return named


def _segments(store: Store, product: str, version: str) -> dict[str, str]:
    found: Version = read_version(store, product, version)
    return found.segments


def _last_written(store: Store, product: str) -> dict[str, tuple[dt.datetime, int]]:
    prefix = layout.segments_prefix(product)
    out: dict[str, tuple[dt.datetime, int]] = {}
    for key, size, modified in store.list(prefix):
        name = key.removeprefix(prefix).split("/", 1)[0]
        last, total = out.get(name, (modified, 0))
        out[name] = (max(last, modified), total + size)
    return out


def _read_marks(store: Store, product: str) -> tuple[dict[str, str], str | None]:
    key = layout.marks_key(product)
    try:
        data, tag = store.get_tagged(key)
    except ObjectMissing:
        return {}, None
    return marks_from_bytes(key, data), tag


def _write_marks(store: Store, product: str, marks: dict[str, str], tag: str | None) -> None:
    try:
        store.swap(layout.marks_key(product), layout.canonical(marks), tag)
    except PreconditionFailed:
        raise PublishConflict(f"another gc of {product} runs at the same time") from None
