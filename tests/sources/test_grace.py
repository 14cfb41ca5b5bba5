"""Mascons of CSR and JPL in the form of the real files, against xarray."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.core.grid import Window
from services.sources.grace import open_mascons
from services.sources.variables import COARSE

DAYS = np.array([107.0, 129.5, 227.5])
BOUNDS = np.array([[94.0, 120.0], [123.0, 136.0], [213.0, 242.0]])
SINCE = {"units": "days since 2002-01-01T00:00:00Z", "calendar": "gregorian", "bounds": "time_bounds"}


@pytest.fixture
def csr(raster: Any, write: Callable[..., str]) -> Callable[..., str]:
    """As CSR publishes: 0.25 degrees, south first, 0..360, float32 cm without a fill."""

    def make(file: str = "csr", kind: str = "netcdf4", **changes: Any) -> str:
        values = np.random.default_rng(1).normal(0, 12, (3, 720, 1440)).astype(np.float32)
        plain: dict[str, Any] = {
            "values": values,
            "longitudes": 0.125 + 0.25 * np.arange(1440, dtype=np.float32),
            "latitudes": -89.875 + 0.25 * np.arange(720, dtype=np.float32),
            "times": DAYS,
            "time_attributes": SINCE,
            "name": "lwe_thickness",
            "attributes": {"units": "cm", "long_name": "Liquid_Water_Equivalent_Thickness"},
            "more": {"time_bounds": (("time", "timebound"), BOUNDS, {})},
            "global_attributes": {
                "title": "CSR GRACE and GRACE-FO MASCON RL06Mv2",
                "institution": "The University of Texas - Center for Space Research (CSR)",
                "time_epoch": "2002-01-01T00:00:00Z",
            },
        }
        return write(kind, raster(**{**plain, **changes}), file)

    return make


@pytest.fixture
def jpl(raster: Any, write: Callable[..., str]) -> Callable[..., str]:
    """As JPL publishes: 0.5 degrees, float64 cm, -99999, with an uncertainty, a land mask and scale factors."""

    def make(name: str = "jpl", **changes: Any) -> str:
        generator = np.random.default_rng(2)
        values, errors = generator.normal(0, 12, (3, 360, 720)), generator.uniform(0.3, 50, (3, 360, 720))
        values[1, 100:120, 300:310] = errors[1, 100:120, 300:310] = -99999.0
        said = {"units": "cm", "_FillValue": -99999.0}
        flat = ("lat", "lon")
        plain: dict[str, Any] = {
            "values": values,
            "longitudes": 0.25 + 0.5 * np.arange(720),
            "latitudes": -89.75 + 0.5 * np.arange(360),
            "times": DAYS,
            "time_attributes": SINCE,
            "name": "lwe_thickness",
            "attributes": said,
            "more": {
                "time_bounds": (("time", "bounds"), BOUNDS, {}),
                "uncertainty": (("time", "lat", "lon"), errors, said),
                "land_mask": (flat, np.ones((360, 720)), {}),
                "scale_factor": (flat, np.ones((360, 720)), {"_FillValue": -99999.0}),
                "mascon_ID": (flat, np.ones((360, 720)), {}),
            },
            "global_attributes": {
                "title": "JPL GRACE and GRACE-FO MASCON RL06.3Mv04 CRI Filtered",
                "institution": "NASA/JPL",
            },
        }
        return write("netcdf4", raster(**{**plain, **changes}), name)

    return make


def by_xarray(path: str, name: str) -> NDArray[np.float64]:
    """On COARSE by xarray's nearest neighbour: what lies at the centres of its cells."""
    with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as data:
        turned = data[name].assign_coords(lon=(data.lon.astype("float64") + 180) % 360 - 180).sortby("lon").load()
    found = turned.sel(lat=COARSE.latitudes, lon=COARSE.longitudes, method="nearest")
    return found.values.astype(np.float64)


WINDOWS = (
    Window(row=0, column=0, height=600, width=1440),
    Window(row=590, column=711, height=10, width=20),
    Window(row=3, column=0, height=1, width=1),
    Window(row=599, column=1439, height=1, width=1),
    Window(row=121, column=719, height=33, width=5),
)


def test_csr(csr: Callable[..., str]) -> None:
    path = csr()
    found = pickle.loads(pickle.dumps(open_mascons(path)))  # noqa: S301 - our own
    assert (found.center, found.has_uncertainty, found.epoch) == ("CSR", False, "2002-01-01")
    assert found.days == tuple(DAYS)
    assert found.bounds == tuple((a, b) for a, b in BOUNDS)
    expected = by_xarray(path, "lwe_thickness")
    for window in WINDOWS:
        values, uncertainty = found.read(window)
        assert uncertainty is None
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected[:, window.rows, window.columns])


def test_jpl(jpl: Callable[..., str]) -> None:
    path = jpl("GRACE")  # its name says nothing
    found = open_mascons(path)
    assert (found.center, found.has_uncertainty, len(found.days)) == ("JPL", True, 3)
    expected = by_xarray(path, "lwe_thickness"), by_xarray(path, "uncertainty")
    assert np.isnan(expected[0]).any()
    for window in WINDOWS:
        values, uncertainty = found.read(window)
        np.testing.assert_array_equal(values, expected[0][:, window.rows, window.columns])
        assert uncertainty is not None
        np.testing.assert_array_equal(uncertainty, expected[1][:, window.rows, window.columns])


