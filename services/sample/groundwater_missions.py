"""The sample Earth's groundwater as the missions' files have it: CSR's and JPL's mascons, and GLDAS.

Their names, variables, axes, units and fills are those of the real files; values lie in the region and its margin.
"""

from pathlib import Path

import h5netcdf
import numpy as np
from numpy.typing import NDArray

from services.sample.groundwater import SURROUNDINGS, Coarse, Groundwater
from services.sample.groundwater_seen import Seen
from services.sample.manifest import SYNTHETIC
from services.sample.modes import BASELINE
from services.sample.noise import draws, noise, sphere
from services.sample.solutions import month_name, month_starts, solutions
from services.sample.sparse import cells_of, variable_of

CSR_NOISE = 1.0
"""Standard deviation of the errors of a CSR solution, cm; they are alike over about NOISE_LENGTH."""

JPL_NOISE = 1.2
"""Standard deviation of the errors of a JPL mascon, cm, each its own."""

NOISE_LENGTH = 300.0  # km

CSR = "CSR_GRACE_GRACE-FO_RL0603_Mascons_all-corrections.nc"
JPL = "GRCTellus.JPL.200204_202012.GLO.RL06.3M.MSCNv04CRI.nc"
_MASCON = 3  # degrees
_GRACE_FILL = -99999.0
_GLDAS_FILL = -9999.0
_EARTH_RADIUS = 6371.0  # km


def write_gldas(path: Path, month: int, seen: Seen) -> None:
    """One monthly file of GLDAS Noah 2.1: south up from 59.875 S, from 180 W, its time the month's first day."""
    name = month_name(month)
    place = seen.world.region.wider(SURROUNDINGS)
    rows, columns = cells_of(place, west=-180, cells=4)
    upward = slice(600 - rows.stop, 600 - rows.start)
    days = (month_starts(np.array([month, month + 1])) - np.datetime64("2000-01-01", "D")).astype(np.float64)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "missing_value": np.float32(_GLDAS_FILL),
                "title": "GLDAS2.1 LIS land surface model output monthly mean",
                "source": "Noah_v3.6",
                "institution": SYNTHETIC,
                "conventions": "CF-1.6",
            }
        )
        file.dimensions = {"time": 1, "bnds": 2, "lat": 600, "lon": 1440}
        time = file.create_variable("time", ("time",), data=days[:1])
        time.attrs.update(
            {
                "units": "days since 2000-01-01 00:00:00",
                "long_name": "time",
                "begin_date": name.replace("-", "") + "01",
                "begin_time": "000000",
                "bounds": "time_bnds",
            }
        )
        file.create_variable("time_bnds", ("time", "bnds"), data=days[None])
        for axis, values, unit in (
            ("lat", -59.875 + 0.25 * np.arange(600), "degrees_north"),
            ("lon", -179.875 + 0.25 * np.arange(1440), "degrees_east"),
        ):
            file.create_variable(axis, (axis,), data=values.astype(np.float32)).attrs["units"] = unit
        for quantity, water in seen.gldas(month).items():
            dimensions = ("time", "lat", "lon")
            variable = variable_of(file, quantity, dimensions, np.float32, (1, 40, 40), _GLDAS_FILL)
            variable.attrs.update({"units": "kg m-2", "cell_methods": "time: mean"})
            variable[0, upward, columns] = np.where(np.isnan(water), np.float32(_GLDAS_FILL), water)[::-1]


def csr_errors(world: Groundwater) -> Coarse:
    """How far CSR's solutions are off: cm, ``(solution, y, x)`` as ``Seen.twsa``, mean 0 over 2004-2009."""
    lattice = world.region.wider(SURROUNDINGS).grid(4)
    points = sphere(lattice.longitudes, lattice.latitudes)
    months, _ = solutions()
    errors = np.stack(
        [
            noise(
                points,
                seed=world.seed,
                name=f"csr {month_name(month)}",
                frequency=_EARTH_RADIUS / NOISE_LENGTH,
                octaves=1,
            )
            for month in months
        ]
    )
    return CSR_NOISE * _less_baseline(errors.astype(np.float64), months)


