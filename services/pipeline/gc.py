"""Delete what no kept version lists, in two phases a day apart, so that nobody's reads are cut off."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from services.core import layout
from services.core.catalog import (
    DELETING,
    Pointer,
    collection_ids,
    folder_ids,
    marks_from_bytes,
    read_pointer,
    read_version,
    version_ids,
)
from services.core.errors import (
    CollectionNotFound,
    Damaged,
    ObjectMissing,
    PreconditionFailed,
    PublishConflict,
    VersionNotFound,
)
from services.core.product import is_collection_id
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

    damaged: tuple[str, ...] = ()
    """A sentence for each version that cannot be read; it names the key."""

    is_blocked: bool = False
    """Whether one of them is kept: nobody knows which segments it lists, so nothing was marked or deleted."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """What must stay."""

    found: tuple[Pointer, str] | None
    stored: tuple[str, ...]
    """Ids of all versions, those that are not kept too."""

    versions: frozenset[str]
    segments: frozenset[str]
    damaged: tuple[str, ...]
    """A sentence for each kept version that cannot be read."""


def collectable(store: Store) -> list[str]:
    """Ids of the collections, and of those whose first render left segments and was never published."""
    published = set(collection_ids(store))
    return [name for name in folder_ids(store) if name in published or _segment_ids(store, name)]


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

    A collection that was never published keeps nothing, and a render into it is spared as any other is: by its writes.

    Raises:
        CollectionNotFound: if nothing is stored under the id.
        Damaged: if the pointer or the marks cannot be read.
        PublishConflict: if another gc runs at the same time.
    """
    if not dry_run:
        store.probe()
    if not is_collection_id(product):
        raise CollectionNotFound(f"there is no collection {product!r}")
    kept = _keep(store, product)
    moment = now()
    marks, tag = _read_marks(store, product)
    written = _last_written(store, product)
    if kept.found is None and not kept.stored and not written:
        raise CollectionNotFound(f"there is no collection {product!r}")
    if kept.damaged:
        return Collected(
            product=product, marked=(), deleted=(), forgotten=(), freed=0, damaged=kept.damaged, is_blocked=True
        )
    # somebody may have gone on writing to a segment before it was marked and seen: such a mark is dropped
    unused = {name for name, (last, _) in written.items() if name not in kept.segments and moment - last >= idle}
    ripe = {name for name in unused & set(marks) if _is_ripe(marks[name], moment, grace)}
    idle_now = unused - set(marks)
    forgotten, damaged = _forget(store, product, kept, ripe)
    standing = marks
    if ripe and not dry_run:
        standing = marks | dict.fromkeys(ripe, DELETING)
        # said before the pointer is looked at again: whoever pins after that look finds it, and does without
        tag = _write_marks(store, product, standing, tag)
    # what somebody published, rolled back to or pinned meanwhile is for the next pass to look at
    if ripe and read_pointer(store, product) != kept.found:
        ripe, forgotten = set(), []
    freed = sum(written[name][1] for name in ripe)
    if not dry_run:
        # versions first: a version that is there must be readable
        store.delete([layout.version_key(product, name) for name in forgotten])
        for name in sorted(ripe):
            store.delete([key for key, _, _ in store.list(layout.segment_prefix(product, name))])
        left = {name: at for name, at in marks.items() if name in unused - ripe}
        left.update({name: moment.isoformat(timespec="seconds") for name in sorted(idle_now)})
        if left != standing:
            _write_marks(store, product, left, tag)
    return Collected(
        product=product,
        marked=tuple(sorted(idle_now)),
        deleted=tuple(sorted(ripe)),
        forgotten=tuple(forgotten),
        freed=freed,
        damaged=tuple(damaged),
    )


def _keep(store: Store, product: str) -> _Kept:
    found = read_pointer(store, product)
    stored = version_ids(store, product)
    # the newest ones without a pointer too: one that was lost can be made again from them
    versions = set(stored[:KEPT_VERSIONS])
    if found is not None:
        pointer = found[0]
        versions |= {pointer.version, *pointer.pinned}
        if pointer.previous in stored:
            versions.add(pointer.previous)
    segments: set[str] = set()
    damaged = []
    for name in sorted(versions):
        try:
            segments |= _segments(store, product, name)
        except Damaged as error:
            damaged.append(f"{error}; {product} keeps this version, so nothing of {product} was marked or deleted")
    return _Kept(
        found=found,
        stored=tuple(stored),
        versions=frozenset(versions),
        segments=frozenset(segments),
        damaged=tuple(damaged),
    )


def _forget(store: Store, product: str, kept: _Kept, ripe: set[str]) -> tuple[list[str], list[str]]:
    """Versions that list a segment which is to be deleted, and a sentence for each that cannot be read."""
    forgotten: list[str] = []
    damaged: list[str] = []
    if not ripe:
        return forgotten, damaged
    for name in sorted(set(kept.stored) - kept.versions):
        try:
            if ripe & _segments(store, product, name):
                forgotten.append(name)
        except Damaged as error:
            damaged.append(str(error))
    return forgotten, damaged


def _segments(store: Store, product: str, version: str) -> set[str]:
    try:
        return set(read_version(store, product, version).segments)
    except VersionNotFound:
        raise Damaged(layout.version_key(product, version), "it is missing") from None


def _segment_ids(store: Store, product: str) -> list[str]:
    return [name for name in store.children(layout.segments_prefix(product)) if layout.is_segment_id(name)]


def _last_written(store: Store, product: str) -> dict[str, tuple[dt.datetime, int]]:
    prefix = layout.segments_prefix(product)
    out: dict[str, tuple[dt.datetime, int]] = {}
    for key, size, modified in store.list(prefix):
        name = key.removeprefix(prefix).split("/", 1)[0]
        if not layout.is_segment_id(name):
            continue
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


def _is_ripe(mark: str, moment: dt.datetime, grace: dt.timedelta) -> bool:
    # a pass that died while it deleted left a segment that nobody can use
    return mark == DELETING or moment - dt.datetime.fromisoformat(mark) >= grace


def _write_marks(store: Store, product: str, marks: dict[str, str], tag: str | None) -> str:
    try:
        return store.swap(layout.marks_key(product), layout.canonical(marks), tag)
    except PreconditionFailed:
        raise PublishConflict(f"another gc of {product} runs at the same time") from None