@pytest.mark.parametrize("kind", ["netcdf3", "netcdf4", "zarr3"])
def test_units_and_times_as_csr_spells_them(csr: Callable[..., str], kind: str) -> None:
    path = csr(
        kind=kind,
        time_attributes={"Units": "days", "long_name": "reference time"},
        attributes={"Units": "cm"},
        lon_attributes={"Units": "degrees_east"},
        lat_attributes={"Units": "degrees_north"},
    )
    found = open_mascons(path)
    assert found.days == tuple(DAYS)
    assert found.bounds == tuple((a, b) for a, b in BOUNDS)
    values, _ = found.read(WINDOWS[1])
    plain, _ = open_mascons(csr("plain")).read(WINDOWS[1])
    np.testing.assert_array_equal(values, plain)


def test_an_attribute_of_the_time_holds_the_epoch(csr: Callable[..., str]) -> None:
    path = csr(time_attributes={"units": "days", "time_epoch": "2002-01-11T00:00:00Z"}, more={})
    found = open_mascons(path)
    assert found.days == tuple(DAYS + 10)
    assert found.bounds is None


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 0.1), ("m", 100.0), ("kg m-2", 0.1), ("kg/m^2", 0.1), ("Meters", 100.0), ("cm EWH", 1)]
)
def test_units_become_centimetres(csr: Callable[..., str], unit: str, factor: float) -> None:
    values = np.full((3, 720, 1440), 1.5, dtype=np.float32)
    found, _ = open_mascons(csr(values=values, attributes={"units": unit})).read(WINDOWS[2])
    np.testing.assert_allclose(found, 1.5 * factor, rtol=1e-15)


@pytest.mark.parametrize(("attributes", "said"), [({}, "it states no unit"), ({"units": "mGal"}, "its unit is 'mGal'")])
def test_an_unknown_unit_is_refused(csr: Callable[..., str], attributes: dict[str, str], said: str) -> None:
    with pytest.raises(InputRefused, match=rf"csr.nc: lwe_thickness: {said}; a depth of water"):
        open_mascons(csr(attributes=attributes))


def test_values_that_none_can_be_are_refused(csr: Callable[..., str]) -> None:
    values = np.zeros((3, 720, 1440), dtype=np.float32)
    values[1, 700, 3] = np.inf
    found = open_mascons(csr(values=values))
    with pytest.raises(InputRefused, match=r"csr.nc: lwe_thickness holds infinite values in map 2"):
        found.read(WINDOWS[0])
    found.read(WINDOWS[1])
    values[1, 700, 3] = -99999
    with pytest.raises(InputRefused, match=r"other.nc: lwe_thickness holds 99999 cm, which no storage"):
        open_mascons(csr("other", values=values)).read(WINDOWS[0])


def test_other_files_are_refused(csr: Callable[..., str], jpl: Callable[..., str], tmp_path: Path) -> None:
    other = {"title": "GSFC global mascons", "institution": "NASA Goddard Space Flight Center"}
    with pytest.raises(InputRefused, match=r"gsfc.nc lies on the grid of JPL's mascons and says that it is GSFC's"):
        open_mascons(jpl("gsfc", global_attributes=other))
    with pytest.raises(InputRefused, match=r"one.nc has 360 x 180 cells; CSR's mascons have 1440 x 720"):
        open_mascons(
            csr(
                "one",
                values=np.zeros((3, 180, 360), dtype=np.float32),
                longitudes=0.5 + np.arange(360.0),
                latitudes=-89.5 + np.arange(180.0),
            )
        )
    with pytest.raises(InputRefused, match=r"name.nc has no lwe_thickness"):
        open_mascons(csr("name", name="tws"))
    with pytest.raises(InputRefused, match=r"time.nc does not say the times of its solutions"):
        open_mascons(csr("time", time_attributes={"units": "days"}, global_attributes={}, more={}))
    with pytest.raises(InputRefused, match=r"stands for \d files; all solutions of a centre are in one"):
        open_mascons(str(tmp_path / "*.nc"))


def test_a_raster_without_names_is_refused(raster: Any, write: Callable[..., str]) -> None:
    plain = raster(values=np.zeros((1, 2, 2)), longitudes=np.array([0.5, 1.5]), latitudes=np.array([1.5, 0.5]))
    with pytest.raises(InputRefused, match=r"file.tif is GeoTIFF, which has no variable lwe_thickness"):
        open_mascons(write("geotiff", plain))


def test_a_changed_file_is_noticed(csr: Callable[..., str]) -> None:
    path = csr()
    found = open_mascons(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputRefused, match=r"csr.nc changed"):
        found.read(WINDOWS[1])


def test_the_real_coarse_grid_is_no_mascon_file(realdata: Path) -> None:
    path = realdata / "groundwater" / "grace_csr_rl05_lwe_1deg_2002-2010.nc"
    with pytest.raises(InputRefused, match=r"has 360 x 180 cells; CSR's mascons have 1440 x 720"):
        open_mascons(str(path))
