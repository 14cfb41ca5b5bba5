"""What is published: the pointer of a collection, its immutable versions, and reading both with their digests."""

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from services.core import layout
from services.core.errors import CollectionNotFound, Damaged, DeclarationError, ObjectMissing, VersionNotFound
from services.core.product import Product, is_collection_id
from services.core.quantity import Quantity
from services.core.segment import SegmentCog
from services.core.spread import Spread
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis

KEPT_WRITE_IDS = 8
"""Write ids that a pointer remembers, so that a lost acknowledgement is recognised."""

_VERSION = re.compile(rf"[0-9a-f]{{{layout.ID_LENGTH}}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """``current.json``: which version is current. It is the only object of a collection that is ever replaced."""

    seq: int
    """Rises by one with every flip, also with a rollback."""

    version: str
    """Id of the current version."""

    sha256: str
    """Digest of the current version's file."""

    previous: str | None
    """Id of the version before the flip."""

    write_id: str
    """Id of the write that flipped it."""

    write_ids: tuple[str, ...]
    """The last write ids, newest first."""

    flipped_at: str
    """ISO 8601 UTC; for people, nobody decides by it."""

    pinned: tuple[str, ...] = ()
    """Versions that gc keeps however old they are."""

    def to_bytes(self) -> bytes:
        """The object."""
        return layout.canonical({**self.__dict__, "write_ids": list(self.write_ids), "pinned": list(self.pinned)})

    @classmethod
    def from_bytes(cls, key: str, data: bytes) -> "Pointer":
        """Read the object.

        Raises:
            Damaged: if it is not a pointer.
        """
        try:
            document = json.loads(data)
            pointer = cls(
                **{**document, "write_ids": tuple(document["write_ids"]), "pinned": tuple(document["pinned"])}
            )
            named = [name for name in (pointer.version, pointer.previous, *pointer.pinned) if name is not None]
            sound = (
                isinstance(document["seq"], int)
                and pointer.seq >= 1
                and all(_VERSION.fullmatch(name) for name in named)
                and _SHA256.fullmatch(pointer.sha256) is not None
                and pointer.sha256.startswith(pointer.version)
            )
        except (ValueError, TypeError, KeyError) as error:
            raise Damaged(key, f"it is not a pointer ({error})") from None
        if not sound:
            raise Damaged(key, "it is not a pointer (its seq, versions or digest cannot be)")
        return pointer


@dataclass(frozen=True, kw_only=True)
class Run:
    """Periods that one segment answers for."""

    segment: str
    """Segment id."""

    periods: TimeAxis
    """Which periods, without their nominal times."""


@dataclass(frozen=True, kw_only=True)
class ListedCog:
    """A COG file of a version."""

    segment: str
    cog: SegmentCog


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version: declaration, time axis, and which segment answers for which periods.

    Raises:
        DeclarationError: if its runs are not disjoint or do not cover the time axis.
    """

    product: Product
    time: TimeAxis
    segments: dict[str, str]
    """Segment id -> sha256 of its objects.json."""

    maps: tuple[Run, ...]
    series: tuple[Run, ...]
    """Empty where series are read from the maps."""

    cogs: tuple[ListedCog, ...]
    anchor: int
    """Start of block 0 of maps, series and COGs, in units of the step since 1970; the same in all versions."""

    parent: str | None
    """Version it was made from."""

    provenance: dict[str, Any] = field(default_factory=dict)
    """Inputs, models, code and conclusions of each segment; JSON data."""

    scores: dict[str, Any] = field(default_factory=dict)
    """Digest of a model's card -> the model's name and its scores on what it was not trained with; JSON data."""

    spreads: dict[str, dict[str, Spread]] = field(default_factory=dict)
    """Segment -> quantity -> how the values of the segment's maps are spread."""

    def __post_init__(self) -> None:
        for layout_name, runs in (("maps", self.maps), ("series", self.series)):
            if layout_name == "series" and self.product.series_block is None:
                continue
            starts = [start for run in runs for start in run.periods.starts]
            if sorted(starts) != list(self.time.starts):
                raise DeclarationError(
                    f"the {layout_name} of {self.product.id} list {len(starts)} periods, its axis {len(self.time)}"
                )
        listed = {run.segment for run in (*self.maps, *self.series)} | {cog.segment for cog in self.cogs}
        if listed != set(self.segments):
            raise DeclarationError(
                f"{self.product.id}: segments {sorted(listed ^ set(self.segments))} are listed once only"
            )

    def to_bytes(self) -> bytes:
        """The file; equal versions give equal bytes."""
        return layout.canonical(
            {
                "format": layout.VERSION_FORMAT,
                "product": self.product.to_json(),
                "time": self.time.to_json(),
                "segments": self.segments,
                "maps": [_run_to_json(run) for run in self.maps],
                "series": [_run_to_json(run) for run in self.series],
                "cogs": [
                    {"segment": c.segment, "quantity": c.cog.quantity, "id": c.cog.id, "periods": list(c.cog.periods)}
                    for c in self.cogs
                ],
                "anchor": self.anchor,
                "parent": self.parent,
                "provenance": self.provenance,
                "scores": self.scores,
                "spreads": {
                    segment: {name: spread.to_json() for name, spread in spreads.items()}
                    for segment, spreads in self.spreads.items()
                },
            }
        )

    def spread(self, quantity: Quantity) -> Spread:
        """How the values of a quantity are spread over the listed segments, for ranges and legends.

        A period that a later segment replaced counts as long as its segment is listed for another one.
        """
        return Spread.merged([of[quantity.name] for _, of in sorted(self.spreads.items()) if quantity.name in of])

    def style(self, quantity: Quantity) -> Style:
        """How a quantity is drawn where a request does not say: as declared, else over the bulk of its values."""
        if quantity.style is not None:
            return quantity.style
        spread = self.spread(quantity)
        for low, high in ((2.0, 98.0), (0.0, 100.0)):
            minimum, maximum = spread.at(low), spread.at(high)
            if minimum is not None and maximum is not None and minimum < maximum:
                return Style(minimum=minimum, maximum=maximum)
        # all values are one value, or missing
        middle = spread.at(50.0) or 0.0
        half = max(0.5, 2**16 * float(np.spacing(abs(middle))))
        return Style(minimum=middle - half, maximum=middle + half)

    @cached_property
    def sha256(self) -> str:
        """Digest of the file; of a version that was read, of the bytes that were read."""
        return layout.digest(self.to_bytes())

    @property
    def id(self) -> str:
        """Version id: the first digits of the digest."""
        return self.sha256[: layout.ID_LENGTH]

    @classmethod
    def from_bytes(cls, key: str, data: bytes) -> "Version":
        """Read the file.

        Raises:
            Damaged: if it is not a version.
        """
        try:
            document = json.loads(data)
            if document["format"] != layout.VERSION_FORMAT:
                raise Damaged(
                    key, f"its format is {document['format']!r} and this release reads {layout.VERSION_FORMAT!r}"
                )
            version = cls(
                product=Product.from_json(document["product"]),
                time=TimeAxis.from_json(document["time"]),
                segments=document["segments"],
                maps=tuple(_run_from_json(run) for run in document["maps"]),
                series=tuple(_run_from_json(run) for run in document["series"]),
                cogs=tuple(
                    ListedCog(
                        segment=c["segment"],
                        cog=SegmentCog(quantity=c["quantity"], id=c["id"], periods=tuple(c["periods"])),
                    )
                    for c in document["cogs"]
                ),
                anchor=document["anchor"],
                parent=document["parent"],
                provenance=document["provenance"],
                scores=document["scores"],
                spreads={
                    segment: {name: Spread.from_json(entry) for name, entry in spreads.items()}
                    for segment, spreads in document["spreads"].items()
                },
            )
        except (ValueError, KeyError, TypeError, DeclarationError) as error:
            raise Damaged(key, f"it is not a version ({error})") from None
        # what an earlier release wrote keeps its id, though this one would write it with another field
        version.__dict__["sha256"] = layout.digest(data)
        return version


def segment_of(runs: Sequence[Run]) -> dict[int, str]:
    """Period start -> segment that answers for it."""
    return {start: run.segment for run in runs for start in run.periods.starts}


def runs_of(owner: dict[int, str], time: TimeAxis) -> tuple[Run, ...]:
    """Group period starts by the segment that answers for them, in order of the segments' first periods."""
    by_segment: dict[str, list[int]] = {}
    for start in time.starts:
        by_segment.setdefault(owner[start], []).append(start)
    return tuple(
        Run(segment=segment, periods=TimeAxis(step=time.step, starts=tuple(starts)))
        for segment, starts in by_segment.items()
    )


def read_pointer(store: Store, product: str) -> tuple[Pointer, str] | None:
    """The pointer and the etag that a flip must name; None where the collection was never published."""
    if not is_collection_id(product):
        return None
    key = layout.pointer_key(product)
    try:
        data, etag = store.get_tagged(key)
    except ObjectMissing:
        return None
    return Pointer.from_bytes(key, data), etag


def read_version(store: Store, product: str, version: str, sha256: str | None = None) -> Version:
    """A version by its id, checked against its digest.

    Raises:
        VersionNotFound: if there is none.
        Damaged: if its bytes are not those of its id.
    """
    if not is_collection_id(product) or not _VERSION.fullmatch(version):
        raise VersionNotFound(f"collection {product!r} has no version {version!r}")
    key = layout.version_key(product, version)
    try:
        data = store.get(key)
    except ObjectMissing:
        if sha256 is not None:
            raise Damaged(key, "it is missing") from None
        raise VersionNotFound(f"collection {product!r} has no version {version!r}") from None
    found = layout.digest(data)
    if found[: layout.ID_LENGTH] != version or (sha256 is not None and found != sha256):
        raise Damaged(key, "its sha256 is not the one it is named by")
    return Version.from_bytes(key, data)


def current_version(store: Store, product: str) -> tuple[Pointer, Version]:
    """The current version of a collection.

    Raises:
        CollectionNotFound: if it was never published.
    """
    found = read_pointer(store, product)
    if found is None:
        raise CollectionNotFound(f"there is no collection {product!r}")
    return found[0], read_version(store, product, found[0].version, found[0].sha256)


def collection_ids(store: Store) -> Iterator[str]:
    """Ids of the collections that have a pointer, from one delimited listing and one small read each.

    A collection whose pointer is damaged is among them: whoever opens it is told, and the others are not held up.
    """
    for name in folder_ids(store):
        try:
            is_published = read_pointer(store, name) is not None
        except Damaged:
            is_published = True
        if is_published:
            yield name


def folder_ids(store: Store) -> list[str]:
    """Ids under which something is stored, published or not; one delimited listing."""
    # a bucket may hold other people's objects too, under names that are no keys of ours
    return [name for name in sorted(store.children("")) if is_collection_id(name)]


def version_ids(store: Store, product: str) -> list[str]:
    """Ids of a collection's stored versions, the last written first; one listing."""
    prefix = layout.versions_prefix(product)
    entries = sorted(store.list(prefix), key=lambda entry: entry.last_modified, reverse=True)
    names = [entry.key.removeprefix(prefix).removesuffix(".json") for entry in entries]
    return [name for name in names if _VERSION.fullmatch(name)]


DELETING = "deleting"
"""In place of the time of a mark: gc is at it, and nothing may count on the segment any more."""


def read_marks(store: Store, product: str) -> dict[str, str]:
    """Segment that gc has marked -> when, ISO 8601 UTC, or DELETING.

    Raises:
        Damaged: if the object that says so is not what gc writes.
    """
    key = layout.marks_key(product)
    try:
        data = store.get(key)
    except ObjectMissing:
        return {}
    return marks_from_bytes(key, data)


def marks_from_bytes(key: str, data: bytes) -> dict[str, str]:
    """Read the object that gc keeps its marks in.

    Raises:
        Damaged: if it is not one.
    """
    try:
        marks = {str(name): str(at) for name, at in json.loads(data).items()}
        for at in marks.values():
            if at != DELETING:
                dt.datetime.fromisoformat(at)
    except (ValueError, AttributeError) as error:
        raise Damaged(key, f"it is not a list of marks ({error})") from None
    return marks


def _run_to_json(run: Run) -> dict[str, Any]:
    return {"segment": run.segment, "runs": run.periods.to_json()["runs"], "step": str(run.periods.step)}


def _run_from_json(document: dict[str, Any]) -> Run:
    return Run(
        segment=document["segment"], periods=TimeAxis.from_json({"step": document["step"], "runs": document["runs"]})
    )
