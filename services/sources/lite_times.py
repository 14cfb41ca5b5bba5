"""When soundings were taken: seconds, calendar dates or the digits of their ids, as seconds since 1970."""

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.sources import clock
from services.sources.lite_columns import Column, attribute

_DAY = 86_400.0
_EXACT = 2**53
"""Up to which every whole number is a float64."""


def column(name: str, file: h5py.File) -> tuple[Column, float]:
    """Where times are told, the plainest way first, and the seconds from 1970 to what they are counted from.

    Raises:
        InputRefused: if nothing tells them, or in a unit or type that cannot.
    """
    found = Column.found(file, ["time"])
    if found is not None:
        units = found.units or "seconds since 1970-01-01"  # as Lite files count (science/xco2.md 1-common)
        reference = clock.parse_reference(f"{name}: time", units, attribute(file[found.path], "calendar"))
        if reference.unit != "second":
            raise InputRefused(f"{name}: its time counts {reference.unit}s; Lite files count seconds")
        return found, reference.epoch / clock.SECOND
    found = Column.found(file, ["date"]) or Column.found(file, ["sounding_id"])
    if found is None:
        raise InputRefused(f"{name} has no time, date or sounding_id, so nobody knows when its soundings were taken")
    if found.path == "sounding_id" and file[found.path].dtype.itemsize < 8:
        raise InputRefused(f"{name}: sounding_id is {file[found.path].dtype}, which cannot hold its 16 digits")
    return found, 0.0


def seconds(name: str, column: Column, epoch: float, opened: h5py.File, rows: slice) -> NDArray[np.float64]:
    """``(n,)`` seconds since 1970-01-01 UTC of some rows; NaN where missing.

    Raises:
        InputRefused: if a date or an id is none.
    """
    values = column.read(opened, rows)
    if column.path == "date":
        return _of_dates(name, values)
    if column.path == "sounding_id":
        return _of_ids(name, values)
    return values + epoch


def _of_dates(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds since 1970 of year to second and millisecond ``(n, 7)``; NaN where one is missing."""
    known = np.isfinite(values).all(axis=1)
    year, month, day, hour, minute, second, milli = values[known].T
    limits = ((year, 1970, 2100), (month, 1, 12), (day, 1, 31), (hour, 0, 23), (minute, 0, 59), (second, 0, 60))
    good = np.all([(part >= low) & (part <= high) for part, low, high in limits], axis=0)
    good &= (milli >= 0) & (milli < 1000)
    first = ((np.where(good, year, 1970) - 1970) * 12 + np.where(good, month, 1) - 1).astype(np.int64)
    months = first.astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day.astype(np.int64) - 1
    good &= days < (months + 1).astype("datetime64[D]").astype(np.int64)  # no 31 June
    if not good.all():
        told = "-".join(f"{part:g}" for part in values[known][int(np.argmin(good))])
        raise InputRefused(f"{name}: a sounding's date is {told}, which is none")
    out = np.full(len(values), np.nan)
    out[known] = days * _DAY + hour * 3600 + minute * 60 + second + milli / 1000
    return out


def _of_ids(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds since 1970 of ids of 16 digits, YYYYMMDDhhmmss, tenths of a second and footprint; of 14 without the two.

    OPeNDAP and xarray make float64 of them: 16 digits stay exact up to 2 ** 53, which is in the year 9007.
    """
    known = np.isfinite(values)
    ids = values[known]
    bad = (ids != np.floor(ids)) | (ids < 19700101000000) | (ids >= _EXACT)
    if bad.any():
        raise InputRefused(f"{name}: {ids[int(np.argmax(bad))]:.17g} is no sounding_id of 16 digits, YYYYMMDDhhmmssmf")
    whole = ids.astype(np.int64)
    whole = np.where(whole < 10**14, whole * 100, whole) // 10
    parts: list[NDArray[Any]] = []
    for size in (10, 100, 100, 100, 100, 100):
        parts.append(whole % size)
        whole = whole // size
    tenth, second, minute, hour, day, month = parts
    out = np.full(values.shape, np.nan)
    stacked = np.stack([whole, month, day, hour, minute, second, tenth * 100], axis=1).astype(np.float64)
    out[known] = _of_dates(name, stacked)
    return out
