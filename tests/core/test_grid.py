import math
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.transform import rowcol

from services.core.errors import DeclarationError, PositionOutside
from services.core.grid import Grid, Window, chunk_width, inner_chunk, windows

MONTHLY = Grid.of(west=-180, north=90, step_x="1/20", width=7200, height=3600)
FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)
NODES = Grid.of(west="-1441/8", north="721/8", step_x="1/4", width=1440, height=721)
"""ERA5: values on -180, -179.75 ... and 90, 89.75 ... -90."""

PACIFIC = Grid.of(west=170, north=10, step_x="1/4", width=100, height=40)
"""Crosses the antimeridian: 170 east to 195 east."""

CHINA = Grid.of(west="289/4", north=55, step_x="1/10", width=640, height=400)

GRIDS = {"monthly": MONTHLY, "fine": FINE, "nodes": NODES, "pacific": PACIFIC, "china": CHINA}


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Regional, global and node grids of any odd step."""
    if draw(st.booleans()):
        width = draw(st.integers(8, 400))
        step = Fraction(360, width)
    else:
        step = draw(st.fractions(Fraction(1, 200), 5, max_denominator=400))
        width = draw(st.integers(1, min(400, int(360 // step))))
    full = int(180 // step)
    height = draw(st.one_of(st.integers(1, min(300, full)), st.just(min(full, 500))))
    west = draw(st.fractions(-180, 179, max_denominator=60))
    # from the south pole up: in the last case values lie on nodes, and one row more reaches past both poles
    room = 180 - height * step
    north = Fraction(-90) + height * step + room * draw(st.fractions(0, 1, max_denominator=60))
    if room == 0 and draw(st.booleans()):
        height, north = height + 1, north + step / 2
    return Grid.of(west=west, north=north, step_x=step, step_y=step, width=width, height=height)


@pytest.mark.parametrize(
    ("width", "step", "chunk"),
    [
        (7200, "1/20", 450),
        (43200, "1/120", 675),
        (14399, "1/40", 512),  # a width that does not divide: the seam column was dropped
        (14400, "1/40", 450),
        (3600, "1/10", 450),
        (1440, "1/4", 720),
        (720, "1/2", 720),
        (360, "1", 360),
        (180, "2", 180),
        (40, "9", 40),
        (4096, "360/4096", 512),
        (640, "1/10", 512),  # a region
        (43, "1/4", 43),
        (1439, "360/1439", 512),  # global and prime: no 360 / 2^n of a fitting size
    ],
)
def test_chunks_of_global_grids_are_a_power_of_two_of_the_circle(width: int, step: str, chunk: int) -> None:
    assert chunk_width(width, Fraction(step)) == chunk
    if width * Fraction(step) == 360 and chunk != 512:
        degrees = chunk * Fraction(step)
        assert 360 % degrees == 0
        assert (360 / degrees).numerator & ((360 / degrees).numerator - 1) == 0


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_chunks_and_shards_cover_every_cell_once(grid: Grid) -> None:
    assert grid.shard_shape[0] % grid.chunk_y == 0
    assert grid.shard_shape[1] % grid.chunk_x == 0
    assert grid.shard_shape[0] <= 4 * grid.chunk_y
    for pieces, size in ((grid.shards(), grid.shard_shape), (grid.chunks(), (grid.chunk_y, grid.chunk_x))):
        area = 0
        for window in pieces:
            assert window.row % size[0] == 0
            assert window.column % size[1] == 0
            assert window.row + window.height <= grid.height
            assert window.column + window.width <= grid.width
            area += window.height * window.width
        assert area == grid.cells


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_windows_cut_a_rectangle_without_overlap_or_gap(height: int, width: int, tall: int, wide: int) -> None:
    seen = np.zeros((height, width), dtype=int)
    for window in windows((height, width), (tall, wide)):
        assert window.shape <= (tall, wide)
        seen[window.rows, window.columns] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("chunk", "inner"),
    [
        (450, 9),
        (675, 15),
        (512, 8),
        (720, 12),
        (360, 8),
        (17, 17),
        (1, 1),
        (43, 43),
        (514, 2),
        (447, 3),
        (401, 1),
        (500, 10),
    ],
)
def test_series_chunks_divide_the_map_chunk(chunk: int, inner: int) -> None:
    assert inner_chunk(chunk) == inner
    assert chunk % inner == 0


def test_series_chunks_are_few_and_small_wherever_that_can_be() -> None:
    for chunk in range(1, 1025):
        inner = inner_chunk(chunk)
        assert chunk % inner == 0
        assert inner <= 64
        fitting = [cells for cells in range(1, 65) if chunk % cells == 0 and chunk // cells <= 64]
        assert chunk // inner <= 64 or not fitting


def test_numbers_are_exact_fractions() -> None:
    assert FINE.step_x == Fraction(1, 120)
    assert FINE.east == 180
    assert FINE.south == -60
    assert FINE.is_global
    assert CHINA.west == Fraction("72.25")
    assert (CHINA.east, CHINA.south) == (Fraction("136.25"), Fraction(15))
    # the last centre of 43 200 columns is the float nearest to 180 - 1/240, which no sum of floats gives
    assert FINE.longitudes[-1] == float(Fraction(180) - Fraction(1, 240))
    assert FINE.latitudes[-1] == float(Fraction(-60) + Fraction(1, 240))


@settings(deadline=None)
@given(grids())
def test_every_centre_is_the_float_nearest_to_its_exact_value(grid: Grid) -> None:
    for column in {0, grid.width // 3, grid.width - 1}:
        assert grid.longitudes[column] == float(grid.west + grid.step_x * (Fraction(1, 2) + column))
    for row in {0, grid.height // 3, grid.height - 1}:
        assert grid.latitudes[row] == float(grid.north - grid.step_y * (Fraction(1, 2) + row))
    assert grid.longitudes.shape == (grid.width,)
    assert grid.latitudes.shape == (grid.height,)


def test_centres_of_a_step_that_came_from_a_float_are_exact_too() -> None:
    odd = replace(CHINA, step_x=Fraction(0.1), step_y=Fraction(0.1), west=Fraction(72.3), width=600)
    assert odd.step_x != Fraction(1, 10)
    for column in (0, 1, 599):
        assert odd.longitudes[column] == float(odd.west + odd.step_x * (Fraction(1, 2) + column))


@pytest.mark.parametrize(
    ("grid", "sizes"),
    [
        (MONTHLY, [(3600, 7200), (1800, 3600), (900, 1800), (450, 900), (225, 450)]),
        (NODES, [(721, 1440), (361, 720), (181, 360)]),
        (CHINA, [(400, 640), (200, 320), (100, 160), (50, 80)]),
        (Grid.of(west=-180, north=90, step_x="1", width=360, height=180), [(180, 360)]),
        (Grid.of(west=0, north=1, step_x="1/100", width=5, height=1), [(1, 5)]),
    ],
)
def test_levels_are_halves_rounded_up_until_a_cell_is_a_world_tiles_pixel(
    grid: Grid, sizes: list[tuple[int, int]]
) -> None:
    assert grid.levels == len(sizes)
    assert [grid.level(number).shape for number in range(grid.levels)] == sizes
    for number in range(grid.levels):
        at = grid.level(number)
        assert (at.west, at.north) == (grid.west, grid.north)
        assert (at.step_x, at.step_y) == (grid.step_x * 2**number, grid.step_y * 2**number)
        assert number == 0 or at.step_x <= Fraction(360, 256)
        # the last row and column reach the edge of level 0, and no whole one is beyond it
        assert at.south <= grid.south < at.south + at.step_y
        assert at.east >= grid.east > at.east - at.step_x
        assert (at.chunk_y, at.chunk_x) == (min(grid.chunk_y, at.height), min(grid.chunk_x, at.width))
    with pytest.raises(DeclarationError, match=f"level {grid.levels} is not one of the {grid.levels} levels"):
        grid.level(grid.levels)
    with pytest.raises(DeclarationError, match="level -1 is not one of"):
        grid.level(-1)


@settings(deadline=None)
@given(grids(), st.floats(1e-5, 10))
def test_the_coarsest_level_that_a_pixel_may_read(grid: Grid, pixel: float) -> None:
    """By the definition: of the levels whose cell is no wider than the pixel the coarsest, level 0 if none is."""
    fitting = [n for n in range(grid.levels) if float(grid.step_x) * 2**n <= pixel * (1 + 1e-9)]
    assert grid.coarsest(pixel) == max(fitting, default=0)


@pytest.mark.parametrize(("zoom", "level"), [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0), (5, 0), (12, 0)])
def test_the_level_of_a_web_mercator_tile(zoom: int, level: int) -> None:
    # 0.05 degrees: at zoom 4 a pixel is 0.088 degrees, at zoom 3 0.176
    assert MONTHLY.coarsest(360 / 256 / 2**zoom) == level


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
def test_row_areas_are_those_of_the_sphere(grid: Grid) -> None:
    """Against 2 cos(middle) sin(half), which loses no digits near a pole."""
    areas = grid.row_areas
    assert areas.shape == (grid.height,)
    for row in {0, 1, grid.height // 2, grid.height - 2, grid.height - 1}:
        north = min(Fraction(90), grid.north - row * grid.step_y)
        south = max(Fraction(-90), grid.north - (row + 1) * grid.step_y)
        exact = 2 * math.cos(math.radians(float(north + south) / 2)) * math.sin(math.radians(float(north - south) / 2))
        assert areas[row] == pytest.approx(exact, rel=1e-6)
    top, bottom = (math.sin(math.radians(max(-90, min(90, float(edge))))) for edge in (grid.north, grid.south))
    assert math.fsum(areas) == pytest.approx(top - bottom, rel=1e-12)
    assert (areas > 0).all()


def test_the_whole_globe_has_the_area_of_the_sphere() -> None:
    for grid in (MONTHLY, NODES):
        assert math.fsum(grid.row_areas) * math.radians(float(grid.step_x)) * grid.width == pytest.approx(4 * math.pi)


def test_rows_of_a_node_grid_beyond_the_poles_have_half_a_cell() -> None:
    first, second = NODES.row_areas[0], NODES.row_areas[1]
    # cap of an eighth of a degree against the ring of a quarter around it: 1 - cos a and cos a - cos 3a
    a = math.radians(1 / 8)
    assert first == pytest.approx(1 - math.cos(a), rel=1e-9)
    assert second == pytest.approx(math.cos(a) - math.cos(3 * a), rel=1e-9)
    assert NODES.row_areas[-1] == pytest.approx(first)


@settings(deadline=None)
@given(grids(), st.data())
def test_a_centre_is_in_its_own_cell_on_any_turn(grid: Grid, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, grid.height - 1))
    column = data.draw(st.integers(0, grid.width - 1))
    turn = data.draw(st.sampled_from([-360, 0, 360]))
    latitude = max(-90.0, min(90.0, float(grid.latitudes[row])))
    assert grid.locate(float(grid.longitudes[column]) + turn, latitude) == (row, column)


@settings(deadline=None)
@given(grids(), st.floats(-180, 360), st.floats(-90, 90))
@example(MONTHLY, 180.0, -90.0)
@example(MONTHLY, -180.0, 90.0)
@example(NODES, 179.9, -90.0)
@example(PACIFIC, -165.0, 0.0)
@example(PACIFIC, 195.0, 0.0)
@example(MONTHLY, -180.00000000000003, 0.0)
def test_a_place_lies_in_the_cell_that_is_found_or_outside(grid: Grid, longitude: float, latitude: float) -> None:
    """By exact arithmetic: within a millionth of a cell the cell's edges hold the place, or no cell does."""
    slack_x, slack_y = grid.step_x / 10**6, grid.step_y / 10**6
    place_x, place_y = Fraction(longitude), Fraction(latitude)
    turns = [place_x + 360 * turn for turn in range(-3, 4)]
    try:
        row, column = grid.locate(longitude, latitude)
    except PositionOutside:
        inside_x = any(grid.west + slack_x < x < grid.east - slack_x for x in turns) or grid.is_global
        inside_y = grid.south + slack_y < place_y < grid.north - slack_y
        assert not (inside_x and inside_y)
        return
    assert 0 <= row < grid.height
    assert 0 <= column < grid.width
    left, top = grid.west + column * grid.step_x, grid.north - row * grid.step_y
    assert any(left - slack_x <= x <= left + grid.step_x + slack_x for x in turns)
    assert top + slack_y >= place_y >= top - grid.step_y - slack_y


