import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr

from services.core.errors import InputRefused
from services.core.grid import Window
from services.products.sample_earth.predictors import Predictors

pytestmark = pytest.mark.slow  # as a whole

DECEMBER = 1
SEAM = Window(row=100, column=700, height=60, width=90)


def test_windows_equal_xarray_on_the_file_across_the_seam(written: Path) -> None:
    found = Predictors.find(written)
    assert found.periods.ids == ("2019-11", "2019-12", "2020-01", "2020-02")
    with xr.open_dataset(written / "era5_monthly_2019.nc", engine="h5netcdf") as data:
        west = data.isel(time=1).assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude")
        for window in (
            SEAM,
            Window(row=0, column=0, height=3, width=1440),
            Window(row=719, column=719, height=1, width=2),
        ):
            for name in ("t2m", "swvl1"):
                expected = west[name].values[window.rows, window.columns]
                np.testing.assert_allclose(found.read_era5(name, DECEMBER, window), expected, rtol=0, atol=2e-5)


def test_other_orders_of_the_axes_give_the_same_values(inputs: Path, written: Path) -> None:
    with xr.open_dataset(written / "era5_monthly_2019.nc", engine="h5netcdf", mask_and_scale=False) as data:
        turned = data.assign_coords(longitude=(data.longitude + 180) % 360 - 180).sortby("longitude").sortby("latitude")
        turned.to_netcdf(inputs / "era5_monthly_2019.nc", engine="h5netcdf")
    one, other = Predictors.find(written), Predictors.find(inputs)
    assert (other.era5[0].shift, other.era5[0].rising) == (0, True)
    assert (one.era5[0].shift, one.era5[0].rising) == (720, False)
    for name in ("t2m", "swvl1"):
        np.testing.assert_array_equal(one.read_era5(name, DECEMBER, SEAM), other.read_era5(name, DECEMBER, SEAM))


def test_what_is_found_is_small_and_survives_a_pickle(written: Path) -> None:
    found = Predictors.find(written)
    text = pickle.dumps(found)
    assert len(text) < 10_000
    assert pickle.loads(text) == found  # noqa: S301 - made two lines above
    names = [file.name for file in found.files]
    assert names == sorted(names)
    assert "site_observations.csv" not in names
    assert len(names) == 4 + 2 + 2


def test_months_count_where_all_predictors_have_them(inputs: Path) -> None:
    (inputs / "ndvi_2020-02.tif").unlink()
    assert Predictors.find(inputs).periods.ids == ("2019-11", "2019-12", "2020-01")


def _background(directory: Path, old: str, new: str) -> None:
    path = directory / "co2_background_monthly.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _era5(directory: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(directory / "era5_monthly_2019.nc", "r+") as file:
        change(file)


def _set(name: str, attribute: str, value: object) -> Callable[[Path], None]:
    return lambda directory: _era5(directory, lambda file: file[name].attrs.__setitem__(attribute, value))


def _shift_latitudes(file: h5py.File) -> None:
    file["latitude"][...] = file["latitude"][...] + 0.01