def write_csr(path: Path, seen: Seen) -> None:
    """CSR's file: the truth's water storage and errors that are alike over 300 km, less the mean of 2004-2009."""
    months, days = solutions()
    storage = np.stack([seen.twsa(month) for month in months.tolist()])
    storage = _less_baseline(storage, months) + csr_errors(seen.world)
    rows, columns = cells_of(seen.world.region.wider(SURROUNDINGS), west=0, cells=4)
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "Conventions": "CF-1.6",
                "title": "CSR GRACE and GRACE-FO RL06.3 Mascon Solutions",
                "institution": SYNTHETIC,
                "time_epoch": "2002-01-01T00:00:00Z",
            }
        )
        _grace_axes(file, days, height=720, step=0.25, units="Units")
        variable = variable_of(file, "lwe_thickness", ("time", "lat", "lon"), np.float32, (32, 48, 48), _GRACE_FILL)
        variable.attrs.update({"units": "cm", "long_name": "Liquid_Water_Equivalent_Thickness"})
        variable[:, 720 - rows.stop : 720 - rows.start, columns] = storage[:, ::-1].astype(np.float32)


def write_jpl(path: Path, seen: Seen) -> None:
    """JPL's file: means over 3 degree mascons (of those parts that are made) with errors of their own."""
    months, days = solutions()
    place = seen.world.region.wider(SURROUNDINGS)
    storage = np.stack([seen.twsa(month) for month in months.tolist()])
    fine = place.grid(4)
    # each 0.25 degree cell's mascon, numbered from the south-west
    row = np.floor((fine.latitudes + 90) / _MASCON).astype(int)
    column = np.floor((fine.longitudes + 180) / _MASCON).astype(int)
    _, mascon = np.unique(row[:, None] * (360 // _MASCON) + column[None, :], return_inverse=True)
    count = int(mascon.max()) + 1
    area = np.broadcast_to(fine.row_areas[:, None], mascon.shape).ravel()
    whole = np.bincount(mascon.ravel(), weights=area, minlength=count)
    on_mascons = np.stack(
        [np.bincount(mascon.ravel(), weights=area * values.ravel(), minlength=count) / whole for values in storage]
    )
    errors = draws(len(months) * count, seed=seen.world.seed, name="jpl").reshape(len(months), count)
    values = _less_baseline(on_mascons + JPL_NOISE * errors, months)
    stated = JPL_NOISE * (1 + 0.2 * np.abs(draws(count, seed=seen.world.seed, name="jpl uncertainty")))
    rows, columns = cells_of(place, west=0, cells=2)
    upward, cells = slice(360 - rows.stop, 360 - rows.start), mascon[::2, ::2][::-1]
    with h5netcdf.File(path, "w") as file:
        file.attrs.update(
            {
                "Conventions": "CF-1.6, ACDD-1.3, ISO 8601",
                "title": "JPL GRACE and GRACE-FO MASCON RL06.3Mv04 CRI",
                "institution": SYNTHETIC,
                "time_epoch": "2002-01-01T00:00:00Z",
            }
        )
        _grace_axes(file, days, height=360, step=0.5, units="units")
        for name, filled in (("lwe_thickness", values), ("uncertainty", np.broadcast_to(stated, values.shape))):
            variable = variable_of(file, name, ("time", "lat", "lon"), np.float64, (32, 24, 24), _GRACE_FILL)
            variable.attrs.update({"units": "cm", "long_name": name})
            variable[:, upward, columns] = filled[:, cells]


def _grace_axes(file: h5netcdf.File, days: NDArray[np.float64], *, height: int, step: float, units: str) -> None:
    """As the centres write them: south up, longitudes 0..360, middles of the solutions; CSR writes ``Units``."""
    file.dimensions = {"time": len(days), "bounds": 2, "lat": height, "lon": 2 * height}
    time = file.create_variable("time", ("time",), data=days.mean(axis=1))
    time.attrs.update({units: "days since 2002-01-01T00:00:00Z", "long_name": "Time", "axis": "T"})
    time.attrs.update({"calendar": "gregorian", "bounds": "time_bounds"})
    file.create_variable("time_bounds", ("time", "bounds"), data=days)
    for axis, values, unit in (
        ("lat", -90 + step / 2 + step * np.arange(height), "degrees_north"),
        ("lon", step / 2 + step * np.arange(2 * height), "degrees_east"),
    ):
        file.create_variable(axis, (axis,), data=values).attrs["units"] = unit


def _less_baseline(values: Coarse, months: NDArray[np.int64]) -> Coarse:
    """Less the mean of 2004-2009, which has all its solutions."""
    held = (months >= BASELINE[0]) & (months <= BASELINE[1])
    less: Coarse = values - values[held].mean(axis=0)
    return less
