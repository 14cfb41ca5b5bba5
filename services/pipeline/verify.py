"""Check a version from its pointer down to its last byte, and that its layouts hold equal values."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core import layout
from services.core.catalog import ListedCog, current_version, read_version
from services.core.dataset import Dataset
from services.core.errors import CenoteError, Damaged, ObjectMissing
from services.core.grid import Window, windows
from services.core.quantity import Quantity
from services.core.segment import Segment
from services.core.store import PART_BYTES, Store
from services.pipeline import models

READERS = 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that does not hold."""

    key: str
    fact: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a verification saw."""

    product: str
    version: str
    objects: int
    bytes: int
    periods: int
    """Periods whose layouts were compared."""

    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def verify(
    store: Store, product: str, version_id: str | None = None, *, note: Callable[[str], None] = lambda _: None
) -> Report:
    """Check every object of a version by size and sha256, its models, and the equality of its layouts.

    Raises:
        CollectionNotFound: if the collection was never published.
        VersionNotFound: if there is no such version.
    """
    try:
        version = current_version(store, product)[1] if version_id is None else read_version(store, product, version_id)
    except Damaged as error:
        name = version_id or "current"
        finding = Finding(key=error.key, fact=error.fact)
        return Report(product=product, version=name, objects=0, bytes=0, periods=0, findings=(finding,))
    findings: list[Finding] = []
    objects = total = 0
    for name, sha256 in version.segments.items():
        note(f"segment {name}: checksums")
        try:
            segment = Segment(store, product, name, sha256)
        except Damaged as error:
            findings.append(Finding(key=error.key, fact=error.fact))
            continue
        objects += len(segment.objects) + 1
        total += segment.bytes
        findings += _check_objects(store, segment)
    for name, card_sha256 in sorted(models.used(version.provenance)):
        for key, sha256 in models.stored(store, name, card_sha256):
            objects += 1
            findings += _check_one(store, key, None, sha256)
    if not findings:
        note("equality of maps, series and COGs")
        findings += _compare(Dataset(store, version))
    return Report(
        product=product,
        version=version.id,
        objects=objects,
        bytes=total,
        periods=len(version.time) if not findings else 0,
        findings=tuple(findings),
    )


def _check_objects(store: Store, segment: Segment) -> Iterator[Finding]:
    def check(item: tuple[str, dict[str, object]]) -> list[Finding]:
        path, entry = item
        return list(_check_one(store, f"{segment.prefix}{path}", int(str(entry["size"])), str(entry["sha256"])))

    with ThreadPoolExecutor(max_workers=READERS) as pool:
        for some in pool.map(check, segment.objects.items()):
            yield from some


def _check_one(store: Store, key: str, size: int | None, sha256: str) -> Iterator[Finding]:
    found = 0
    hasher = hashlib.sha256()
    try:
        # most objects are small: one request is enough
        is_small = size is not None and size <= PART_BYTES
        for part in [store.get(key)] if is_small else store.parts(key):
            found += len(part)
            hasher.update(part)
    except ObjectMissing:
        yield Finding(key=key, fact="it is missing")
        return
    if size is not None and found != size:
        yield Finding(key=key, fact=f"it has {found} bytes and not {size}")
    elif hasher.hexdigest() != sha256:
        yield Finding(key=key, fact="its sha256 is not the one that was recorded")


def _compare(dataset: Dataset) -> Iterator[Finding]:
    """Maps against series, and maps against the base level of the COGs, cell by cell."""
    grid = dataset.product.grid
    for quantity in dataset.product.quantities:
        try:
            if dataset.product.series_block is not None:
                for window in windows(grid.shape, (grid.chunk_y, grid.chunk_x)):
                    yield from _compare_series(dataset, quantity, window)
            for listed in dataset.version.cogs:
                if listed.cog.quantity == quantity.name:
                    yield from _compare_cog(dataset, quantity, listed)
        except CenoteError as error:
            yield Finding(key=getattr(error, "key", quantity.name), fact=str(error))


def _compare_series(dataset: Dataset, quantity: Quantity, window: Window) -> Iterator[Finding]:
    block = dataset.product.series_block or 1
    for first in range(0, len(dataset.time), block):
        places = range(first, min(first + block, len(dataset.time)))
        series = dataset.read_series(quantity, places, window)
        for order, place in enumerate(places):
            if not _equal(dataset.read_map(quantity, place, 0, window), series[order]):
                name = dataset.series_segments([place])[0]
                yield Finding(
                    key=layout.segment_prefix(dataset.product.id, name) + layout.series_path(quantity.name),
                    fact=f"its values of {dataset.time.ids[place]} differ from the map's",
                )


def _compare_cog(dataset: Dataset, quantity: Quantity, listed: ListedCog) -> Iterator[Finding]:
    grid = dataset.product.grid
    key = layout.segment_prefix(dataset.product.id, listed.segment) + listed.cog.path
    places = {name: place for place, name in enumerate(dataset.time.ids)}
    with tempfile.TemporaryDirectory(prefix="cenote-verify-") as scratch:
        path = Path(scratch) / "cog.tif"
        with path.open("wb") as file:
            file.writelines(dataset.store.parts(key))
        with rasterio.open(path) as source:
            for band, period in enumerate(listed.cog.periods, start=1):
                for window in windows(grid.shape, (512, grid.width)):
                    there = source.read(
                        band, window=RasterWindow(window.column, window.row, window.width, window.height)
                    )
                    if not _equal(dataset.read_map(quantity, places[period], 0, window), there):
                        yield Finding(key=key, fact=f"its band of {period} differs from the map")
                        break


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
