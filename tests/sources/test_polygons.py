"""Polygons of GeoJSON and shapefiles, and the cells that they hold, against shapely."""

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapefile
import shapely
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Grid, Window
from services.sources import polygons
from services.sources.polygons import Polygons, covered, open_polygons

FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)
COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)
EVERYWHERE = Window(row=0, column=0, height=600, width=1440)
WGS84 = (
    'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,298.257223563]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]]'
)


def box(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def geojson(path: Path, *polygons: tuple[str, list[Any]], **more: Any) -> str:
    features = [
        {"type": "Feature", "properties": {"n": name}, "geometry": {"type": "Polygon", "coordinates": rings}}
        for name, rings in polygons
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return str(path)


def by_shapely(polygons: Polygons, grid: Grid, window: Window) -> NDArray[np.int16]:
    """Every centre against every polygon, in all its turns."""
    x, y = np.meshgrid(grid.longitudes[window.columns], grid.latitudes[window.rows])
    out = np.full(window.shape, -1, dtype=np.int16)
    for number, geometry in reversed(list(enumerate(polygons.geometries))):
        for turn in (-360, 0, 360):
            out[shapely.contains_xy(geometry, x + turn, y)] = number
    return out


def test_first_of_overlapping_polygons_and_holes(tmp_path: Path) -> None:
    path = geojson(
        tmp_path / "a.geojson",
        ("ring", [box(0, 0, 10, 10), box(4, 4, 6, 6)]),
        ("lake", [box(3, 3, 12, 7)]),
    )
    found = open_polygons(path, label="n")
    assert found.names == ("ring", "lake")
    held = covered(found, COARSE, EVERYWHERE)
    np.testing.assert_array_equal(held, by_shapely(found, COARSE, EVERYWHERE))
    cells = {name: held[COARSE.locate(*place)] for name, place in {"a": (1, 1), "b": (5, 5), "c": (11, 5)}.items()}
    assert cells == {"a": 0, "b": 1, "c": 1}
    assert held[COARSE.locate(20, 20)] == -1
    assert held.dtype == np.int16


def test_random_polygons_in_any_window(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    blobs = []
    for number in range(12):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 40))
        radius = generator.uniform(0.05, 3, 40)
        centre = generator.uniform([60, 15], [70, 25])
        ring = (centre + np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)).tolist()
        blobs.append((f"p{number}", [[*ring, ring[0]]]))
    found = open_polygons(geojson(tmp_path / "a.geojson", *blobs), label="n")
    large = Window(row=7800, column=28800, height=1200, width=1200)
    held = covered(found, FINE, large)
    assert len(np.unique(held)) > 8
    np.testing.assert_array_equal(held, by_shapely(found, FINE, large))
    for row, column in itertools.product((0, 333, 1100), (1, 500, 1077)):
        part = Window(row=large.row + row, column=large.column + column, height=97, width=101)
        expected = held[row : row + part.height, column : column + part.width]
        np.testing.assert_array_equal(covered(found, FINE, part), expected)


def test_a_centre_on_an_outline_is_lost_to_neither(tmp_path: Path) -> None:
    # 10.125 is the centre of a column, where both outlines lie
    path = geojson(tmp_path / "a.json", ("west", [box(5, 0, 10.125, 5)]), ("east", [box(10.125, 0, 15, 5)]))
    held = covered(open_polygons(path), COARSE, EVERYWHERE)
    row = COARSE.locate(10, 2)[0]
    assert [int(held[row, COARSE.locate(x, 2)[1]]) for x in (9.9, 10.1, 10.3)] == [0, 0, 1]
    assert (held[row] >= 0).sum() == 40


def test_all_outlines_hold_the_centres_on_them(tmp_path: Path) -> None:
    square = geojson(tmp_path / "a.json", ("square", [box(5.125, 1.125, 10.125, 3.125)]))
    assert (covered(open_polygons(square), COARSE, EVERYWHERE) == 0).sum() == 21 * 9
    slanted = [[[0.125, 0.125], [5.125, 5.125], [0.125, 5.125], [0.125, 0.125]]]
    held = covered(open_polygons(geojson(tmp_path / "b.json", ("half", slanted))), COARSE, EVERYWHERE)
    assert (held == 0).sum() == 21 * 22 // 2


