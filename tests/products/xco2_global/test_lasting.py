"""What lasts at a place: planted plumes come back, chance does not."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.grid import Grid
from services.products.xco2_global.declaration import global_grid
from services.products.xco2_global.lasting import (
    AROUND,
    LASTING,
    LEAST_CELLS,
    MONTHLY,
    PATCH,
    REACH,
    WIDTHS,
    Sums,
    _Shape,
    lasting,
)

LATTICE = global_grid(Fraction(1))
PLUMES = ((10.5, 20.5, 2.0), (-179.5, 40.5, 1.5), (100.5, -30.5, -1.8), (60.5, 62.5, 1.2))
"""Longitude, latitude, ppm."""

NOISE = 0.8
"""Of a cell and month, ppm."""

WIDTH = 1.0
"""Degrees."""

type Values = NDArray[np.float64]


def planted(lattice: Grid) -> Values:
    """Gaussian plumes, and a slope of degrees that nobody may take for one."""
    y, x = lattice.latitudes[:, None], lattice.longitudes
    field = 0.4 * np.sin(np.radians(3 * x)) * np.cos(np.radians(y))
    for longitude, latitude, height in PLUMES:
        east = ((x - longitude + 180) % 360 - 180) * np.cos(np.radians(latitude))
        field = field + height * np.exp(-(east**2 + (y - latitude) ** 2) / (2 * WIDTH**2))
    return np.asarray(field)


def gathered(field: Values, months: int, seed: int, *, share: float = 0.4) -> Sums:
    """Months in which a share of the cells is seen, with noise."""
    generator = np.random.default_rng(seed)
    latitude, longitude = np.meshgrid(LATTICE.latitudes, LATTICE.longitudes, indexing="ij")
    sums = Sums.nothing(LATTICE)
    for _ in range(months):
        seen = generator.random(LATTICE.shape) < share
        value = (field + NOISE * generator.standard_normal(LATTICE.shape))[seen]
        value[::50] = np.nan
        # stated too large by half: what months vary by tells
        variance = np.full(value.shape, (1.5 * NOISE) ** 2)
        sums.add(LATTICE, latitude[seen], longitude[seen], value, variance)
    return sums


def cell(longitude: float, latitude: float) -> tuple[int, int]:
    return LATTICE.locate(longitude, latitude)


def test_sums_are_weighted_means_of_months() -> None:
    sums = Sums.nothing(LATTICE)
    latitude, longitude = np.array([20.2, 20.9, -89.9]), np.array([10.1, 10.8, 179.9])
    values = np.arange(6.0)
    for number in values:
        # two cells of one month are one, whose weight is the mean of theirs
        sums.add(LATTICE, latitude, longitude, np.array([number, number + 1, 5.0]), np.array([1.0, 1.0, 0.5 + number]))
    at = cell(10.5, 20.5)
    assert sums.months[at] == 6
    assert sums.mean[at] == pytest.approx(values.mean() + 0.5)
    assert sums.mean[cell(179.5, -89.5)] == pytest.approx(5.0)
    assert np.isnan(sums.mean).sum() == LATTICE.height * LATTICE.width - 2
    # about the mean of one place nothing varies, of the other by what numpy says
    factor = 6 * values.var() / (2 * 5)
    assert sums.variance[at] == pytest.approx(factor / 6)


def test_what_was_seen_once_is_known_as_well_as_a_month_is() -> None:
    """A plume must then be larger than what a month varies by."""
    field = planted(LATTICE)
    once = gathered(field, 1, 1, share=1.0)
    assert once.months.max() == 1
    assert np.nanmax(once.variance) == pytest.approx((1.5 * NOISE) ** 2), "nothing tells how months vary"
    assert not lasting(once, LATTICE).any()
    sums = gathered(field, 84, 2)
    rare = cell(10.5, 20.5)
    months = sums.months[rare]
    for array in (sums.weight, sums.one, sums.square):
        array[rare] *= 2 / months
    sums.months[rare] = 2
    assert sums.variance[rare] == pytest.approx(np.median(sums.variance[sums.months > 20]) * months / 2, rel=0.5)
    assert 1.0 < lasting(sums, LATTICE)[rare] < 2.8


def test_plumes_come_back_and_slopes_do_not() -> None:
    field = planted(LATTICE)
    sums = gathered(field, 84, 2)
    variance = np.nanmedian(sums.variance)
    assert variance == pytest.approx(NOISE**2 / (0.4 * 0.98 * 84), rel=0.15), "what is stated is too large by half"
    found = lasting(sums, LATTICE)
    assert found.dtype == np.float32
    for longitude, latitude, height in PLUMES:
        at = cell(longitude, latitude)
        assert found[at] == pytest.approx(height, abs=0.35 * abs(height)), (longitude, latitude)
    assert (found != 0).mean() < 0.02
    away = planted(LATTICE) - 0.4 * np.sin(np.radians(3 * LATTICE.longitudes)) * np.cos(
        np.radians(LATTICE.latitudes[:, None])
    )
    quiet = np.abs(away) < 0.02
    assert np.abs(found[quiet]).max() < 0.6
    assert np.sqrt(np.mean(found[quiet] ** 2)) < 0.02
    left = np.sqrt(np.mean((found - away)[~quiet] ** 2))
    assert left < 0.45 * np.sqrt(np.mean(away[~quiet] ** 2))


def test_a_plume_comes_to_cells_that_are_never_seen() -> None:
    """The peak's own cell is blind; what stands beside it tells."""
    field = planted(LATTICE)
    sums = gathered(field, 84, 3)
    blind = cell(10.5, 20.5)
    for array in (sums.weight, sums.one, sums.square, sums.months):
        array[blind] = 0
    found = lasting(sums, LATTICE)
    assert 0.8 < found[blind] < 2.2