def _tif(name: str, change: Callable[[rasterio.io.DatasetWriter], None]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        with rasterio.open(directory / name, "r+", IGNORE_COG_LAYOUT_BREAK=True) as dataset:
            change(dataset)

    return spoil


def _truncate(name: str, share: float) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def _copy(old: str, new: str) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        shutil.copy(directory / old, directory / new)

    return spoil


def _cut(directory: Path) -> None:
    with rasterio.open(directory / "ndvi_2020-01.tif") as dataset:
        profile, values = dataset.profile, dataset.read()
    profile.update(height=719)
    with rasterio.open(directory / "ndvi_2020-01.tif", "w", **profile) as dataset:
        dataset.write(values[:, :719])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "ndvi_2019-12.tif").unlink(), r"ndvi_\*\.tif: 2019-12 is missing between 2019-11 and 2020-02"),
        (lambda d: _background(d, "2020  1", "2021  1"), r"background_monthly\.txt: 2020-01 is missing between"),
        (lambda d: _background(d, "units: ppm", "units: ppb"), "no comment says 'units: ppm'"),
        (lambda d: _background(d, "2020  1", "2019 12"), r"line \d+: 2019-12 stands twice"),
        (lambda d: _background(d, "2020  1", "2020 13"), r"line \d+: 13 is no month"),
        (lambda d: _background(d, "2020  1", "January"), "not 'year month decimal value'"),
        (_set("t2m", "units", "degC"), r"era5_monthly_2019\.nc: t2m is in 'degC', not in 'K'"),
        (_set("swvl1", "units", "kg m-2"), r"swvl1 is in 'kg m-2', not in 'm\*\*3 m\*\*-3' or 'm3 m-3'|swvl1 is in"),
        (_set("time", "calendar", "noleap"), "calendar 'noleap' is not the standard one"),
        (_set("time", "units", "months since 1900-01-01"), "time is in 'months since 1900-01-01'"),
        (_set("time", "units", "hours since 1900-02-01 00:00:00.0"), "2020-01 is in era5_monthly_2019.nc too"),
        (lambda d: _era5(d, _shift_latitudes), r"latitude 89\.885 stands where the grid has 89\.875"),
        (lambda d: _era5(d, lambda file: file.pop("swvl1")), "has no variable swvl1"),
        (_copy("era5_monthly_2019.nc", "era5_monthly_2021.nc"), r"2021\.nc: 2019-11 is in era5_monthly_2019.nc too"),
        (_copy("era5_monthly_2019.nc", "era5_monthly_latest.nc"), "does not say its year"),
        (_copy("ndvi_2019-12.tif", "ndvi_2019-13.tif"), r"ndvi_2019-13\.tif: the name does not say its month"),
        (_tif("ndvi_2020-01.tif", lambda d: d.set_band_unit(1, "percent")), "one band in '1' is expected"),
        (_tif("ndvi_2020-01.tif", lambda d: setattr(d, "crs", "EPSG:3857")), "is in EPSG:3857, not in EPSG:4326"),
        (_cut, r"ndvi_2020-01\.tif: 1440 x 719 cells"),
        (_tif("static_0p25.tif", lambda d: d.set_band_unit(1, "ft")), "elevation is in 'ft', not in 'm'"),
        (_tif("static_0p25.tif", lambda d: d.set_band_description(3, "lights")), "the bands are .*'lights'"),
        (lambda d: (d / "static_0p25.tif").unlink(), r"static_0p25\.tif is no raster that can be read"),
        (lambda d: (d / "ndvi_2020-01.tif").write_text("<html>"), r"ndvi_2020-01\.tif is no raster that can be read"),
        (lambda d: (d / "era5_monthly_2020.nc").write_text("<html>"), r"2020\.nc is no NetCDF-4 file"),
        (_truncate("era5_monthly_2020.nc", 0.5), r"2020\.nc is no NetCDF-4 file"),
        (shutil.rmtree, "is no directory of inputs; `cenote sample` writes"),
    ],
)
def test_a_predictor_that_does_not_hold_is_refused_with_file_and_fact(
    inputs: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(inputs)
    with pytest.raises(InputRefused, match=message):
        Predictors.find(inputs)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("name", ["static_0p25.tif", "ndvi_2020-01.tif", "era5_monthly_2020.nc"])
def test_a_truncated_file_is_refused_when_found_or_when_read(inputs: Path, name: str, share: float) -> None:
    _truncate(name, share)(inputs)
    everywhere = Window(row=0, column=0, height=720, width=1440)

    def read() -> None:
        found = Predictors.find(inputs)
        found.read_static(everywhere)
        found.read_ndvi(2, everywhere)
        for position in (2, 3):
            found.read_era5("t2m", position, everywhere)
            found.read_era5("swvl1", position, everywhere)

    with pytest.raises(InputRefused, match=name.replace(".", r"\.")):
        read()


def test_a_file_that_changed_since_is_refused(inputs: Path) -> None:
    found = Predictors.find(inputs)
    found.read_ndvi(2, SEAM)
    path = inputs / "ndvi_2020-01.tif"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputRefused, match=r"ndvi_2020-01\.tif is no longer the file that was planned with"):
        found.read_ndvi(2, SEAM)
    path.unlink()
    with pytest.raises(InputRefused, match=r"ndvi_2020-01\.tif cannot be read: No such file"):
        found.read_ndvi(2, SEAM)


def test_a_month_that_is_not_there_is_refused(written: Path) -> None:
    found = Predictors.find(written)
    assert found.position(found.months[2]) == 2
    with pytest.raises(InputRefused, match=r"has no predictors for 2020-03, only 2019-11\.\.2020-02"):
        found.position(found.months[-1] + 1)


def test_a_single_month_is_enough(inputs: Path) -> None:
    for month in ("2019-11", "2019-12", "2020-02"):
        (inputs / f"ndvi_{month}.tif").unlink()
    assert Predictors.find(inputs).periods.ids == ("2020-01",)


def test_predictors_that_share_no_month_are_refused(inputs: Path) -> None:
    for month in ("2019-11", "2019-12"):
        (inputs / f"ndvi_{month}.tif").unlink()
    (inputs / "era5_monthly_2020.nc").unlink()
    with pytest.raises(InputRefused, match=r"no month is in all predictors .*ndvi_\*\.tif 2020-01\.\.2020-02"):
        Predictors.find(inputs)