def test_edges_seams_and_poles_belong_to_a_cell() -> None:
    assert MONTHLY.locate(-180, 90) == (0, 0)
    assert MONTHLY.locate(180, -90) == (3599, 0)  # 180 east is 180 west
    assert MONTHLY.locate(359.99, 0) == MONTHLY.locate(-0.01, 0)
    assert MONTHLY.locate(math.nextafter(-180, -181), 0)[1] == 7199
    assert NODES.locate(-180, 90) == (0, 0)
    assert NODES.locate(180, -90) == (720, 0)
    assert NODES.locate(179.9, 0) == (360, 0)  # nearer to the node at 180 than to 179.75
    assert PACIFIC.locate(-179.9, 5) == (20, 40)
    assert PACIFIC.locate(180.1, 5) == (20, 40)
    assert PACIFIC.locate(-165, 0) == (39, 99)  # its eastern and southern edges
    assert CHINA.locate(72.25, 55) == (0, 0)
    assert CHINA.locate(136.25, 15) == (399, 639)


@pytest.mark.parametrize(
    ("grid", "longitude", "latitude"),
    [
        (CHINA, 72.2, 30),
        (CHINA, 136.3, 30),
        (CHINA, 100, 55.1),
        (CHINA, 100, 14.9),
        (PACIFIC, 169.9, 5),
        (PACIFIC, -164.9, 5),
        (FINE, 0, -60.1),
        (MONTHLY, 0, 90.01),
        (NODES, 0, 90.05),  # its first row reaches there, the earth does not
        (MONTHLY, math.nan, 0),
        (MONTHLY, 0, math.nan),
        (MONTHLY, math.inf, 0),
        (MONTHLY, 0, -math.inf),
    ],
)
def test_places_outside_are_refused(grid: Grid, longitude: float, latitude: float) -> None:
    with pytest.raises(PositionOutside, match=r"lies outside the grid|is no place"):
        grid.locate(longitude, latitude)