@pytest.mark.parametrize(
    "rings",
    [
        [[[175, -20], [-175, -20], [-175, -10], [175, -10], [175, -20]], box(-179, -16, -177, -14)],
        [box(175, -20, 185, -10), box(181, -16, 183, -14)],
        [box(-185, -20, -175, -10), box(181, -16, 183, -14)],
    ],
)
def test_across_the_antimeridian(tmp_path: Path, rings: list[Any]) -> None:
    found = open_polygons(geojson(tmp_path / "a.json", ("fiji", rings)), label="n")
    held = covered(found, COARSE, EVERYWHERE) == 0
    assert held.sum() == 40 * 40 - 8 * 8
    row = COARSE.locate(0, -15)[0]
    inside = {x: bool(held[row, COARSE.locate(x, 0)[1]]) for x in (174, 176, 179.9, -179.9, -178, -176, -174)}
    assert inside == {174: False, 176: True, 179.9: True, -179.9: True, -178: False, -176: True, -174: False}


def test_split_at_the_antimeridian_and_to_the_map_edge(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    parts = [[box(178, 0, 180, 2)], [box(-180, 0, -179, 2)]]
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": parts}))
    assert (covered(open_polygons(str(path)), COARSE, EVERYWHERE) == 0).sum() == 8 * 12
    ice = geojson(tmp_path / "b.json", ("ice", [box(-180, -90, 180, -59)]))
    held = covered(open_polygons(ice), COARSE, EVERYWHERE)
    assert (held[-4:] == 0).all()
    assert (held[:-4] == -1).all()
    pole = [[[0, 80], [90, 80], [180, 80], [-90, 80], [0, 80]]]
    with pytest.raises(InputRefused, match=r"c.json: polygon 1 \(cap\) goes round a pole; close it"):
        open_polygons(geojson(tmp_path / "c.json", ("cap", pole)), label="n")


def test_rings_that_cross_themselves_are_mended(tmp_path: Path) -> None:
    bow = [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]]
    found = open_polygons(geojson(tmp_path / "a.json", ("plain", [box(9, 9, 10, 10)]), ("bow", bow)), label="n")
    assert found.mended == ("bow",)
    assert found.geometries[1].area == pytest.approx(8.0)
    assert all(geometry.is_valid for geometry in found.geometries)
    with pytest.raises(InputRefused, match=r"b.json: polygon 1 \(line\) has no area"):
        open_polygons(geojson(tmp_path / "b.json", ("line", [[[0, 0], [4, 4], [0, 0], [4, 4], [0, 0]]])), label="n")


def test_what_is_no_polygon_in_degrees_is_refused(tmp_path: Path) -> None:
    def refused(match: str, text: str | bytes, **options: Any) -> None:
        path = tmp_path / "x.geojson"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputRefused, match=match):
            open_polygons(str(path), **options)

    ring = json.dumps({"type": "Polygon", "coordinates": [box(0, 0, 1, 1)]})
    refused(r"x.geojson is neither GeoJSON nor an ESRI shapefile", b"II*\x00")
    refused(r"x.geojson is broken", '{"type": ')
    refused(r"x.geojson is a GeoJSON Point, not polygons", '{"type": "Point", "coordinates": [0, 0]}')
    point = '{"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [0, 0]}}'
    refused(r"x.geojson: feature 1 is Point, not a polygon", point)
    refused(r"x.geojson holds no polygon", '{"type": "FeatureCollection", "features": []}')
    refused(r"polygon 1 has no property 'name' that names it; it has none", ring, label="name")
    metres = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    refused(
        r"x.geojson is in urn:ogc:def:crs:EPSG::3857; make it EPSG:4326", ring[:-1] + f', "crs": {json.dumps(metres)}}}'
    )
    far = json.dumps({"type": "Polygon", "coordinates": [box(0, 0, 500000, 4000000)]})
    refused(r"polygon 1 \(1\) has a point at .*, which are no degrees", far)
    refused(r"polygon 1 \(1\) has a ring of 2 points", '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}')
    with pytest.raises(InputRefused, match=r"nowhere.shp does not exist"):
        open_polygons(str(tmp_path / "nowhere.shp"))


