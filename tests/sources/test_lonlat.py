"""Grids from coordinates: exact fractions, any turn of longitudes, any order of rows, cells and nodes."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import InputRefused
from services.core.grid import CIRCLE, Grid, Window
from services.sources.lonlat import HALF_TURN, Axis, Layout, exact_axis, placed, simplest


def axis_of(values: np.ndarray, whole: Fraction = CIRCLE, precision: float | None = None) -> Axis:
    return exact_axis("file.nc", "longitude" if whole == CIRCLE else "latitude", values, precision, whole)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.fractions(-50, 50, max_denominator=10_000), st.fractions(0, 1, max_denominator=10_000))
def test_simplest_is_the_smallest_denominator(low: Fraction, width: Fraction) -> None:
    high = low + width
    found = simplest(low, high)
    assert low <= found <= high
    for denominator in range(1, found.denominator):
        assert -(-low * denominator // 1) > high * denominator  # no numerator fits


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("step", "count", "first"),
    [
        ("1/120", 43200, "-43199/240"),
        ("1/120", 2400, "17351/240"),  # cut out of the globe at 72.29 E
        ("1/4", 1440, "0"),
        ("1/20", 7200, "-7199/40"),
        ("5/6", 432, "0"),
        ("1/10", 640, "723/10"),
        ("360/14399", 14400, "-180"),
        ("1/12", 4320, "1/24"),
        ("45/16", 128, "0"),
        ("1/3", 30, "10"),
        ("7/100", 55, "12345/1000"),
    ],
)
def test_fractions_are_found_again(step: str, count: int, first: str, dtype: str) -> None:
    expected = Axis(first=Fraction(first), step=Fraction(step), count=count)
    values = np.asarray([float(expected.first + number * expected.step) for number in range(count)]).astype(dtype)
    assert axis_of(values) == expected


@pytest.mark.parametrize("digits", [4, 6, 8, 10])
def test_rounded_coordinates_mean_the_fraction(digits: int) -> None:
    values = np.round(-180 + (np.arange(43200) + 0.5) / 120, digits)
    assert axis_of(values) == Axis(first=Fraction(-43199, 240), step=Fraction(1, 120), count=43200)


def test_accumulated_steps_mean_the_fraction() -> None:
    values = np.cumsum(np.full(1440, 0.25, dtype=np.float32)).astype(np.float32) * np.float32(1.0000001)
    assert axis_of(values).step == Fraction(1, 4)


def test_a_drift_of_a_shortened_step_is_not_hidden() -> None:
    # 0.008333 is not 1/120: the last column would lie 1.7 cells off
    assert axis_of(-180 + 0.008333 * (np.arange(43200) + 0.5)).step == Fraction(8333, 1_000_000)


def test_uneven_axis_is_refused_by_more_than_a_hundredth_of_a_cell() -> None:
    values = np.arange(100) * 0.5
    values[40] += 0.0049
    assert axis_of(values).step == Fraction(1, 2)
    values[40] += 0.0003
    with pytest.raises(InputRefused, match=r"file.nc: its longitudes are uneven: number 41 is 20.0052 .*1 % of a cell"):
        axis_of(values)


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ([5.0], "one longitude alone"),
        ([1.0, 1.0, 1.0], "do not rise or fall"),
        ([1.0, float("nan"), 2.0], "a longitude is missing"),
        ([1000.0, 2000.0], "which are no degrees"),
    ],
)
def test_impossible_axes_are_refused(values: list[float], fact: str) -> None:
    with pytest.raises(InputRefused, match=rf"file.nc.*{fact}"):
        axis_of(np.asarray(values))


def test_gaussian_latitudes_are_uneven() -> None:
    nodes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(64)[0]))
    with pytest.raises(InputRefused, match="latitudes are uneven"):
        axis_of(nodes, HALF_TURN)


def test_columns_past_a_turn_are_refused() -> None:
    rows = axis_of(np.arange(10) * 1.0, HALF_TURN)
    with pytest.raises(InputRefused, match=r"file.nc: 365 columns of 1 degrees pass a whole turn"):
        placed("file.nc", axis_of(np.arange(365) * 1.0), rows)


def test_rows_past_a_pole_are_refused() -> None:
    columns = axis_of(np.arange(10) * 1.0)
    with pytest.raises(InputRefused, match=r"file.nc: latitudes .* pass the poles"):
        placed("file.nc", columns, axis_of(np.arange(100) * 1.0, HALF_TURN))


@st.composite
def sources(draw: st.DrawFn) -> tuple[Grid, np.ndarray, np.ndarray]:
    """A grid and the coordinates by which a source may give it."""
    divisor = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20]))
    turn = draw(st.booleans())
    step = Fraction(draw(st.sampled_from([10, 12, 15, 20, 30, 36, 40])), divisor) if turn else Fraction(1, divisor)
    width = int(CIRCLE / step) if turn else draw(st.integers(2, 40))
    node = draw(st.booleans())
    if turn:
        west = -180 - step / 2 if node else Fraction(-180)
    else:
        west = draw(st.integers(-180, 179)) * Fraction(1) + (step / 2 if node else 0)
    rows = draw(st.integers(2, max(2, min(30, int(160 / step)))))
    north = Fraction(draw(st.integers(-80 + int(rows * step), 85)))
    grid = Grid.of(west=west, north=north, step_x=step, width=width, height=rows)
    longitudes = [west + step / 2 + number * step for number in range(width)]
    if draw(st.booleans()):  # 0..360
        longitudes = [value % 360 for value in longitudes]
        if turn:
            longitudes.sort()
    if turn and draw(st.booleans()):  # the seam stored twice
        longitudes.append(longitudes[0] + 360)
    latitudes = [north - step / 2 - number * step for number in range(rows)]
    if draw(st.booleans()):
        latitudes.reverse()
    if draw(st.booleans()):
        longitudes.reverse()
    dtype = draw(st.sampled_from(["float64", "float32"]))
    return grid, np.asarray([float(v) for v in longitudes], dtype), np.asarray([float(v) for v in latitudes], dtype)


@settings(deadline=None)  # a loaded machine is no failure
@given(sources(), st.data())
def test_any_convention_gives_the_same_grid_and_each_cell_its_own_value(
    source: tuple[Grid, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    grid, longitudes, latitudes = source
    found, layout = placed("file.nc", axis_of(longitudes), axis_of(latitudes, HALF_TURN))
    assert found == grid
    # each value of the source is its own coordinates
    values = np.stack([(a.ravel()) for a in np.meshgrid(longitudes % 360, latitudes)], axis=-1)
    values = values.reshape(1, latitudes.size, longitudes.size, 2)
    row = data.draw(st.integers(0, grid.height - 1))
    column = data.draw(st.integers(0, grid.width - 1))
    window = Window(
        row=row,
        column=column,
        height=data.draw(st.integers(1, grid.height - row)),
        width=data.draw(st.integers(1, grid.width - column)),
    )
    out = np.full((1, *window.shape, 2), np.nan)
    for columns, target in layout.source_columns(window):
        out[:, :, target] = layout.upright(values[:, layout.source_rows(window), columns])
    east = (out[0, ..., 0] - grid.longitudes[window.columns] + 180) % 360 - 180
    assert np.abs(east).max() < 1e-4
    assert np.abs(out[0, ..., 1] - grid.latitudes[window.rows, np.newaxis]).max() < 1e-4


@settings(deadline=None)  # a loaded machine is no failure
@given(sources())
def test_the_two_seam_columns_lie_at_one_place(source: tuple[Grid, np.ndarray, np.ndarray]) -> None:
    grid, longitudes, latitudes = source
    _, layout = placed("file.nc", axis_of(longitudes), axis_of(latitudes, HALF_TURN))
    whole = Window(row=0, column=0, height=grid.height, width=grid.width)
    assert layout.seam == (longitudes.size == grid.width + 1)
    if not layout.seam:
        assert layout.seam_pair(whole) is None
        return
    assert layout.seam_pair(whole) == (0, longitudes.size - 1)
    touched = [layout.seam_pair(Window(row=0, column=at, height=1, width=1)) is not None for at in range(grid.width)]
    used = _column_of(layout, 0 if not layout.east_first else layout.columns - 1)
    assert [at for at, is_touched in enumerate(touched) if is_touched] == [used]


def _column_of(layout: Layout, source_column: int) -> int:
    for at in range(layout.width):
        (columns, _) = next(iter(layout.source_columns(Window(row=0, column=at, height=1, width=1))))
        if columns.start == source_column:
            return at
    pytest.fail(f"no column of the grid is read from column {source_column}")
