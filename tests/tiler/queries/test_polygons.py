"""Cells under boxes and areas, and how much of each is covered, against slow and foreign implementations."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box

from services.core.errors import PositionOutside, QueryError, RequestTooLarge
from services.core.grid import Grid
from tiler.cells import Cells, cells_touching
from tiler.geometry import area_of_geojson, check_area, read_area, read_box, read_places_text
from tiler.polygons import EARTH_RADIUS_KM, area_km2, boxes_of, covered_fraction

WORLD = Grid.of(west=-180, north=90, step_x="5", width=72, height=36)
NODES = Grid.of(west="-181.25", north="91.25", step_x="5/2", width=144, height=73)
PACIFIC = Grid.of(west=165, north="20.5", step_x="1/2", step_y="1/4", width=60, height=70)
GRIDS = (WORLD, NODES, PACIFIC)

# in quarters and tenths of degrees: on cells' edges, and off them
degrees = st.one_of(st.integers(-720, 1440).map(lambda n: n / 4), st.integers(-1800, 3600).map(lambda n: n / 10))
latitudes = st.integers(-360, 360).map(lambda n: n / 4)


def touched_slowly(grid: Grid, box_: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which cells share ground with a box, in exact fractions."""
    west, south, east, north = map(Fraction, box_)
    tops = [grid.north - row * grid.step_y for row in range(grid.height)]
    lefts = [grid.west + column * grid.step_x for column in range(grid.width)]
    rows = [top - grid.step_y < north and top > south for top in tops]
    columns = [
        any(left + turn < east and left + grid.step_x + turn > west for turn in (-720, -360, 0, 360, 720))
        for left in lefts
    ]
    return np.outer(rows, columns)


def place(cells: Cells) -> NDArray[np.bool_]:
    """The rectangle on the whole grid."""
    found = np.zeros(cells.grid.shape, dtype=bool)
    for window in cells.windows:
        found[window.rows, window.columns] = True
    return found


@given(
    grid=st.sampled_from(GRIDS), west=degrees, width=st.integers(1, 1440), north=latitudes, height=st.integers(1, 720)
)
@settings(max_examples=150, deadline=None)
def test_cells_of_a_box_are_those_that_share_ground_with_it(
    grid: Grid, west: float, width: int, north: float, height: int
) -> None:
    asked = (west, max(north - height / 4, -90.0), west + width / 4, north)
    if asked[1] == asked[3] or asked[0] > 180:
        return
    wanted = touched_slowly(grid, asked)
    if not wanted.any():
        with pytest.raises(PositionOutside, match="outside the grid"):
            cells_touching(grid, [asked])
        return
    found = cells_touching(grid, [asked])
    here = place(found)
    assert (here | wanted == here).all(), "a cell is left out"
    columns = wanted.any(axis=0)
    if grid.is_global or not (columns[0] and columns[-1]):
        # a regional grid that a box enters from both sides is answered whole
        assert (here == wanted).all()
    assert found.longitudes.shape == (found.width,)
    assert (np.diff(found.longitudes) > 0).all()
    assert -180 <= found.longitudes[0] < 180


def test_a_box_across_the_antimeridian_goes_on_at_the_first_column() -> None:
    found = cells_touching(WORLD, [read_box("170,-5,-170,5")])
    assert [(w.column, w.width) for w in found.windows] == [(70, 2), (0, 2)]
    assert found.longitudes.tolist() == [172.5, 177.5, 182.5, 187.5]


def test_an_area_cut_at_the_antimeridian_is_the_same_as_one_that_passes_it() -> None:
    cut = read_area(
        "MULTIPOLYGON(((170 0,180 0,180 10,170 10,170 0)),((-180 0,-171 0,-171 10,-180 10,-180 0)))", most=99
    )
    whole = read_area("POLYGON((170 0,189 0,189 10,170 10,170 0))", most=99)
    first, second = (cells_touching(WORLD, boxes_of(area)) for area in (cut, whole))
    assert first == second
    np.testing.assert_allclose(covered_fraction(cut, first), covered_fraction(whole, second), atol=1e-12)


