"""Make a sealed segment visible: write the version, then flip the pointer by one conditional write."""

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from services.core import layout
from services.core.catalog import (
    DELETING,
    KEPT_WRITE_IDS,
    ListedCog,
    Pointer,
    Version,
    read_marks,
    read_pointer,
    read_version,
    runs_of,
    segment_of,
    version_ids,
)
from services.core.errors import (
    CollectionNotFound,
    Damaged,
    ObjectExists,
    ObjectMissing,
    PreconditionFailed,
    PublishConflict,
    StoreError,
)
from services.core.store import Store
from services.pipeline import copies, models
from services.pipeline.code import commit
from services.pipeline.plan import Plan

if TYPE_CHECKING:
    from services.pipeline.run import Outcome


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a publish did."""

    version: str
    seq: int
    changed: bool
    """False where the same version was current already."""


def compose(
    plan: Plan, outcome: "Outcome", base: Version | None, *, scores: Mapping[str, Any] | None = None
) -> Version:
    """The version that lists a sealed segment: what it holds, and for all other periods what the parent lists.

    Args:
        plan: what was rendered.
        outcome: how it ended.
        base: the version it was planned on.
        scores: those of the plan's models, by the digest of their cards.
    """
    kept = base if plan.keeps else None
    maps = {} if kept is None else segment_of(kept.maps)
    maps.update(dict.fromkeys(plan.maps.starts, plan.segment))
    series: dict[int, str] = {}
    if plan.series is not None:
        series = {} if kept is None else segment_of(kept.series)
        series.update(dict.fromkeys(plan.series.starts, plan.segment))
    mine = {(cog.quantity, cog.id): ListedCog(segment=plan.segment, cog=cog) for cog in plan.cogs}
    others = {} if kept is None else {(c.cog.quantity, c.cog.id): c for c in kept.cogs}
    cogs = tuple((others | mine)[key] for key in sorted(others | mine))
    map_runs = runs_of(maps, plan.time)
    series_runs = runs_of(series, plan.time) if series else ()
    listed = {run.segment for run in (*map_runs, *series_runs)} | {cog.segment for cog in cogs}
    digests = {} if kept is None else dict(kept.segments)
    digests[plan.segment] = outcome.sha256
    origins: dict[str, Any] = {} if kept is None else dict(kept.provenance)
    origins[plan.segment] = {
        "periods": plan.fresh.to_json(),
        "inputs": [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in plan.inputs],
        "models": plan.models,
        "facts": plan.facts,
        "copied": plan.copied,
        "code": {**plan.code.to_json(), "commit": commit()},
    }
    provenance = _reachable(origins, listed)
    known = {**({} if kept is None else kept.scores), **(scores or {})}
    spreads = {**({} if kept is None else kept.spreads), plan.segment: outcome.spreads}
    return Version(
        product=plan.product,
        time=plan.time,
        segments={name: digests[name] for name in sorted(listed)},
        maps=map_runs,
        series=series_runs,
        cogs=cogs,
        anchor=plan.anchor,
        parent=plan.parent,
        provenance=provenance,
        scores={sha256: known[sha256] for _, sha256 in sorted(models.used(provenance)) if sha256 in known},
        spreads={name: spreads[name] for name in sorted(listed) if name in spreads},
    )


def with_findings(version: Version, segment: str, found: Mapping[str, Any]) -> Version:
    """A version whose facts of a segment hold what was found in its values, too."""
    origin = version.provenance[segment]
    told = {**origin, "facts": {**origin["facts"], **found}}
    return replace(version, provenance={**version.provenance, segment: told})


def publish(store: Store, version: Version, *, now: Callable[[], dt.datetime] | None = None) -> Published:
    """Write a version and make it current.

    Raises:
        PublishConflict: if the pointer no longer names the version's parent, or gc has marked or deleted a segment.
        StoreUnavailable: if the store does not answer; whether the flip happened is then read from the pointer.
    """
    store.probe()
    product = version.product.id
    found = read_pointer(store, product)
    current = None if found is None else read_version(store, product, found[0].version, found[0].sha256)
    if found is not None and current is not None and _same_content(current, version):
        return Published(version=found[0].version, seq=found[0].seq, changed=False)
    _check_parent(product, None if found is None else found[0], version.parent)
    write_version(store, version)
    _refuse_collected(store, version, set() if current is None else set(current.segments))
    pointer = _flip(store, product, version.id, version.sha256, found, now)
    copies.refresh(store, product)
    return Published(version=version.id, seq=pointer.seq, changed=True)


def write_version(store: Store, version: Version) -> None:
    """Write a version's file; finding an identical one is success."""
    key = layout.version_key(version.product.id, version.id)
    try:
        store.create(key, version.to_bytes())
    except ObjectExists:
        if store.get(key) != version.to_bytes():
            raise Damaged(key, "it is not the version it is named by") from None