@settings(deadline=None)
@given(grids(), st.data())
def test_locate_agrees_with_rasterio(grid: Grid, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, grid.height - 1))
    column = data.draw(st.integers(0, grid.width - 1))
    dx, dy = data.draw(st.floats(0.01, 0.99)), data.draw(st.floats(0.01, 0.99))
    x = float(grid.west) + (column + dx) * float(grid.step_x)
    y = float(grid.north) - (row + dy) * float(grid.step_y)
    if -90 <= y <= 90:
        rows, columns = rowcol(Affine(*grid.transform), x, y)
        assert grid.locate(x, y) == (int(rows), int(columns))


def test_bounds_are_cut_at_the_poles_and_the_antimeridian_is_passed() -> None:
    assert NODES.bounds == (-180.0, -90.0, 180.0, 90.0)
    assert PACIFIC.bounds == (170.0, 0.0, 195.0, 10.0)
    assert FINE.bounds == (-180.0, -60.0, 180.0, 90.0)
    assert MONTHLY.geobox.shape == (3600, 7200)
    assert tuple(MONTHLY.geobox.transform)[:6] == MONTHLY.transform == (0.05, 0.0, -180.0, 0.0, -0.05, 90.0)
    assert str(MONTHLY.geobox.crs) == "EPSG:4326"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "needs at least one cell, not 0 x 400"),
        ({"height": -1}, "needs at least one cell"),
        ({"step_x": Fraction(0)}, "must have a size"),
        ({"step_y": Fraction(-1, 10)}, "must have a size"),
        ({"chunk_x": 641}, "a chunk of 641 x 400 does not lie in a grid of 640 x 400"),
        ({"chunk_y": 0}, "does not lie in a grid"),
        ({"width": 3601, "chunk_x": 10}, "3601 columns of 1/10 degrees pass a whole turn of 360 degrees: is a seam"),
        ({"west": Fraction(180)}, r"must lie in -180..180 degrees, not at 180.0"),
        ({"west": Fraction(-181)}, "must lie in -180..180 degrees"),
        ({"north": Fraction(91)}, r"latitudes 51.0..91.0 pass the poles by more than half a cell"),
        ({"north": Fraction(-51)}, "pass the poles by more than half a cell"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_its_numbers(changes: dict[str, object], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(CHINA, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)])
