"""GeoTIFF and COG with one or many bands."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.crs
import rasterio.enums
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from services.core.errors import InputRefused
from services.core.grid import CIRCLE
from services.sources.lonlat import HALF_TURN, Axis, exact_axis, placed
from services.sources.packing import Packing, representable
from services.sources.raster import Access, Attributes, Description

WGS84 = rasterio.crs.CRS.from_epsg(4326)
_TITLE = ("TITLE", "title", "TIFFTAG_IMAGEDESCRIPTION")
_UNITS = ("units", "UNITS", "UNIT", "unit", "Unit", "Units")
_PIECE = 2**22
"""Bytes decompressed at a time."""

_PROVENANCE = ("SOURCE", "source", "institution", "references", "comment", "TIFFTAG_COPYRIGHT", "license")


class Tiff:
    """An open GeoTIFF."""

    def __init__(self, path: str, name: str) -> None:
        with _environment():
            self._dataset = rasterio.open(path, driver="GTiff", sharing=False)
        self._name = name
        self._bytes = Path(path).open("rb")  # noqa: SIM115 - closed by close()
        self._sound: set[tuple[int, int, int]] = set()

    def read(self, access: Access, slices: slice, rows: slice, columns: slice) -> NDArray[Any]:
        """As ``Opened.read``."""
        window = RasterWindow(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        bands = [number + 1 for number in range(slices.start, slices.stop, slices.step or 1)]
        with _environment():
            self._check_blocks(bands, rows, columns)
            values: NDArray[Any] = self._dataset.read(bands, window=window)
            if access.masked:
                masks = self._dataset.read_masks(bands, window=window)
                return np.ma.MaskedArray(values, mask=masks == 0)
        return values

    def close(self) -> None:
        """As ``Opened.close``."""
        self._dataset.close()
        self._bytes.close()

    def _check_blocks(self, bands: list[int], rows: slice, columns: slice) -> None:
        """Hold deflated blocks against their own checksums, which libtiff does not look at."""
        structure = self._dataset.tags(ns="IMAGE_STRUCTURE")
        if structure.get("COMPRESSION") != "DEFLATE":
            return
        if structure.get("INTERLEAVE") == "PIXEL":
            bands = [1]  # one block holds all
        height, width = self._dataset.block_shapes[0]
        for band in bands:
            for y in range(rows.start // height, -(-rows.stop // height)):
                for x in range(columns.start // width, -(-columns.stop // width)):
                    if (band, y, x) not in self._sound:
                        self._check_block(band, y, x)
                        self._sound.add((band, y, x))

    def _check_block(self, band: int, y: int, x: int) -> None:
        offset = self._dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", dm="TIFF", bidx=band)
        size = self._dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", dm="TIFF", bidx=band)
        if not offset or not size:
            return  # never written: GDAL's way to leave out a block without values
        self._bytes.seek(int(offset))
        stream = zlib.decompressobj()
        try:
            rest = self._bytes.read(int(size))
            while rest and not stream.eof:
                stream.decompress(rest, _PIECE)
                rest = stream.unconsumed_tail
        except zlib.error as error:
            raise InputRefused(
                f"{self._name} is broken: block {x}, {y} of band {band} does not decompress: {error}"
            ) from None
        if not stream.eof:
            raise InputRefused(f"{self._name} is broken: block {x}, {y} of band {band} ends too early")


def describe(path: str, name: str, wanted: str | None) -> Description:
    """Describe a GeoTIFF.

    Args:
        path: the file.
        name: the file, for messages.
        wanted: a band's description, to take that band alone; else what the values are to be called.

    Raises:
        InputRefused: if it does not lie on longitudes and latitudes, or its bands differ in type.
    """
    with _environment(), rasterio.open(path, driver="GTiff", sharing=False) as dataset:
        _check_place(name, dataset)
        # each of these properties is made anew for all bands whenever it is asked for
        colours, descriptions, dtypes = dataset.colorinterp, dataset.descriptions, dataset.dtypes
        if rasterio.enums.ColorInterp.alpha in colours:
            number = colours.index(rasterio.enums.ColorInterp.alpha) + 1
            raise InputRefused(
                f"{name}: its band {number} is marked as transparency; if it holds values like the others, say so with "
                f"gdal_edit.py -colorinterp_{number} undefined {name}, else leave it out with gdal_translate -b"
            )
        bands = list(dataset.indexes)
        labels = [descriptions[n - 1] for n in bands]
        picked = wanted is not None and labels.count(wanted) == 1
        if picked:
            bands = [bands[labels.index(wanted)]]
        kinds = {dtypes[n - 1] for n in bands}
        if len(kinds) != 1 or not bands:
            raise InputRefused(f"{name}: its bands have different types: {', '.join(sorted(kinds)) or 'none'}")
        kind = kinds.pop()
        if np.dtype(kind).kind not in "iuf":
            raise InputRefused(f"{name}: its values are {kind}, which are no plain numbers")
        transform = dataset.transform
        longitudes = _centres(name, "longitude", transform.c, transform.a, dataset.width, CIRCLE)
        latitudes = _centres(name, "latitude", transform.f, transform.e, dataset.height, HALF_TURN)
        grid, layout = placed(name, longitudes, latitudes)
        flags = dataset.mask_flag_enums[bands[0] - 1]
        masked = rasterio.enums.MaskFlags.all_valid not in flags and rasterio.enums.MaskFlags.nodata not in flags
        said = zip(dataset.nodatavals, dataset.scales, dataset.offsets, strict=True)
        by_band = [_packing(kind, None if masked else nodata, scale, offset) for nodata, scale, offset in said]
        packings = tuple(by_band[n - 1] for n in bands)
        facts = [] if dataset.crs == WGS84 else [f"coordinate system: {_crs_name(dataset)}, taken for EPSG:4326"]
        if picked:
            facts.append(f"band {bands[0]} of {dataset.count} alone, described as {wanted!r}")
        tags, band_tags = dataset.tags(), dataset.tags(bands[0])
        unit_of = dataset.units
        units = {unit_of[n - 1] for n in bands if unit_of[n - 1]}
        if len(units) > 1:
            raise InputRefused(f"{name}: its bands have different units: {', '.join(sorted(units))}")
        return Description(
            access=Access(
                variable=wanted or band_tags.get("NETCDF_VARNAME") or "", roles=("t", "y", "x"), masked=masked
            ),
            grid=grid,
            layout=layout,
            slices=len(bands),
            packings=packings if len(set(packings)) > 1 else packings[:1],
            labels=() if picked else tuple(labels),
            units=(units.pop() if units else None) or _first(band_tags, _UNITS) or _first(tags, _UNITS),
            long_name=_first(band_tags, ("long_name",)),
            standard_name=_first(band_tags, ("standard_name",)),
            title=_first(tags, _TITLE),
            global_attributes=_provenance(tags),
            facts=tuple(facts),
            first_longitude=float(longitudes.first),
            last_longitude=float(longitudes.last),
            numbers=tuple(n - 1 for n in bands),
        )


def _check_place(name: str, dataset: Any) -> None:
    crs, transform = dataset.crs, dataset.transform
    if crs is None:
        if dataset.gcps[0]:
            raise InputRefused(
                f"{name} is placed by ground control points only; warp it first: gdalwarp -t_srs EPSG:4326"
            )
        raise InputRefused(
            f"{name} has no georeference: no coordinate system is stored in it "
            "(gdal_edit.py -a_srs EPSG:4326 -a_ullr W N E S says where it lies)"
        )
    if not crs.is_geographic:
        raise InputRefused(
            f"{name} is on a projected grid ({_crs_name(dataset)}), not on longitudes and latitudes; "
            f"make it so first: gdalwarp -t_srs EPSG:4326 {name} new.tif"
        )
    unit, factor = crs.units_factor
    if abs(factor - np.pi / 180) > 1e-9:
        raise InputRefused(
            f"{name}: its coordinates are in {unit}, not in degrees; gdalwarp -t_srs EPSG:4326 converts them"
        )
    meridian = crs.to_dict(projjson=True).get("datum", {}).get("prime_meridian", {}).get("longitude", 0)
    if meridian not in (0, 0.0):
        raise InputRefused(
            f"{name}: its longitudes count from another meridian than Greenwich; gdalwarp -t_srs EPSG:4326"
        )
    if transform.is_identity:
        raise InputRefused(f"{name} has no georeference: its geotransform is the identity")
    if transform.b or transform.d:
        raise InputRefused(
            f"{name}: its geotransform is rotated ({transform.b:g}, {transform.d:g}); "
            f"make it north up first: gdalwarp -t_srs EPSG:4326 {name} new.tif"
        )
    if not transform.a or not transform.e:
        raise InputRefused(f"{name}: its cells have no size ({transform.a:g} x {transform.e:g} degrees)")


def _centres(name: str, label: str, edge: float, step: float, count: int, whole: Fraction) -> Axis:
    # a geotransform says edges; one more than there are cells, so that a single cell has a size too
    edges = exact_axis(name, label, edge + step * np.arange(count + 1, dtype=np.float64), None, whole)
    return Axis(first=edges.first + edges.step / 2, step=edges.step, count=count)


def _packing(kind: str, nodata: float | None, scale: float, offset: float) -> Packing:
    missing = None if nodata is None else representable(nodata, np.dtype(kind))
    scaled = (scale, offset) != (1.0, 0.0)
    return Packing(
        dtype=kind,
        missing=() if missing is None else (missing,),
        scale_factor=float(scale) if scaled else None,
        add_offset=float(offset) if scaled and offset else None,
    )


def _crs_name(dataset: Any) -> str:
    code = dataset.crs.to_epsg()
    if code is not None:
        return f"EPSG:{code}"
    name = dataset.crs.to_dict(projjson=True).get("name")
    return str(name or dataset.crs.to_wkt()[:60])


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        text = tags.get(name, "").strip()
        if text:
            return " ".join(text.split())[:1000]
    return None


def _provenance(tags: Mapping[str, str]) -> Attributes:
    kept: dict[str, str] = {}
    for name in _PROVENANCE:
        text = _first(tags, (name,))
        if text:
            kept.setdefault("license" if name == "TIFFTAG_COPYRIGHT" else name.lower(), text)
    return kept


@contextmanager
def _environment() -> Iterator[None]:
    # sidecar files would change what is read without being part of what is hashed
    with rasterio.Env(
        GDAL_PAM_ENABLED="NO",
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
        GDAL_CACHEMAX=64 << 20,  # bytes here; GDAL alone would take megabytes
        GDAL_NUM_THREADS="1",
        GTIFF_IGNORE_READ_ERRORS="NO",
    ):
        yield
