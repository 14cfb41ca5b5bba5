"""Fields on other cells: against GDAL's warper away from edges, closed forms, and bit by bit between windows."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject

from services.core.grid import Grid, Window
from services.sources import resample
from services.sources.resample import resampled, resampled_layers

FINE = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=18000)
COARSE = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=600)


def of(values: NDArray[Any]) -> Callable[[Window], NDArray[Any]]:
    return lambda window: values[window.rows, window.columns]


def whole(grid: Grid) -> Window:
    return Window(row=0, column=0, height=grid.height, width=grid.width)


def made(source: Grid, target: Grid, values: NDArray[Any], window: Window | None = None) -> NDArray[np.float32]:
    return resampled(source, target, window or whole(target), of(values))


def warped(source: Grid, target: Grid, values: NDArray[Any], how: Resampling) -> NDArray[Any]:
    out = np.full(target.shape, np.nan)
    reproject(
        values.astype(np.float64),
        out,
        src_transform=Affine(*source.transform),
        dst_transform=Affine(*target.transform),
        src_crs="EPSG:4326",
        dst_crs="EPSG:4326",
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=how,
        tolerance=0,
    )
    return out


def noise(grid: Grid, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=grid.shape)


@pytest.mark.parametrize("step", ["1/10", "3/40", "1/24"])
def test_wider_cells_are_interpolated_as_gdal_does(step: str) -> None:
    source = Grid.of(west=10, north=50, step_x=step, width=40, height=30)
    target = Grid.of(west=11, north=49, step_x="1/120", width=120, height=110)
    values = noise(source)
    # GDAL computes its weights in other roundings
    np.testing.assert_allclose(
        made(source, target, values), warped(source, target, values, Resampling.bilinear), atol=3e-5
    )


@pytest.mark.parametrize("step", ["1/120", "1/48", "1/37"])
def test_narrower_cells_are_averaged_as_gdal_does_near_the_equator(step: str) -> None:
    # GDAL weighs by shared length in degrees; at the equator that is the shared area
    source = Grid.of(west=10, north=1, step_x=step, width=240, height=120)
    target = Grid.of(west="43/4", north="3/4", step_x="1/4", width=3, height=1)
    values = noise(source)
    np.testing.assert_allclose(
        made(source, target, values), warped(source, target, values, Resampling.average), atol=1e-4
    )


def test_a_mean_is_weighted_by_area() -> None:
    source = Grid.of(west=0, north=80, step_x="1/120", width=60, height=60)
    target = Grid.of(west=0, north=80, step_x="1/4", width=2, height=2)
    values = np.sin(np.radians(np.linspace(80, 79.5, 60)))[:, None] + np.zeros(60)
    area = source.row_areas
    expected = [np.average(values[rows, 0], weights=area[rows]) for rows in (slice(0, 30), slice(30, 60))]
    plain = [values[rows, 0].mean() for rows in (slice(0, 30), slice(30, 60))]
    found = made(source, target, values - 0.98)
    np.testing.assert_allclose(found[:, 0], np.array(expected) - 0.98, rtol=2e-7)
    assert np.abs(found[:, 0] - (np.array(plain) - 0.98)).max() > 1e-6


@pytest.mark.parametrize("step", ["1/7", "1/50", "1/120", "2/121"])
def test_a_mean_conserves_the_integral(step: str) -> None:
    height = int(Fraction(10) / Fraction(step))
    source = Grid.of(west=20, north=70, step_x=step, width=height, height=height)
    target = Grid.of(west=20, north=70, step_x="1/2", width=20, height=20)
    values = noise(source, 3)
    found = made(source, target, values).astype(np.float64)
    # the same land of both: where the last cell of the source ends short of the target's, weigh by what is covered
    ends = float(source.south) - float(target.south)
    if ends == 0:
        total = float((values * source.row_areas[:, None]).sum() * float(source.step_x))
        again = float((found * target.row_areas[:, None]).sum() * float(target.step_x))
        assert again == pytest.approx(total, rel=2e-6, abs=1e-6)
    constant = made(source, target, np.full(source.shape, 7.25))
    np.testing.assert_array_equal(constant[~np.isnan(constant)], np.float32(7.25))


def test_a_plane_is_interpolated_exactly() -> None:
    source = Grid.of(west=-30, north=20, step_x="1/4", width=40, height=40)
    target = Grid.of(west=-29, north=19, step_x="1/120", width=300, height=300)
    plane = source.longitudes + 2.0 * source.latitudes[:, None]
    expected = target.longitudes + 2.0 * target.latitudes[:, None]
    np.testing.assert_allclose(made(source, target, plane), expected, atol=5e-6)


def test_the_same_cells_are_copied() -> None:
    source = Grid.of(west=70, north=30, step_x="1/120", width=100, height=80)
    values = noise(source).astype(np.float32)
    values[3, 4] = np.nan
    values[7, 8] = -0.0
    window = Window(row=7190, column=29990, height=60, width=60)  # begins beyond the raster
    found = resampled(source, FINE, window, of(values))
    expected = np.full(window.shape, np.nan, dtype=np.float32)
    expected[10:, 10:] = values[:50, :50]
    assert found.tobytes() == expected.tobytes()


def test_missing_values_are_left_out_of_interpolation() -> None:
    source = Grid.of(west=0, north=2, step_x="1", width=2, height=2)
    target = Grid.of(west=0, north=2, step_x="1/4", width=8, height=8)
    values = np.array([[1.0, np.nan], [3.0, 5.0]])
    found = made(source, target, values)
    missing = np.zeros((8, 8), dtype=bool)
    missing[:4, 4:] = True  # the cell that has none holds these centres, and no other is
    np.testing.assert_array_equal(np.isnan(found), missing)
    # at x = 0.875, y = 1.125 (from the south): weights of the four centres without the missing one
    east, south = 0.375, 0.375
    weights = {1.0: (1 - east) * (1 - south), 3.0: (1 - east) * south, 5.0: east * south}
    expected = sum(value * weight for value, weight in weights.items()) / sum(weights.values())
    assert found[3, 3] == pytest.approx(expected, rel=1e-6)


def test_missing_values_are_left_out_of_a_mean() -> None:
    source = Grid.of(west=0, north="1/4", step_x="1/120", width=60, height=30)
    target = Grid.of(west=0, north="1/4", step_x="1/4", width=2, height=1)
    values = noise(source)
    values[np.random.default_rng(1).random(values.shape) < 0.7] = np.nan
    values[:, 30:] = np.nan
    values[29, 59] = 4.5
    found = made(source, target, values)
    part, area = values[:, :30], np.broadcast_to(source.row_areas[:, None], (30, 30))
    there = ~np.isnan(part)
    assert found[0, 0] == pytest.approx(np.average(part[there], weights=area[there]), rel=1e-6)
    assert found[0, 1] == np.float32(4.5)
    assert np.isnan(made(source, target, np.full(source.shape, np.nan))).all()


def test_a_global_raster_has_no_edge_at_the_antimeridian() -> None:
    source = Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
    values = noise(source)
    turned = Grid.of(west=0, north=90, step_x="1", width=360, height=180)
    rolled = np.roll(values, 180, axis=1)
    for target in (FINE, Grid.of(west=-180, north=90, step_x="7/2", width=102, height=51)):
        for column in (0, target.width - 40):
            window = Window(row=20, column=column, height=9, width=40)
            one = resampled(source, target, window, of(values))
            other = resampled(turned, target, window, of(rolled))
            assert not np.isnan(one).any()
            assert one.tobytes() == other.tobytes()
    west = resampled(source, FINE, Window(row=9000, column=0, height=1, width=1), of(values))[0, 0]
    row = source.height // 2 - 15  # latitude 14.99..: rows 74 and 75 around it
    assert row == 75
    mix = values[74:76][:, [-1, 0]]
    behind = (0.5 + 1 / 240, 0.5 + 1 / 240)
    expected = (1 - behind[0]) * ((1 - behind[1]) * mix[0, 0] + behind[1] * mix[0, 1])
    expected += behind[0] * ((1 - behind[1]) * mix[1, 0] + behind[1] * mix[1, 1])
    assert west == pytest.approx(expected, rel=1e-6)


def test_a_raster_across_the_antimeridian() -> None:
    source = Grid.of(west=170, north=10, step_x="1/2", width=40, height=20)
    values = np.broadcast_to(source.longitudes, source.shape)
    target = Grid.of(west=-180, north=5, step_x="1/4", width=1440, height=8)
    found = made(source, target, values)[0]
    longitudes = np.where(target.longitudes < 0, target.longitudes + 360, target.longitudes)
    inside = (longitudes > 170) & (longitudes < 190)
    np.testing.assert_array_equal(~np.isnan(found), inside)
    well_inside = (longitudes > 170.5) & (longitudes < 189.5)
    np.testing.assert_allclose(found[well_inside], longitudes[well_inside], rtol=1e-6)


def test_a_mean_at_the_western_edge_of_a_raster() -> None:
    source = Grid.of(west="1/8", north=1, step_x="1/16", width=4, height=16)
    target = Grid.of(west=0, north=1, step_x="1/4", width=3, height=1)
    values = np.broadcast_to(np.arange(4.0), source.shape)
    np.testing.assert_allclose(made(source, target, values)[0], [0.5, 2.5, np.nan], rtol=1e-6)


def test_a_mean_at_the_western_edge_where_cells_do_not_divide_a_turn() -> None:
    source = Grid.of(west="1/8", north=1, step_x="7/100", width=4, height=16)
    target = Grid.of(west=0, north=1, step_x="1/4", width=3, height=1)
    values = np.broadcast_to(np.arange(4.0), source.shape)
    # 0.125..0.25 holds the first cell and 11/14 of the second
    expected = (0.07 * 0 + 0.055 * 1) / 0.125, (0.015 * 1 + 0.07 * 2 + 0.07 * 3) / 0.155
    np.testing.assert_allclose(made(source, target, values)[0], [*expected, np.nan], rtol=1e-6)


def test_one_axis_wider_and_the_other_narrower() -> None:
    source = Grid.of(west=0, north=4, step_x="1", step_y="1/8", width=4, height=32)
    target = Grid.of(west=0, north=4, step_x="1/4", width=16, height=16)
    values = source.longitudes + np.zeros(source.shape)
    np.testing.assert_allclose(made(source, target, values)[:, 2:-2], target.longitudes[2:-2] + np.zeros((16, 12)))


GRIDS = (
    Grid.of(west=-180, north=90, step_x="1", width=360, height=180),
    Grid.of(west="-361/2", north="181/2", step_x="1", width=360, height=181),
    Grid.of(west=-180, north=90, step_x="1/12", width=4320, height=2160),
    Grid.of(west="349/2", north="61/7", step_x="3/35", width=200, height=150),
    Grid.of(west=-180, north=60, step_x="360/1439", step_y="90/719", width=1439, height=1000),
    COARSE,
)


@settings(max_examples=60, deadline=None)
@given(
    source=st.sampled_from(GRIDS),
    target=st.sampled_from([FINE, COARSE, Grid.of(west=-178, north=80, step_x="11/7", width=200, height=90)]),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    cut=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    most=st.sampled_from([1, 500, 2**22]),
)
def test_a_cell_is_the_same_in_every_window(
    source: Grid, target: Grid, place: tuple[float, float], cut: tuple[int, int], most: int
) -> None:
    values = noise(source, 5)
    values[np.random.default_rng(6).random(values.shape) < 0.3] = np.nan
    height, width = min(21, target.height), min(21, target.width)
    row, column = int(place[0] * (target.height - height)), int(place[1] * (target.width - width))
    around = Window(row=row, column=column, height=height, width=width)
    large = resampled(source, target, around, of(values))
    part = Window(row=row + cut[0], column=column + cut[1], height=height - cut[0], width=width - cut[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "MOST_CELLS", most)
        small = resampled(source, target, part, of(values))
    assert small.tobytes() == large[cut[0] :, cut[1] :].tobytes()


@pytest.mark.parametrize(("source", "target"), [("1/4", "1/20"), ("1/20", "1/4"), ("1/5", "1/4"), ("1/4", "1/4")])
def test_layers_read_together_are_what_each_is_alone(source: str, target: str) -> None:
    coarse = Grid.of(west=10, north=50, step_x=source, width=60, height=40)
    fine = Grid.of(west=9, north=50, step_x=target, width=70, height=30)  # a part lies outside
    layers = np.stack([noise(coarse, seed) for seed in range(4)])
    layers[1, 5:30, 7:20] = np.nan
    layers[2] = np.nan
    window = Window(row=2, column=3, height=25, width=60)
    together = resampled_layers(coarse, fine, window, 4, lambda part: layers[:, part.rows, part.columns])
    alone = [made(coarse, fine, one, window) for one in layers]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert np.isfinite(together[0]).any()
    assert np.isnan(together[1]).sum() > np.isnan(together[0]).sum()


def test_memory_goes_with_the_window() -> None:
    source = Grid.of(west=-180, north=90, step_x="1/120", width=43200, height=21600)
    asked: list[int] = []

    def read(window: Window) -> NDArray[Any]:
        asked.append(window.height * window.width)
        return np.ones(window.shape, dtype=np.float32)

    found = resampled(source, COARSE, Window(row=100, column=200, height=40, width=300), read)
    assert (found == 1).all()
    assert max(asked) <= resample.MOST_CELLS
    assert sum(asked) == 40 * 300 * 900
