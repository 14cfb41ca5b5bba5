"""Months of GLDAS Noah, from real values whose time was changed, against xarray."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.sources.gldas import CANOPY, SNOW, SOIL_LAYERS, VARIABLES, open_gldas
from services.sources.variables import COARSE

WINDOW = Window(row=200, column=1000, height=30, width=40)


def days(month: str) -> int:
    since = np.datetime64(month, "M").astype("datetime64[D]") - np.datetime64("2000-01-01", "D")
    return int(since.astype(int))


@pytest.fixture
def gldas(raster: Any, write: Callable[..., str]) -> Callable[..., str]:
    """As GES DISC publishes a month, with the six variables."""

    def make(month: str, name: str | None = None, **changes: Any) -> str:
        generator = np.random.default_rng(days(month))
        said = {"units": "kg m-2", "_FillValue": np.float32(-9999), "missing_value": np.float32(-9999)}
        axes = ("time", "lat", "lon")
        values = {key: generator.uniform(1, 100, (1, 600, 1440)).astype(np.float32) for key in VARIABLES}
        values[SOIL_LAYERS[2]][:, 350:380, 1010:1020] = -9999
        more: dict[str, Any] = {key: (axes, values[key], said) for key in VARIABLES[1:]}
        first, end = days(month), days(str(np.datetime64(month, "M") + np.timedelta64(1, "M")))
        more["time_bnds"] = (("time", "bnds"), np.array([[first, end]], dtype=np.float64), {})
        more |= changes.pop("more", {})
        plain: dict[str, Any] = {
            "name": VARIABLES[0],
            "values": values[VARIABLES[0]],
            "attributes": said,
            "longitudes": -179.875 + 0.25 * np.arange(1440, dtype=np.float32),
            "latitudes": -59.875 + 0.25 * np.arange(600, dtype=np.float32),
            "times": np.array([first], dtype=np.float64),
            "time_attributes": {"units": "days since 2000-01-01 00:00:00", "bounds": "time_bnds"},
            "more": {key: value for key, value in more.items() if value is not None},
        }
        return write(
            "netcdf4", raster(**{**plain, **changes}), name or f"GLDAS_NOAH025_M.A{month.replace('-', '')}.021"
        )

    return make


def by_xarray(path: str) -> dict[str, NDArray[np.float64]]:
    with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as opened:
        data = opened[list(VARIABLES)].astype("float64").sortby("lat", ascending=False).isel(time=0).load()
    soil = sum((data[name] for name in SOIL_LAYERS[1:]), start=data[SOIL_LAYERS[0]])
    return {"soil_moisture": soil.values, "snow": data[SNOW].values, "canopy": data[CANOPY].values}


def test_months(gldas: Callable[..., str]) -> None:
    paths = [gldas(month) for month in ("2002-06", "2002-04", "2002-05")]
    found = pickle.loads(pickle.dumps(open_gldas(paths)))  # noqa: S301 - our own
    assert [str(np.datetime64(month, "M")) for month in found.months] == ["2002-04", "2002-05", "2002-06"]
    assert len(found.shapes) == 1
    for month, path in zip(found.months, (paths[1], paths[2], paths[0]), strict=True):
        expected = by_xarray(path)
        for window in (WINDOW, Window(row=0, column=0, height=600, width=1440)):
            read = found.read(month, window)
            assert read.keys() == expected.keys()
            for name, values in read.items():
                np.testing.assert_array_equal(values, expected[name][window.rows, window.columns])
    assert np.isnan(found.read(found.months[0], WINDOW)["soil_moisture"]).any()
    assert not np.isnan(found.read(found.months[0], WINDOW)["snow"]).any()
    with pytest.raises(InputRefused, match=r"no file holds 2002-07; there are 2002-04 to 2002-06"):
        found.read(found.months[-1] + 1, WINDOW)


def test_months_that_are_not_one_each_are_refused(gldas: Callable[..., str]) -> None:
    april, july = gldas("2002-04"), gldas("2002-07")
    with pytest.raises(InputRefused, match=r"no file holds 2002-05 to 2002-06, between .*A200204.*A200207"):
        open_gldas([april, july])
    with pytest.raises(InputRefused, match=r"A200204.021.nc and .*again.nc both hold 2002-04"):
        open_gldas([april, gldas("2002-04", "again")])
    with pytest.raises(InputRefused, match=r"A200205.021.nc is named 2002-05, and its time is in 2002-04"):
        open_gldas([gldas("2002-04", "GLDAS_NOAH025_M.A200205.021")])


def test_other_files_are_refused(gldas: Callable[..., str]) -> None:
    with pytest.raises(InputRefused, match=r"one.nc has no SWE_inst and no CanopInt_inst"):
        open_gldas([gldas("2002-04", "one", more={SNOW: None, CANOPY: None})])
    axes, zeros = ("time", "lat", "lon"), np.zeros((1, 600, 1440), dtype=np.float32)
    with pytest.raises(InputRefused, match=r"two.nc: SWE_inst: its unit is 'W m-2'; a depth of water"):
        open_gldas([gldas("2002-04", "two", more={SNOW: (axes, zeros, {"units": "W m-2"})})])
    with pytest.raises(InputRefused, match=r"three.nc: SWE_inst: it states no unit"):
        open_gldas([gldas("2002-04", "three", more={SNOW: (axes, zeros, {})})])
    with pytest.raises(InputRefused, match=r"four.nc: SWE_inst is float32 along lat, lon, and SoilMoi0_10cm_inst"):
        open_gldas([gldas("2002-04", "four", more={SNOW: (axes[1:], zeros[0], {"units": "mm"})})])
    shifted = -179.75 + 0.25 * np.arange(1440)
    with pytest.raises(InputRefused, match=r"five.nc has 1440 x 600 cells .* and not GLDAS's"):
        open_gldas([gldas("2002-04", "five", longitudes=shifted)])


def test_depths_of_water_become_kg_m2(gldas: Callable[..., str]) -> None:
    axes, ones = ("time", "lat", "lon"), np.ones((1, 600, 1440), dtype=np.float32)
    found = open_gldas([gldas("2002-04", "m", more={SNOW: (axes, ones, {"units": "m"})})])
    assert (found.read(found.months[0], WINDOW)["snow"] == 1000.0).all()


def test_a_changed_file_is_noticed(gldas: Callable[..., str]) -> None:
    path = gldas("2002-04")
    found = open_gldas([path])
    found.read(found.months[0], WINDOW)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputRefused, match=r"A200204.021.nc changed"):
        found.read(found.months[0], WINDOW)


def test_the_real_variables(realdata: Path, tmp_path: Path) -> None:
    """GES DISC's own file of three hours: every variable, attribute and chunk of it, with the time of a month."""
    real = realdata / "desert" / "GLDAS_NOAH025_3H.A20150101.0000.021.nc4"
    with pytest.raises(InputRefused, match=r"A20150101.0000.021.nc4 holds 3 hours, not a month"):
        open_gldas([str(real)])
    path = tmp_path / "GLDAS_NOAH025_M.A201501.021.nc4"
    shutil.copyfile(real, path)
    with h5py.File(path, "r+") as file:
        file["time"].attrs["units"] = "days since 2000-01-01 00:00:00"
        file["time"][...] = days("2015-01")
        file["time_bnds"][...] = [[days("2015-01"), days("2015-02")]]
    found = open_gldas([str(path)])
    expected = by_xarray(str(path))
    read = found.read(found.months[0], Window(row=0, column=0, height=600, width=1440))
    for name, values in read.items():
        np.testing.assert_array_equal(values, expected[name])
        assert 0.2 < np.isfinite(values).mean() < 0.4, name  # land
    assert 100 < np.nanmean(read["soil_moisture"]) < 900
    row, column = COARSE.locate(-60.0, -3.0)
    assert np.isfinite(read["canopy"][row, column])
