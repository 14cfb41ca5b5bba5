"""Shares of cells and areas of polygons against pyproj's geodesics and a dense sample of points."""

import numpy as np
import pytest
import shapely
from pyproj import Geod

from services.core.grid import Grid, Window, windows
from services.sources.coverage import Coverage

QUARTER = Grid.of(west=70, north=30, step_x="1/4", width=40, height=24)
ALL = Window(row=0, column=0, height=24, width=40)
STAR = shapely.Polygon(
    [
        (74 + r * np.sin(a), 26.5 + r * np.cos(a))
        for a, r in zip(np.arange(10) * np.pi / 5, [2.4, 0.9] * 5, strict=True)
    ],
    [[(73.9, 26.3), (74.3, 26.3), (74.1, 26.8)]],
)


def geodesic_km2(west: float, south: float, east: float, north: float) -> float:
    """A parallel is no geodesic: many points make it one."""
    across = np.linspace(west, east, 20000)
    longitudes = np.concatenate([across, across[::-1]])
    latitudes = np.concatenate([np.full(across.size, south), np.full(across.size, north)])
    return float(abs(Geod(ellps="WGS84").polygon_area_perimeter(longitudes, latitudes)[0]) / 1e6)


@pytest.mark.parametrize("corners", [(71.1, 24.6, 79.93, 29.01), (-60, -75.5, -20, 80), (0.001, 51.2, 0.004, 51.201)])
def test_a_rectangle_has_the_area_of_geodesics(corners: tuple[float, float, float, float]) -> None:
    assert Coverage(shapely.box(*corners)).area_km2 == pytest.approx(geodesic_km2(*corners), rel=1e-6)


def test_shares_of_a_rectangle_sum_to_its_area() -> None:
    corners = (71.1, 24.67, 79.93, 29.01)
    coverage = Coverage(shapely.box(*corners))
    ground = (coverage.shares(QUARTER, ALL) * QUARTER.row_areas_km2[:, None]).sum()
    assert ground == pytest.approx(geodesic_km2(*corners), rel=1e-6)
    assert coverage.outside_km2(QUARTER) == 0
    one = coverage.shares(QUARTER, ALL)[3, 4]  # 71..71.25 east, 29..29.25 north
    assert one == pytest.approx(0.6 * geodesic_km2(71, 29, 71.25, 29.01) / QUARTER.row_areas_km2[3], rel=1e-6)


def test_shares_are_those_of_a_dense_sample_of_points() -> None:
    found = Coverage(STAR).shares(QUARTER, ALL)
    part = (np.arange(60) + 0.5) / 60 / 4
    lon = (70 + np.arange(40)[:, None] / 4 + part).ravel()
    lat = (30 - np.arange(24)[:, None] / 4 - part).ravel()
    inside = shapely.contains_xy(STAR, *np.meshgrid(lon, lat)).reshape(24, 60, 40, 60).mean(axis=(1, 3))
    assert np.abs(found - inside).max() < 0.02
    assert ((found > 0) & (found < 1)).sum() > 50
    assert (found == 1).sum() > 20
    for window in windows(QUARTER.shape, (7, 11)):
        part_of = Coverage(STAR).shares(QUARTER, window)
        np.testing.assert_allclose(part_of, found[window.rows, window.columns], atol=1e-9)
        assert Coverage(STAR).touches(QUARTER, window) or not part_of.any()


def test_what_lies_beyond_the_grid_is_told() -> None:
    coverage = Coverage(shapely.box(68, 26, 75, 31))
    inside = geodesic_km2(70, 26, 75, 30)
    assert coverage.outside_km2(QUARTER) == pytest.approx(geodesic_km2(68, 26, 75, 31) - inside, rel=1e-6)
    ground = (coverage.shares(QUARTER, ALL) * QUARTER.row_areas_km2[:, None]).sum()
    assert ground == pytest.approx(inside, rel=1e-6)
    assert not Coverage(shapely.box(60, 26, 69, 31)).touches(QUARTER, ALL)


def test_turns_of_longitude_do_not_matter() -> None:
    world = Grid.of(west=-180, north=90, step_x="1", width=360, height=180)
    whole = Window(row=0, column=0, height=180, width=360)
    coverage = Coverage(shapely.box(175.5, -10.25, 187.5, 5))
    shares = coverage.shares(world, whole)
    assert coverage.outside_km2(world) == 0
    assert (shares * world.row_areas_km2[:, None]).sum() == pytest.approx(coverage.area_km2, rel=1e-6)
    assert shares[90, 355] == pytest.approx(0.5, rel=1e-9)
    assert shares[90, 7] == pytest.approx(0.5, rel=1e-9)
    assert coverage.touches(world, Window(row=80, column=0, height=10, width=5))