def shp(path: Path, wkt: str | None = WGS84) -> str:
    with shapefile.Writer(str(path), encoding="utf-8") as file:
        file.field("name", "C")
        file.poly([box(0, 0, 10, 10)[::-1], box(4, 4, 6, 6)])  # clockwise outside, the hole the other way
        file.record("Große Ebene")
        file.poly([box(20, 0, 22, 2)[::-1], box(24, 0, 26, 2)[::-1]])
        file.record("zwei")
    if wkt is not None:
        path.with_suffix(".prj").write_text(wkt)
    return str(path)


def test_a_shapefile(tmp_path: Path) -> None:
    found = open_polygons(shp(tmp_path / "a.shp"), label="name")
    assert found.names == ("Große Ebene", "zwei")
    held = covered(found, COARSE, EVERYWHERE)
    assert (held == 0).sum() == 40 * 40 - 8 * 8
    assert (held == 1).sum() == 2 * 8 * 8
    assert sorted(Path(part.name).suffix for part in found.documents) == [".dbf", ".prj", ".shp"]
    assert all(len(part.input().sha256) == 64 for part in found.documents)
    found.check_unchanged()
    (tmp_path / "a.prj").write_text(WGS84 + " ")
    with pytest.raises(InputRefused, match=r"a.prj changed since it was read"):
        found.check_unchanged()


def test_a_shapefile_on_another_system_is_refused(tmp_path: Path) -> None:
    utm = (
        'PROJCS["WGS_1984_UTM_Zone_45N",' + WGS84 + ',PROJECTION["Transverse_Mercator"],'
        'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],PARAMETER["Central_Meridian",87.0],'
        'PARAMETER["Scale_Factor",0.9996],PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
    )
    with pytest.raises(InputRefused, match=r"utm.shp is in EPSG:32645; make it EPSG:4326 first"):
        open_polygons(shp(tmp_path / "utm.shp", utm))
    with pytest.raises(InputRefused, match=r"none.shp has no .prj beside it"):
        open_polygons(shp(tmp_path / "none.shp", None))


def test_real_aquifers(realdata: Path) -> None:
    path = realdata / "groundwater" / "aquifers.geojson"
    found = open_polygons(str(path), label="n")
    assert (len(found), len(set(found.names)), found.mended) == (81, 81, ())
    held = covered(found, COARSE, EVERYWHERE)
    expected = by_shapely(found, COARSE, EVERYWHERE)
    np.testing.assert_array_equal(held, expected)
    # the file itself, read by shapely alone
    features = json.loads(path.read_text())["features"]
    whole = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
    assert all(one.equals(other) for one, other in zip(found.geometries, whole, strict=True))
    assert 5000 < (held >= 0).sum() < 100_000
    ganges = Window(row=7200, column=32000, height=600, width=900)
    np.testing.assert_array_equal(covered(found, FINE, ganges), by_shapely(found, FINE, ganges))
    with pytest.raises(InputRefused, match=r"polygon 1 has no property 'name' that names it; it has n, id"):
        open_polygons(str(path), label="name")


def test_outlines_do_not_travel_and_are_read_again_where_they_are_asked_for(tmp_path: Path) -> None:
    circle = np.linspace(0, 2 * np.pi, 20_001)
    ring = np.stack([10 + np.cos(circle), 20 + np.sin(circle)], axis=1)
    ring[-1] = ring[0]
    path = tmp_path / "round.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring.tolist()]}))
    found = open_polygons(str(path))
    sent = pickle.dumps(found)
    assert len(sent) < 2000
    arrived = pickle.loads(sent)  # noqa: S301 - its own bytes
    assert arrived == found
    assert "geometries" not in vars(arrived)
    assert arrived.geometries[0].equals(found.geometries[0])
    assert pickle.loads(sent).geometries is arrived.geometries, "read once by a process"  # noqa: S301 - its own bytes
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [(ring + 1).tolist()]}))
    polygons._read_again.cache_clear()
    with pytest.raises(InputRefused, match=r"round\.geojson changed since it was read"):
        _ = pickle.loads(sent).geometries  # noqa: S301 - its own bytes