def rollback(store: Store, product: str, version: str, *, now: Callable[[], dt.datetime] | None = None) -> Published:
    """Make a stored version current: an older one again, or the first where none is published.

    Raises:
        CollectionNotFound: if nothing is stored under the id.
        VersionNotFound: if there is no such version.
        PublishConflict: if somebody else moved the pointer meanwhile.
    """
    store.probe()
    found = read_pointer(store, product)
    if found is None and not version_ids(store, product):
        raise CollectionNotFound(f"there is no collection {product!r}")
    if found is not None and found[0].version == version:
        return Published(version=version, seq=found[0].seq, changed=False)
    target = read_version(store, product, version)
    _refuse_collected(store, target, set())
    pointer = _flip(store, product, target.id, target.sha256, found, now)
    copies.refresh(store, product)
    return Published(version=target.id, seq=pointer.seq, changed=True)


def pin(store: Store, product: str, version: str, *, keep: bool = True) -> Pointer:
    """Keep a version from gc, or let gc have it again; the pointer says so.

    Raises:
        CollectionNotFound: if the collection was never published.
        VersionNotFound: if there is no such version.
        Damaged: if the version that is to be kept cannot be read; letting it go does not read it.
        PublishConflict: if somebody else moved the pointer meanwhile, or gc is deleting the version.
    """
    store.probe()
    found = read_pointer(store, product)
    if found is None:
        raise CollectionNotFound(f"there is no collection {product!r}")
    old, etag = found
    # a version that was lost or damaged after it was pinned must not stay pinned for ever
    target = read_version(store, product, version) if keep or version not in old.pinned else None
    others = tuple(name for name in old.pinned if name != version)
    pointer = replace(old, pinned=(*others, version) if keep else others)
    try:
        etag = store.swap(layout.pointer_key(product), pointer.to_bytes(), etag)
    except PreconditionFailed:
        raise PublishConflict(f"the pointer of {product} was moved meanwhile; run the command again") from None
    # a gc that looked at the pointer before this may be deleting by now: it says so before it looks
    marks = read_marks(store, product)
    if keep and target is not None and any(marks.get(name) == DELETING for name in target.segments):
        with contextlib.suppress(PreconditionFailed):
            store.swap(layout.pointer_key(product), old.to_bytes(), etag)
        raise PublishConflict(f"gc is deleting version {version} of {product}")
    return pointer


def _flip(
    store: Store,
    product: str,
    version: str,
    sha256: str,
    found: tuple[Pointer, str] | None,
    now: Callable[[], dt.datetime] | None,
) -> Pointer:
    old, etag = found if found is not None else (None, None)
    write_id = uuid.uuid4().hex
    moment = now() if now is not None else dt.datetime.now(dt.UTC)
    pointer = Pointer(
        seq=1 if old is None else old.seq + 1,
        version=version,
        sha256=sha256,
        previous=None if old is None else old.version,
        write_id=write_id,
        write_ids=(write_id, *(() if old is None else old.write_ids))[:KEPT_WRITE_IDS],
        flipped_at=moment.isoformat(timespec="seconds"),
        pinned=() if old is None else old.pinned,
    )
    key = layout.pointer_key(product)
    try:
        store.swap(key, pointer.to_bytes(), etag)
    except (PreconditionFailed, StoreError) as error:
        # the answer may have been lost on its way: the pointer itself says whether this write took effect
        there = read_pointer(store, product)
        if there is None or write_id not in there[0].write_ids:
            if isinstance(error, PreconditionFailed):
                winner = "nothing" if there is None else f"version {there[0].version} (seq {there[0].seq})"
                raise PublishConflict(
                    f"another publisher of {product} was first: current is {winner}; nothing was changed, "
                    "run the command again"
                ) from None
            raise
    return pointer


def _check_parent(product: str, current: Pointer | None, parent: str | None) -> None:
    now = None if current is None else current.version
    if now != parent:
        raise PublishConflict(
            f"{product} moved to version {now} while this one was made on top of {parent}; nothing was changed, "
            "run the command again"
        )


def _same_content(there: Version, version: Version) -> bool:
    """Whether a version holds what another one does, and knows all that was found in it."""
    bare, new = (replace(one, parent=None, provenance={}).to_bytes() for one in (there, version))
    return bare == new and all(
        _facts(version, name).items() <= _facts(there, name).items() for name in version.segments
    )


def _facts(version: Version, segment: str) -> dict[str, bytes]:
    """What is told of a segment, each as bytes: a table is read back as it was written."""
    facts = version.provenance.get(segment, {}).get("facts", {})
    return {name: layout.canonical(value) for name, value in facts.items()}


def _refuse_collected(store: Store, version: Version, kept: Collection[str]) -> None:
    product = version.product.id
    marked = read_marks(store, product)
    for name in sorted(set(version.segments).difference(kept)):
        if name in marked:
            raise PublishConflict(
                f"segment {name} of {product} is marked for deletion by gc; render again with --fresh, or wait until "
                "gc is done"
            )
        try:
            # asked after the marks were read: gc takes a mark back only when it has deleted
            store.size(layout.objects_key(product, name))
        except ObjectMissing:
            raise PublishConflict(f"segment {name} of {product} was deleted by gc; render again") from None


def _reachable(origins: dict[str, Any], listed: set[str]) -> dict[str, Any]:
    """Provenance of the listed segments and of those their bytes were copied from."""
    wanted: list[str] = sorted(listed)
    out: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name in out or name not in origins:
            continue
        out[name] = origins[name]
        wanted += sorted(origins[name].get("copied", {}))
    return out