def blob(seed: int, centre: tuple[float, float], size: float) -> MultiPolygon:
    """A star-shaped area with a hole."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 40))
    radii = size * random.uniform(0.5, 1.0, 40)
    ring = np.stack([centre[0] + radii * np.cos(angles), centre[1] + radii * np.sin(angles)], axis=1)
    hole = np.stack([centre[0] + 0.2 * size * np.cos(angles), centre[1] + 0.2 * size * np.sin(angles)], axis=1)
    return check_area(shapely.make_valid(Polygon(ring, [hole])), most=5000)


@given(seed=st.integers(0, 10_000), x=st.integers(-150, 320), y=st.integers(-60, 60), size=st.floats(0.3, 25))
@settings(max_examples=60, deadline=None)
def test_covered_areas_of_a_global_grid_sum_to_the_area(seed: int, x: int, y: int, size: float) -> None:
    area = blob(seed, (x, y), size)
    for grid in (WORLD, NODES):
        cells = cells_touching(grid, boxes_of(area))
        weights = covered_fraction(area, cells) * cells.row_areas[:, np.newaxis]
        km2 = float(weights.sum()) * math.radians(float(grid.step_x)) * EARTH_RADIUS_KM**2
        # cells covered by less than a millionth are left out
        assert km2 == pytest.approx(area_km2(area), rel=1e-4)


def covered_by_exactextract(area: MultiPolygon, cells: Cells) -> NDArray[np.float64]:
    west, south, east, north = cells.box
    raster = NumPyRasterSource(np.zeros(cells.shape), west, south, east, north)
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(area)}
    (found,) = exact_extract(raster, feature, ["coverage", "cell_id"])
    fraction = np.zeros(cells.count)
    fraction[found["properties"]["cell_id"]] = found["properties"]["coverage"]
    return fraction.reshape(cells.shape)


@pytest.mark.parametrize("seed", range(6))
def test_covered_fraction_equals_exactextract_where_cells_are_nearly_flat(seed: int) -> None:
    # exactextract measures in degrees; over a cell of 1/40 degree near the equator the sphere differs by 1e-5
    grid = Grid.of(west=-10, north=4, step_x="1/40", width=800, height=320)
    area = blob(seed, (0.013, 0.02), 2.5)
    cells = cells_touching(grid, boxes_of(area))
    np.testing.assert_allclose(covered_fraction(area, cells), covered_by_exactextract(area, cells), atol=2e-5)


def test_covered_fraction_of_a_part_of_a_cell_is_its_share_of_the_sphere() -> None:
    cells = cells_touching(WORLD, [(10.0, 60.0, 15.0, 65.0)])
    fraction = covered_fraction(check_area(box(11, 61, 13, 64), most=9), cells)
    sine = [math.sin(math.radians(edge)) for edge in (60, 61, 64, 65)]
    assert fraction.shape == (1, 1)
    assert fraction[0, 0] == pytest.approx(2 / 5 * (sine[2] - sine[1]) / (sine[3] - sine[0]), rel=1e-12)


def test_covered_fraction_of_the_whole_world_is_one_everywhere() -> None:
    area = check_area(box(-180, -90, 180, 90), most=9)
    for grid in (WORLD, NODES):
        cells = cells_touching(grid, boxes_of(area))
        assert cells.count == grid.cells
        assert (covered_fraction(area, cells) == 1).all()
    assert area_km2(area) == pytest.approx(4 * math.pi * EARTH_RADIUS_KM**2, rel=1e-12)


def test_an_area_that_leaves_a_regional_grid_covers_the_edge_cells_fully() -> None:
    area = check_area(box(150, -40, 200, 40), most=9)
    cells = cells_touching(PACIFIC, boxes_of(area))
    assert cells.count == PACIFIC.cells
    assert (covered_fraction(area, cells) == 1).all()


def test_a_zigzag_across_too_many_cells_is_refused_before_it_is_cut() -> None:
    teeth = [(x / 25 - 80, 80.0 if x % 2 else -80.0) for x in range(4000)]
    area = check_area(Polygon([*teeth, (80.0, -85.0), (-80.0, -85.0)]), most=5000)
    fine = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=21600)
    cells = Cells(grid=fine, row=0, height=fine.height, column=0, width=fine.width)
    with pytest.raises(RequestTooLarge, match="crosses more than"):
        covered_fraction(area, cells)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("POINT(1 2", "not well-known text"),
        ("hello", "not well-known text"),
        ("POINT EMPTY", "an empty POINT"),
        ("LINESTRING(0 0,1 1)", "a LINESTRING"),
        ("POINT Z(1 2 3)", "heights"),
        ("POINT(nan 2)", "finite"),
        ("POINT(1e999 2)", "finite"),
        ("POINT(1 91)", "latitude 91 must lie in -90..90"),
        ("POINT(-181 1)", "longitude -181 must lie in -180..360"),
        ("POINT(361 1)", "longitude 361 must lie in -180..360"),
    ],
)
def test_malformed_places_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        read_places_text(text, most=10)


def test_places_at_the_limit_are_read_and_one_more_is_refused() -> None:
    text = "MULTIPOINT(" + ",".join("(1 2)" for _ in range(10)) + ")"
    assert read_places_text(text, most=10) == [(1.0, 2.0)] * 10
    with pytest.raises(RequestTooLarge, match="10 places; at most 9"):
        read_places_text(text, most=9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the way round that was not meant crosses itself: what is said is what to do about it
        ("POLYGON((0 70,90 70,180 70,-90 70,0 70))", "write longitudes past 180"),
        ("POLYGON((0 0,10 10,10 0,0 10,0 0))", "not valid: Self-intersection"),
        ("POLYGON((0 0,1 0,1 1))", "not well-known text"),
        ("POLYGON EMPTY", "an empty POLYGON"),
        ("POINT(1 1)", "a POINT; area needs"),
        ("POLYGON((170 0,-170 0,-170 10,170 10,170 0))", "spans 340 degrees"),
        ("POLYGON((0 0,1 0,1 95,0 0))", "latitude 95"),
    ],
)
def test_malformed_areas_are_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        read_area(text, most=100)


def test_vertices_at_the_limit_are_read_and_one_more_is_refused() -> None:
    circle = shapely.Point(0, 0).buffer(10, quad_segs=25)
    assert len(circle.exterior.coords) == 101
    read_area(circle.wkt, most=101)
    with pytest.raises(RequestTooLarge, match="101 vertices; at most 100"):
        read_area(circle.wkt, most=100)
    with pytest.raises(RequestTooLarge, match="101 vertices; at most 100"):
        area_of_geojson(shapely.geometry.mapping(circle), most=100)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": 5},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[["a", "b"], [1, 1], [1, 0], [0, 0]]]},
        {"type": "Feature", "geometry": None},
        {"type": "MultiPolygon", "coordinates": [[[0, 0]]]},
    ],
)
def test_bodies_that_are_no_area_are_refused(document: Any) -> None:
    with pytest.raises(QueryError):
        area_of_geojson(document, most=100)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3", "four numbers"),
        ("a,b,c,d", "four numbers"),
        ("0,0,0,1,1,1", "six numbers"),
        ("0,10,5,0", "south 10 above north 0"),
        ("0,0,nan,1", "finite"),
        ("-180,0,200,1", "380 degrees"),
    ],
)
def test_malformed_boxes_are_refused(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        read_box(text)
