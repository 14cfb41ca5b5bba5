"""Polygons with names (aquifers, glaciers, lakes) from GeoJSON and ESRI shapefiles, and the cells that they hold."""

import codecs
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.crs
import rasterio.features
import shapefile
import shapely
import shapely.geometry
from affine import Affine
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import documents
from services.sources.broken import reading
from services.sources.documents import Document

MOST = np.iinfo(np.int16).max
"""Polygons that an index of 16 bits tells apart."""

_DEGREES = frozenset({"urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84", "CRS84", "OGC:CRS84"})
_KINDS = ("Polygon", "MultiPolygon")
_PRJ, _CPG = ".prj", ".cpg"

type Ring = NDArray[np.float64]
"""Longitudes and latitudes ``(n, 2)``."""


type Geometries = tuple[shapely.Polygon | shapely.MultiPolygon, ...]


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Polygons in the file's order.

    Outlines may be hundreds of megabytes, so they do not travel: what is sent to another process is the files' places
    and digests, and it reads them there when they are asked for, once, and compares the digests.

    Raises:
        InputRefused: from ``geometries`` in another process, if a file is not what it was.
    """

    documents: tuple[Document, ...]
    label: str | None
    """The property that names a polygon; None: they are numbered."""

    names: tuple[str, ...]
    mended: tuple[str, ...]
    """Names of those whose rings crossed themselves and were mended."""

    @cached_property
    def geometries(self) -> Geometries:
        """Outlines; longitudes of one that crosses the antimeridian go on beyond 180."""
        return _read_again(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __len__(self) -> int:
        return len(self.names)

    def check_unchanged(self) -> None:
        """Read the files again.

        Raises:
            InputRefused: if one is not what it was.
        """
        for document in self.documents:
            document.check_unchanged()


def open_polygons(name: str, *, label: str | None = None) -> Polygons:
    """Read polygons.

    An edge of a ring that is longer than half a turn crosses the antimeridian; one from -180 to 180 is the map's edge.

    Args:
        name: path of a GeoJSON file, or of the ``.shp`` of a shapefile.
        label: property that names a polygon; None: they are numbered from 1.

    Raises:
        InputRefused: if it is broken, on another coordinate system than EPSG:4326, or holds what is no polygon.
    """
    document, body = documents.read(name)
    if body.startswith(b"\x00\x00\x27\x0a"):
        read, found = _shapefile(name, document, body)
    elif body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        read, found = (document,), _geojson(name, body)
    else:
        raise InputRefused(f"{name} is neither GeoJSON nor an ESRI shapefile (.shp)")
    if not found:
        raise InputRefused(f"{name} holds no polygon")
    if len(found) > MOST:
        raise InputRefused(f"{name} holds {len(found)} polygons; {MOST} at most can be told apart")
    names: list[str] = []
    geometries: list[shapely.Polygon | shapely.MultiPolygon] = []
    mended: list[str] = []
    for number, (properties, geometry) in enumerate(found, start=1):
        own = _label(name, number, properties, label)
        whole, was_mended = _sound(f"{name}: polygon {number} ({own})", geometry)
        names.append(own)
        geometries.append(whole)
        mended += [own] if was_mended else []
    opened = Polygons(documents=read, label=label, names=tuple(names), mended=tuple(mended))
    vars(opened)["geometries"] = tuple(geometries)  # where cached_property looks for them
    return opened


@lru_cache(maxsize=4)  # every task that a process does has them from here
def _read_again(polygons: Polygons) -> Geometries:
    first = polygons.documents[0]
    again = open_polygons(first.location, label=polygons.label)
    if [one.sha256 for one in again.documents] != [one.sha256 for one in polygons.documents]:
        raise InputRefused(f"{first.name} changed since it was read")
    return again.geometries


def covered(polygons: Polygons, grid: Grid, window: Window) -> NDArray[np.int16]:
    """Which polygon holds the centre of each cell.

    GDAL fills what lies well inside; cells that an outline touches are decided by shapely, exactly. A centre on an
    outline is held, so that no cell is lost between neighbours.

    Args:
        polygons: the polygons.
        grid: any grid.
        window: cells of it.

    Returns:
        ``(y, x)``, number of the first polygon that holds the centre, from 0; -1 where none does.
    """
    out = np.full(window.shape, -1, dtype=np.int16)
    rows, columns = grid.latitudes[window.rows], grid.longitudes[window.columns]
    west, step_x = float(grid.west + window.column * grid.step_x), float(grid.step_x)
    north, step_y = float(grid.north - window.row * grid.step_y), float(grid.step_y)
    for number, geometry in enumerate(polygons.geometries):
        low_x, low_y, high_x, high_y = geometry.bounds
        down = _within((north - high_y) / step_y, (north - low_y) / step_y, window.height)
        for turn in (-360.0, 0.0, 360.0):
            along = _within((low_x - west - turn) / step_x, (high_x - west - turn) / step_x, window.width)
            if down is None or along is None:
                continue
            corner = (west + turn + along.start * step_x, north - down.start * step_y)
            place = Affine(step_x, 0.0, corner[0], 0.0, -step_y, corner[1])
            held = _held(geometry, place, rows[down], columns[along] + turn)
            part = out[down, along]
            part[held & (part < 0)] = number
    return out


def _within(first: float, last: float, count: int) -> slice | None:
    """The cells that a stretch touches, and one more on each side; None where it touches none."""
    low, high = max(math.floor(first) - 1, 0), min(math.ceil(last) + 1, count)
    return slice(low, high) if low < high else None


def _held(
    geometry: shapely.Polygon | shapely.MultiPolygon,
    place: Affine,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> NDArray[np.bool_]:
    shape = (rows.size, columns.size)
    inside = np.asarray(
        rasterio.features.rasterize([geometry], out_shape=shape, transform=place, dtype="uint8"), dtype=np.bool_
    )
    edge = np.asarray(
        rasterio.features.rasterize(
            [geometry.boundary], out_shape=shape, transform=place, dtype="uint8", all_touched=True
        ),
        dtype=np.bool_,
    )
    y, x = np.nonzero(edge)
    shapely.prepare(geometry)
    inside[y, x] = shapely.intersects_xy(geometry, columns[x], rows[y])
    return inside


def _geojson(name: str, body: bytes) -> list[tuple[dict[str, Any], Any]]:
    with reading(name):
        document = json.loads(documents.text(name, body))
    if not isinstance(document, dict):
        raise InputRefused(f"{name} is JSON and no GeoJSON")
    _check_crs(name, document.get("crs"))
    kind = document.get("type")
    if kind == "FeatureCollection":
        features = document.get("features") or []
    elif kind == "Feature":
        features = [document]
    elif kind in _KINDS:
        features = [{"properties": {}, "geometry": document}]
    else:
        raise InputRefused(f"{name} is a GeoJSON {kind}, not polygons")
    found: list[tuple[dict[str, Any], Any]] = []
    for number, feature in enumerate(features, start=1):
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        said = geometry.get("type") if isinstance(geometry, dict) else None
        if said not in _KINDS or not isinstance(geometry, dict):
            raise InputRefused(f"{name}: feature {number} is {said or 'without geometry'}, not a polygon")
        found.append((feature.get("properties") or {}, geometry))
    return found


def _shapefile(
    name: str, document: Document, body: bytes
) -> tuple[tuple[Document, ...], list[tuple[dict[str, Any], Any]]]:
    base = Path(document.location).with_suffix("")
    beside = {suffix: next((p for p in _spelled(base, suffix) if p.is_file()), None) for suffix in (".dbf", _PRJ, _CPG)}
    projection = beside[_PRJ]
    if projection is None:
        raise InputRefused(
            f"{name} has no .prj beside it and so no coordinate system; "
            "ogr2ogr -s_srs EPSG:4326 -t_srs EPSG:4326 new.geojson says that it is in degrees"
        )
    read = {suffix: documents.read(str(path)) for suffix, path in beside.items() if path is not None}
    _check_wkt(name, documents.text(str(projection), read[_PRJ][1]))
    encoding = documents.text(name, read[_CPG][1]).strip() if _CPG in read else "utf-8"
    found: list[tuple[dict[str, Any], Any]] = []
    with (
        reading(name),
        shapefile.Reader(
            shp=io.BytesIO(body),
            dbf=io.BytesIO(read[".dbf"][1]) if ".dbf" in read else None,
            encoding=_codec(encoding),
            encodingErrors="replace",
        ) as file,
    ):
        for number, shape in enumerate(file.iterShapes()):
            if shape.shapeTypeName not in {"POLYGON", "POLYGONZ", "POLYGONM"}:
                raise InputRefused(f"{name}: shape {number + 1} is {shape.shapeTypeName}, not a polygon")
            properties = file.record(number).as_dict() if ".dbf" in read else {}
            found.append((properties, shape.__geo_interface__))
    return (document, *(part for part, _ in read.values())), found


def _spelled(base: Path, suffix: str) -> Iterator[Path]:
    for spelled in (suffix, suffix.upper()):
        yield base.with_name(base.name + spelled)


def _codec(said: str) -> str:
    try:
        return codecs.lookup(said).name
    except LookupError:
        return "utf-8"  # GDAL and QGIS write it


def _check_crs(name: str, crs: Any) -> None:
    """GeoJSON is in degrees (RFC 7946) unless it says otherwise as its forerunner of 2008 could."""
    if crs is None:
        return
    said = crs.get("properties", {}).get("name") if isinstance(crs, dict) else None
    if isinstance(said, str) and (
        said in _DEGREES or said.rstrip("/").replace("::", ":").endswith(("EPSG:4326", "EPSG/0/4326"))
    ):
        return
    raise InputRefused(
        f"{name} is in {said or crs}; make it EPSG:4326 first: ogr2ogr -t_srs EPSG:4326 new.geojson {name}"
    )


def _check_wkt(name: str, wkt: str) -> None:
    with reading(f"{name} (.prj)"):
        crs = rasterio.crs.CRS.from_wkt(wkt)
    if crs.to_epsg() != 4326:
        said = f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else " ".join(wkt.split())[:60]
        raise InputRefused(f"{name} is in {said}; make it EPSG:4326 first: ogr2ogr -t_srs EPSG:4326 new.shp {name}")


def _label(name: str, number: int, properties: dict[str, Any], label: str | None) -> str:
    if label is None:
        return str(number)
    value = properties.get(label)
    if value is None or not str(value).strip():
        have = ", ".join(properties) or "none"
        raise InputRefused(f"{name}: polygon {number} has no property {label!r} that names it; it has {have}")
    return str(value).strip()


def _sound(what: str, geometry: Any) -> tuple[shapely.Polygon | shapely.MultiPolygon, bool]:
    """A valid geometry whose longitudes go on across the antimeridian, and whether it had to be mended."""
    with reading(what):
        parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        polygons = [_polygon(what, part) for part in parts if len(part)]
    if not polygons:
        raise InputRefused(f"{what} is empty")
    whole: Any = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
    mended = not whole.is_valid
    if mended:
        whole = shapely.make_valid(whole, method="structure")
        kept = [
            part
            for part in shapely.get_parts(shapely.get_parts(whole))
            if part.geom_type == "Polygon" and part.area > 0
        ]
        if not kept:
            raise InputRefused(f"{what} has no area")
        whole = kept[0] if len(kept) == 1 else shapely.MultiPolygon(kept)
    if whole.area <= 0:
        raise InputRefused(f"{what} has no area")
    return whole, mended


def _polygon(what: str, rings: Sequence[Any]) -> shapely.Polygon:
    unwound = [_ring(what, ring) for ring in rings]
    outer = unwound[0]
    middle = (outer[:, 0].min() + outer[:, 0].max()) / 2
    # a hole on the other side of the antimeridian lies a turn beside its ring
    for hole in unwound[1:]:
        hole[:, 0] += 360.0 * round((middle - float(hole[:, 0].mean())) / 360.0)
    return shapely.Polygon(outer, unwound[1:])


def _ring(what: str, points: Any) -> Ring:
    ring = np.asarray([point[:2] for point in points], dtype=np.float64)
    if len(ring) < 4 or not np.isfinite(ring).all():
        raise InputRefused(f"{what} has a ring of {len(ring)} points, or one that is no number; four make a triangle")
    if np.abs(ring[:, 1]).max() > 90 or np.abs(ring[:, 0]).max() > 540:
        x, y = ring[int(np.argmax(np.maximum(np.abs(ring[:, 1]) / 90, np.abs(ring[:, 0]) / 540)))]
        raise InputRefused(f"{what} has a point at {x:g}, {y:g}, which are no degrees: is it on a map projection?")
    steps = np.diff(ring[:, 0])
    crossing = (np.abs(steps) > 180.0) & (np.abs(steps) != 360.0)
    turns = np.concatenate([[0.0], np.cumsum(np.where(crossing, -360.0 * np.sign(steps), 0.0))])
    if turns[-1] != 0:
        raise InputRefused(
            f"{what} goes round a pole; close it along the map's edge, through -180 and 180 at the pole's latitude"
        )
    ring[:, 0] += turns
    return ring
