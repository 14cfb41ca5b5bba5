from pathlib import Path

import numpy as np
import pytest
import rasterio

from services.sample import make_land
from services.sample.earth import LATITUDES, LONGITUDES, Earth, background, noon_sun
from services.sample.noise import noise, sphere

pytestmark = pytest.mark.slow  # as a whole


def test_noise_has_no_seam_and_the_spread_it_states() -> None:
    east = sphere(np.array([179.9999, -179.9999]), np.linspace(-89, 89, 50))
    values = noise(east, seed=1, name="x", frequency=8, octaves=4)
    np.testing.assert_allclose(values[:, 0], values[:, 1], atol=1e-3)
    pole = noise(sphere(np.linspace(-180, 180, 40), np.array([89.9999])), seed=1, name="x", frequency=8, octaves=4)
    assert np.ptp(pole) < 1e-3
    whole = noise(sphere(LONGITUDES[::4], LATITUDES[::4]), seed=1, name="x", frequency=30, octaves=3)
    weights = np.broadcast_to(np.cos(np.radians(LATITUDES[::4]))[:, None], whole.shape)
    assert abs(np.average(whole, weights=weights)) < 0.1
    assert np.sqrt(np.average(whole**2, weights=weights)) == pytest.approx(1, abs=0.1)


def test_noise_differs_by_seed_and_name_and_is_the_same_everywhere() -> None:
    points = sphere(np.array([10.0, 20.0]), np.array([50.0]))
    first = noise(points, seed=1, name="x", frequency=5, octaves=2)
    assert not np.array_equal(first, noise(points, seed=2, name="x", frequency=5, octaves=2))
    assert not np.array_equal(first, noise(points, seed=1, name="y", frequency=5, octaves=2))
    # from an integer hash: another machine or numpy gives these, too
    np.testing.assert_allclose(first, [[0.320609, 0.86177]], rtol=0, atol=1e-5)


def test_xco2_grows_and_breathes_as_the_description_says(earth: Earth) -> None:
    growth = (background(np.datetime64("2045-01", "M")) - background(np.datetime64("2015-01", "M"))) / 30
    assert growth == pytest.approx(2.4, abs=0.05)
    names = [np.datetime64(f"2019-{number:02d}", "M") for number in range(1, 13, 2)]
    months = [earth.month(name).xco2 for name in names]
    zonal = np.stack([month.mean(axis=1) for month in months]) - np.array([background(n) for n in names])[:, None]
    swing = np.ptp(zonal, axis=0)
    assert swing[np.abs(LATITUDES - 60) < 5].mean() > 3 * swing[np.abs(LATITUDES + 40) < 5].mean()
    north = zonal[:, np.abs(LATITUDES - 60) < 5].mean(axis=1)
    assert str(names[int(north.argmax())]) in {"2019-03", "2019-05"}
    assert str(names[int(north.argmin())]) == "2019-09"
    assert all(np.isfinite(month).all() for month in months)


def test_the_sun_stands_where_it_should() -> None:
    june, december = 5.7 / 12, 11.7 / 12
    assert noon_sun(np.array([23.4]), june)[0] == pytest.approx(1, abs=1e-3)
    assert noon_sun(np.array([80.0]), december)[0] < 0 < noon_sun(np.array([-80.0]), december)[0]


def test_missing_is_where_it_belongs(earth: Earth) -> None:
    month = earth.month(np.datetime64("2020-01", "M"))
    np.testing.assert_array_equal(np.isnan(month.soil_moisture), ~earth.land)
    np.testing.assert_array_equal(np.isnan(month.vegetation), ~earth.land | (month.sun < 0.05))
    assert not np.isnan(month.temperature).any()
    assert (earth.elevation[~earth.land] == 0).all()
    assert (earth.settlement[~earth.land] == 0).all()


def test_the_land_is_where_a_measured_mask_has_it(earth: Earth, realdata: Path) -> None:
    with np.load(realdata / "rasters" / "globe_land_mask_1km.npz") as held:
        measured = ~held["mask"][15::30, 15::30]
    assert (measured == earth.land).mean() > 0.99
    for shift in (-2, 2):
        assert (measured == np.roll(earth.land, shift, axis=1)).mean() < 0.99
        assert (measured == np.roll(earth.land, shift, axis=0)).mean() < 0.99


def test_the_shipped_land_is_made_again_from_natural_earth(realdata: Path, tmp_path: Path) -> None:
    make_land.main(realdata / "rasters" / "world_atlas_countries-50m.topo.json", tmp_path / "land.tif")
    shipped_file = Path(make_land.__file__).with_name("natural_earth_land.tif")
    with rasterio.open(tmp_path / "land.tif") as made, rasterio.open(shipped_file) as shipped:
        np.testing.assert_array_equal(made.read(), shipped.read())
        assert made.transform == shipped.transform
        assert "public domain" in shipped.tags()["SOURCE"]