def of_means(mean: Values, variance: Values, months: int = 84) -> Sums:
    """Sums with these means, of cells seen in so many months that vary as they are said to; NaN was never seen."""
    seen = ~np.isnan(mean)
    weight = np.where(seen, 1 / variance, 0.0)
    one = weight * np.nan_to_num(mean)
    # a month's own variance makes `variance` come out as it went in
    square = weight * np.nan_to_num(mean) ** 2 + seen * (months - 1.0)
    return Sums(weight=weight, one=one, square=square, months=seen * months)


@pytest.mark.parametrize(("step", "latitude"), [(Fraction(1), 20.5), (Fraction(1, 2), 0.25), (Fraction(1, 2), 60.25)])
def test_a_height_and_its_error_are_those_of_least_squares(step: Fraction, latitude: float) -> None:
    """One plume, unlike errors, cells that are never seen: numpy fits height and ground to all cells at once."""
    lattice = global_grid(step)
    generator = np.random.default_rng(5)
    row, column = lattice.locate(10.3, latitude)
    width = max(WIDTHS[0], LEAST_CELLS * float(step))
    up = lattice.latitudes - lattice.latitudes[row]
    right = (lattice.longitudes - lattice.longitudes[column]) * np.cos(np.radians(lattice.latitudes[row]))
    far = np.hypot(up[:, None], right)
    shape = np.exp(-(far**2) / (2 * width**2))
    mean = 0.7 + 1.5 * shape + 0.05 * generator.standard_normal(lattice.shape)
    mean[generator.random(lattice.shape) < 0.3] = np.nan
    mean[row, column] = 2.2
    variance = generator.uniform(0.005, 0.02, lattice.shape)
    sums = of_means(mean, variance)
    seen = ~np.isnan(mean)
    np.testing.assert_allclose(sums.variance[seen], variance[seen])
    weight = np.where(seen, 1 / (variance + LASTING**2), 0.0)
    near = np.exp(-(far**2) / (2 * (AROUND * width) ** 2))
    root = np.sqrt((weight * near)[seen])
    design = np.stack([shape[seen], np.ones(seen.sum())], axis=1) * root[:, None]
    (height, ground), *_ = np.linalg.lstsq(design, mean[seen] * root)
    assert (height, ground) == pytest.approx((1.5, 0.7), abs=0.1)
    fitted = _Shape.of(sums, lattice, weight, width)
    assert fitted.heights(np.nan_to_num(mean))[row, column] == pytest.approx(height, rel=1e-3)
    # the ground's share is taken out of what tells of the height; months have in common what is twice as wide
    wide = np.exp(-(far**2) / (2 * (PATCH * width) ** 2))
    (taken, _), *_ = np.linalg.lstsq(design, wide[seen] * root)
    alone = np.linalg.inv(design.T @ design)[0, 0]
    expected = np.sqrt(alone + (MONTHLY * taken) ** 2 / 84)
    assert fitted.error[row, column] == pytest.approx(expected, rel=1e-3)
    if len({max(one, LEAST_CELLS * float(step)) for one in WIDTHS}) == 1:
        found = lasting(sums, lattice)
        np.testing.assert_allclose(found, np.where(far < REACH * width, height * shape, 0), atol=0.021)


def test_plumes_beside_each_other_are_both_told() -> None:
    """The second when the first is off."""
    lattice = global_grid(Fraction(1, 2))
    y, x = lattice.latitudes[:, None], lattice.longitudes
    mean = sum(
        height * np.exp(-((x - longitude) ** 2 + (y - 0.25) ** 2) / (2 * WIDTHS[0] ** 2))
        for longitude, height in ((10.25, 2.0), (13.25, 1.2))
    )
    found = lasting(of_means(np.asarray(mean), np.full(lattice.shape, 0.02)), lattice)
    assert found[lattice.locate(10.25, 0.25)] == pytest.approx(2.0, abs=0.1)
    assert found[lattice.locate(13.25, 0.25)] == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("wide", [0.45, 0.7, 1.0, 1.5])
def test_no_width_is_told_far_too_high(wide: float, every: int) -> None:
    """Wherever it lies between tracks; under a lone track a low one is likelier than a high one beside it."""
    lattice = global_grid(Fraction(1, 2))
    for shift in (0.0, 0.25, 0.5):
        y, x = lattice.latitudes[:, None], lattice.longitudes
        mean = 2.0 * np.exp(-((x - 10.25 - shift) ** 2 + (y - 0.25) ** 2) / (2 * wide**2))
        mean[:, np.arange(lattice.width) % every != 0] = np.nan
        assert lasting(of_means(mean, np.full(lattice.shape, 0.02)), lattice).max() < 1.45 * 2.0


