"""Medians of bands against numpy's, and lines between them."""

import numpy as np
import pytest

from services.core.errors import InputRefused
from services.core.grid import Grid
from services.validation.zonal import band_name, band_of_rows, interpolated, weighted_median

GRID = Grid.of(west=-180, north=90, step_x="1/2", width=720, height=360)


def test_equal_weights_give_numpys_median_and_whole_weights_that_of_repeated_values() -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 10, 999, 1000):
        values = rng.normal(size=size)
        assert weighted_median(values, np.full(size, 0.1)) == pytest.approx(np.median(values), abs=1e-15)
        counts = rng.integers(1, 6, size)
        repeated = np.median(np.repeat(values, counts))
        assert weighted_median(values, counts.astype(float)) == pytest.approx(repeated, abs=1e-15)
    holed = np.array([np.nan, 3.0, 1.0, np.nan, 2.0])
    assert weighted_median(holed, np.ones(5)) == 2.0
    assert np.isnan(weighted_median(np.full(3, np.nan), np.ones(3)))


def test_rows_fall_into_bands_from_north_to_south() -> None:
    bands = band_of_rows(GRID)
    np.testing.assert_array_equal(np.bincount(bands), np.full(18, 20))
    assert [band_name(one) for one in (0, 8, 9, 17)] == ["90N..80N", "10N..0", "0..10S", "80S..90S"]
    with pytest.raises(InputRefused, match="bands of 7 degrees do not fill the 180"):
        band_of_rows(GRID, 7)


def test_the_line_meets_the_medians_at_the_middles_and_has_no_step() -> None:
    medians = np.random.default_rng(2).normal(400, 3, 18)
    middles = 85 - 10 * np.arange(18)
    np.testing.assert_allclose(interpolated(medians, middles.astype(float)), medians, rtol=1e-14)
    line = interpolated(medians, GRID.latitudes)
    assert np.abs(np.diff(line)).max() <= np.abs(np.diff(medians)).max() / 20 + 1e-12
    assert line[0] == medians[0]
    medians[3] = np.nan  # bridged
    assert interpolated(medians, np.array([55.0]))[0] == pytest.approx((medians[2] + medians[4]) / 2)
    assert np.isnan(interpolated(np.full(18, np.nan), GRID.latitudes)).all()
