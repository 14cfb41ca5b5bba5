"""Covariates on cells against rasterio, xarray and sums by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

from models.xco2_global.signature import MONTHS
from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.xco2_global.covariates import sequences, series
from services.products.xco2_global.inputs import SETTINGS, Inputs

MONTH = int(np.datetime64("2019-09", "M").astype(int))


def whole(inputs: Inputs) -> Window:
    grid = inputs.settings.grid
    return Window(row=0, column=0, height=grid.height, width=grid.width)


def feature(inputs: Inputs, name: str, month: int = MONTH) -> NDArray[np.float64]:
    """A feature of a month on all cells, ``(y, x)``."""
    column = list(inputs.settings.features).index(name)
    values = series(inputs, [month], whole(inputs))[:, 0, column]
    return values.astype(np.float64).reshape(inputs.settings.grid.shape)


def with_step(written: Path, inputs: Path, step: str) -> Inputs:
    """The same files on cells of another width."""
    toml = inputs / SETTINGS
    text = re.sub(r'step = "[^"]*"', f'step = "{step}"', (written / SETTINGS).read_text())
    toml.unlink()
    toml.write_text(text)
    return Inputs.find(inputs)


def raster(path: Path) -> NDArray[np.float64]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1, masked=True).astype(np.float64).filled(np.nan))


def test_era5_as_xarray_reads_it(opened: Inputs, written: Path) -> None:
    with xr.open_dataset(written / "era5_monthly_2019.nc", engine="h5netcdf") as data:
        turned = data.assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude")
        month = turned.sel(time="2019-09-01")
        for name, variable in (("temperature", "t2m"), ("soil_moisture", "swvl1"), ("rain", "tp")):
            np.testing.assert_allclose(feature(opened, name), month[variable].values, rtol=2e-6, equal_nan=True)


def test_rising_latitudes_mean_the_same(opened: Inputs, written: Path, inputs: Path) -> None:
    path = inputs / "era5_monthly_2019.nc"
    with xr.open_dataset(written / path.name, engine="h5netcdf", mask_and_scale=False) as data:
        assert data.latitude[0] > data.latitude[-1]
        path.unlink()
        data.isel(latitude=slice(None, None, -1)).to_netcdf(path, engine="h5netcdf")
    turned = Inputs.find(inputs)
    window = Window(row=20, column=100, height=9, width=11)
    np.testing.assert_array_equal(sequences(turned, MONTH, window), sequences(opened, MONTH, window))


def test_sums_stay_sums(opened: Inputs, written: Path, inputs: Path) -> None:
    grid = opened.settings.grid
    totals = raster(written / "emissions_2019-09.tif")
    density = np.expm1(feature(opened, "emissions"))
    np.testing.assert_allclose(density * grid.row_areas_km2[:, None], totals, rtol=1e-4, atol=1e-4 * totals.max())
    # on cells that hold four, and on cells that cut them; means over cells weigh rows by areas on the sphere, and
    # densities are per km2 of the ellipsoid, which is 2.5e-4 of a sum in cells as tall as these
    nested = with_step(written, inputs, "4")
    found = np.expm1(feature(nested, "emissions")) * nested.settings.grid.row_areas_km2[:, None]
    np.testing.assert_allclose(found, totals.reshape(45, 2, 90, 2).sum(axis=(1, 3)), rtol=3e-4, atol=1e-6 * found.max())
    cut = with_step(written, inputs, "3")
    people = np.expm1(feature(cut, "population")) * cut.settings.grid.row_areas_km2[:, None]
    assert people.shape == (60, 120)
    np.testing.assert_allclose(people.sum(), raster(written / "population.tif").sum(), rtol=3e-4)


def with_around(inputs: Path, **degrees: float | str) -> Inputs:
    """The same files, and of some covariates the mean of what lies around."""
    toml = inputs / SETTINGS
    text = toml.read_text()
    for name, around in degrees.items():
        assert f'name = "{name}"\n' in text
        text = text.replace(f'name = "{name}"\n', f'name = "{name}"\naround = {around}\n')
    toml.unlink()
    toml.write_text(text)
    return Inputs.find(inputs)


def test_what_lies_around_as_xarray_tells_it(opened: Inputs, inputs: Path) -> None:
    """Means by area over cells of six degrees, then between their centres; the Earth goes round."""
    found = with_around(inputs, ndvi=6, emissions=6, land_cover=6)
    names, grid = list(found.settings.features), opened.settings.grid
    at = names.index("ndvi")
    assert names[at : at + 2] == ["ndvi", "ndvi_around"]
    own = [name for name in names if not name.endswith("_around")]
    assert own == list(opened.settings.features)
    areas = grid.row_areas[:, None]

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            means = [
                (np.where(known, values, 0) * areas).reshape(30, 3, 60, 3).sum(axis=(1, 3)),
                (known * areas).reshape(30, 3, 60, 3).sum(axis=(1, 3)),
            ]
            mean = np.pad(means[0] / means[1], ((0, 0), (1, 1)), mode="wrap")
        wide = xr.DataArray(
            mean, dims=("y", "x"), coords={"y": np.arange(87.0, -90, -6), "x": np.arange(-183.0, 184, 6)}
        )
        between: NDArray[np.float64] = wide.interp(y=grid.latitudes, x=grid.longitudes).values
        return between

    for name in ("ndvi", "land_cover_1"):
        expected = around(feature(opened, name))
        told = ~np.isnan(expected)  # where a neighbour is missing, ours leaves its weight out
        assert told.mean() > 0.2
        np.testing.assert_allclose(feature(found, f"{name}_around")[told], expected[told], rtol=2e-5, atol=2e-6)
    off_the_coasts = np.isnan(feature(found, "ndvi")) & ~np.isnan(feature(found, "ndvi_around"))
    assert off_the_coasts.any()
    density = around(np.expm1(feature(opened, "emissions")))
    told = ~np.isnan(density)
    np.testing.assert_allclose(np.expm1(feature(found, "emissions_around"))[told], density[told], rtol=2e-3, atol=1e-6)
    for name in own:
        np.testing.assert_array_equal(feature(found, name), feature(opened, name))
    for window in (Window(row=3, column=0, height=4, width=5), Window(row=60, column=171, height=9, width=9)):
        part = series(found, [MONTH], window)[:, 0, names.index("emissions_around")].reshape(window.shape)
        np.testing.assert_array_equal(
            part, feature(found, "emissions_around")[window.rows, window.columns].astype(np.float32)
        )


def test_around_must_be_wider_than_a_cell(inputs: Path, written: Path) -> None:
    for wide, said in (
        ("2", r"ndvi: around = 2 is no wider than a cell, of 2 degrees"),
        ("7", r"around = 7 does not divide 180 degrees"),
        ("2.3", r"around = 2.3 does not divide 180 degrees"),
        ("0.004", r"ndvi: around = 0.004 is no wider than a cell"),
        ("0", "greater than or equal to 0.001"),
        ("nan", "finite"),
        ("12", "less than or equal to 10"),
        ("true", "valid number"),
        ('"6"', "valid number"),
    ):
        with pytest.raises(InputRefused, match=said):
            with_around(inputs, ndvi=wide)
        (inputs / SETTINGS).unlink()
        (inputs / SETTINGS).write_text((written / SETTINGS).read_text())


def test_around_must_be_wider_than_the_cells_of_the_files(inputs: Path) -> None:
    """Of cells as wide as the neighbourhood it would be no mean."""
    toml = inputs / SETTINGS
    text = toml.read_text().replace('step = "2"', 'step = "1"')
    toml.unlink()
    toml.write_text(text)
    with pytest.raises(InputRefused, match=r"ndvi: around = 2 is no wider than the cells of its files, of 2 degrees"):
        with_around(inputs, ndvi="2")


def test_classes_become_shares_by_area(opened: Inputs, written: Path, inputs: Path) -> None:
    classes = raster(written / "land_cover.tif")
    areas = np.broadcast_to(opened.settings.grid.row_areas[:, None], classes.shape)
    nested = with_step(written, inputs, "4")
    numbers = next(one.classes for one in nested.settings.covariates if one.name == "land_cover")
    assert len(numbers) > 3

    def blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = values.reshape(45, 2, 90, 2).sum(axis=(1, 3))
        return total

    known = ~np.isnan(classes)
    weight = blocks(areas * known)
    for number in numbers:
        share = np.divide(
            blocks(areas * (classes == number)), weight, out=np.full(weight.shape, np.nan), where=weight > 0
        )
        found = feature(nested, f"land_cover_{number}")
        np.testing.assert_allclose(found, share, atol=2e-6, equal_nan=True)
        assert np.nanmax(found) > 0


def test_classes_of_every_month(opened: Inputs, written: Path, inputs: Path) -> None:
    """As land cover has for every year: files of months, each a degree further east."""
    months = range(opened.periods.starts[0] - MONTHS + 1, opened.periods.starts[-1] + 1)
    with rasterio.open(written / "land_cover.tif") as file:
        profile, classes = file.profile, file.read(1)
    for turn, month in enumerate(months):
        with rasterio.open(inputs / f"land_cover_{np.datetime64(month, 'M')}.tif", "w", **profile) as file:
            file.write(np.roll(classes, turn, axis=1), 1)
    toml = inputs / SETTINGS
    text = toml.read_text()
    toml.unlink()
    old = 'files = "land_cover.tif"\n'
    assert old in text
    toml.write_text(
        text.replace(old, 'files = "land_cover_*.tif"\nmonthly = true\ntime = "land_cover_{year}-{month}"\n')
    )
    found = Inputs.find(inputs)
    window = whole(found)
    values = sequences(found, MONTH, window)
    plain = sequences(opened, MONTH, window)
    names = list(found.settings.features)
    assert names == list(opened.settings.features)
    mine = [column for column, name in enumerate(names) if name.startswith("land_cover_")]
    assert len(mine) > 3
    others = [column for column in range(len(names)) if column not in mine]
    np.testing.assert_array_equal(values[..., others], plain[..., others])
    for lag in range(MONTHS):
        turn = MONTH - MONTHS + 1 + lag - months[0]
        maps = plain[:, lag, mine].reshape(*window.shape, -1)
        np.testing.assert_array_equal(values[:, lag, mine].reshape(maps.shape), np.roll(maps, turn, axis=1))


def test_sequences_end_with_the_month_and_know_place_and_season(opened: Inputs) -> None:
    window = Window(row=30, column=17, height=2, width=3)
    found = sequences(opened, MONTH, window)
    grid, names = opened.settings.grid, list(opened.settings.features)
    assert found.shape == (6, MONTHS, len(names))
    for place, month in enumerate(range(MONTH - MONTHS + 1, MONTH + 1)):
        at = feature(opened, "ndvi", month)[window.rows, window.columns]
        np.testing.assert_allclose(found[:, place, names.index("ndvi")], at.ravel(), rtol=1e-6)
    latitude, longitude = (
        one.ravel() for one in np.meshgrid(grid.latitudes[window.rows], grid.longitudes[window.columns], indexing="ij")
    )
    sphere = found[:, 0, [names.index(f"sphere_{axis}") for axis in "xyz"]]
    np.testing.assert_allclose((sphere**2).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.degrees(np.arcsin(sphere[:, 2])), latitude, atol=1e-4)
    np.testing.assert_allclose(np.degrees(np.arctan2(sphere[:, 1], sphere[:, 0])), longitude, atol=1e-4)
    # the middle of September is 8.5 twelfths of the year
    angle = np.arctan2(found[0, -1, names.index("season_sin")], found[0, -1, names.index("season_cos")])
    np.testing.assert_allclose(angle % (2 * np.pi), 2 * np.pi * 8.5 / 12, atol=1e-5)