def test_a_plume_without_ground_is_none() -> None:
    """Cells that are seen alone, and their neighbours far away or nowhere: nothing tells how high they stand."""
    for lattice in (LATTICE, global_grid(Fraction(1, 2))):
        mean = np.full(lattice.shape, np.nan)
        mean[20::40, 30::60] = 5.0
        mean[20::40, 31::60] = 5.3
        assert not lasting(of_means(mean, np.full(lattice.shape, 0.01)), lattice).any()


def test_rare_visits_do_not_tell_what_lasts() -> None:
    """However high: it is the weather of a few days."""
    mean = 9.0 * np.exp(-((LATTICE.longitudes - 10.5) ** 2 + (LATTICE.latitudes[:, None] - 0.5) ** 2) / 2)
    sums = of_means(mean, np.full(LATTICE.shape, 0.01))
    assert lasting(sums, LATTICE)[cell(10.5, 0.5)] > 8
    for months, told in ((30, True), (8, False)):
        sums.months[80:100, 180:200] = months
        assert (lasting(sums, LATTICE)[cell(10.5, 0.5)] > 7) == told
    for months, told in ((6, True), (5, False)):  # of a short archive
        sums.months[:] = months
        assert (lasting(sums, LATTICE)[cell(10.5, 0.5)] > 7) == told


def test_of_few_months_little_is_sure() -> None:
    """However many cells: they may have been seen in the same hours."""
    y, x = LATTICE.latitudes[:, None], LATTICE.longitudes
    mean = 1.2 * np.exp(-((x - 10.5) ** 2 + (y - 0.5) ** 2) / (2 * LEAST_CELLS**2))
    variance = np.full(LATTICE.shape, 0.005)
    for months, told in ((3, False), (40, True)):
        assert (lasting(of_means(mean, variance, months), LATTICE)[cell(10.5, 0.5)] > 0.8) == told


def test_on_coasts_more_is_needed() -> None:
    """What would be a plume inland may be a beach: soundings see the land's part of a cell, or the sea's."""
    y, x = LATTICE.latitudes[:, None], LATTICE.longitudes
    middle = LATTICE.longitudes[cell(10.5, 0.5)[1]]
    for height, told in ((0.9, False), (3.0, True)):
        mean = height * np.exp(-((x - middle) ** 2 + (y - 0.5) ** 2) / (2 * LEAST_CELLS**2))
        sums = of_means(mean, np.full(LATTICE.shape, 0.01))
        land = np.where(x < middle, 1.0, 0.0) + np.zeros_like(mean)
        assert lasting(sums, LATTICE, land)[cell(10.5, 0.5)] == pytest.approx(height, abs=0.1)
        land[:, 185:196] = 0.5
        land[0] = np.nan
        assert (lasting(sums, LATTICE, land)[cell(10.5, 0.5)] > 0.5 * height) == told


def test_what_is_seen_on_one_side_alone_does_not_go_far() -> None:
    """Beyond the last track nothing tells a plume from a slope that goes on; its edge may not raise what is beyond."""
    mean = np.full(LATTICE.shape, np.nan)
    mean[60:120, 180:240] = 0.5 * np.maximum(np.arange(60) - 55, 0)
    found = lasting(of_means(mean, np.full(LATTICE.shape, 0.01)), LATTICE)
    assert np.abs(found[60:120, 239]).max() > 1.0
    assert np.abs(found[:, 240:]).max() < 3.0
    assert np.abs(found[:, 244:]).max() < 0.1


def test_rounds_do_not_run_away() -> None:
    """Noise far beyond what is stated, to the poles: what is taken off stays as large as what was there."""
    generator = np.random.default_rng(6)
    mean = 50 * generator.standard_normal(LATTICE.shape)
    mean[generator.random(LATTICE.shape) < 0.8] = np.nan
    found = lasting(of_means(mean, np.full(LATTICE.shape, 1e-4)), LATTICE)
    assert 50 < np.abs(found).max() < 600
    seen = ~np.isnan(mean)
    assert ((mean - found)[seen] ** 2).sum() < (mean[seen] ** 2).sum()


def test_chance_alone_leaves_next_to_nothing() -> None:
    found = lasting(gathered(np.zeros(LATTICE.shape), 84, 4), LATTICE)
    assert (found != 0).mean() < 0.03
    assert np.abs(found).max() < 0.7
    assert np.sqrt(np.mean(found**2)) < 0.02


def test_nothing_at_all() -> None:
    sums, none = Sums.nothing(LATTICE), np.zeros(0)
    sums.add(LATTICE, none, none, none, none)
    sums.add(LATTICE, np.array([1.0]), np.array([2.0]), np.array([np.nan]), np.array([1.0]))
    assert not sums.months.any()
    assert not lasting(sums, LATTICE).any()