def test_an_empty_window_is_refused(numbers: tuple[int, int, int, int]) -> None:
    row, column, height, width = numbers
    with pytest.raises(DeclarationError, match="a window needs row, column >= 0 and height, width >= 1"):
        Window(row=row, column=column, height=height, width=width)


def test_a_subgrid_holds_the_same_cells() -> None:
    window = Window(row=100, column=300, height=50, width=70)
    part = CHINA.subgrid(window)
    np.testing.assert_array_equal(part.longitudes, CHINA.longitudes[window.columns])
    np.testing.assert_array_equal(part.latitudes, CHINA.latitudes[window.rows])
    over = PACIFIC.subgrid(Window(row=0, column=60, height=10, width=40))
    assert over.west == -175
    np.testing.assert_allclose(over.longitudes, PACIFIC.longitudes[60:] - 360)
    with pytest.raises(DeclarationError, match="passes a grid of 640 x 400 cells"):
        CHINA.subgrid(Window(row=0, column=600, height=1, width=41))


def test_a_grid_is_a_small_value() -> None:
    same = Grid.of(west=-180, north=90, step_x=Fraction(1, 120), width=43200, height=18000)
    assert same == FINE
    assert hash(same) == hash(FINE)
    assert pickle.loads(pickle.dumps(FINE)) == FINE  # noqa: S301 - our own bytes
    fresh = replace(FINE)
    assert len(pickle.dumps(fresh)) < 1000
