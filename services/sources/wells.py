"""Groundwater levels in wells, from tables (CSV) or NetCDF: heads, or depths to water, and what they say of storage."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, QueryError
from services.core.time_axis import parse_instant
from services.sources import cf, clock, documents, files, handles
from services.sources.documents import Document
from services.sources.files import Source
from services.sources.units import metres, same

type Measures = Literal["head", "depth"]

DEEPEST = 12_000.0
"""Metres that no level in a well is off the ground or the sea: beyond is another unit, or a missing value."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "-9999", "-9999.0", "-99999", "-999999"})
"""What stands in a table where nothing was measured, in lower case."""

_SITE = (
    "site",
    "site_id",
    "siteid",
    "site_no",
    "well",
    "well_id",
    "wellid",
    "station",
    "station_id",
    "segmentid",
    "id",
)
_TIME = ("time", "date", "datetime", "month", "fecha", "datum")
_VALUE = ("value", "level", "water_level", "depth", "depth_to_water", "dtw", "head", "gwl")
_YIELD = ("specific_yield", "sy")
_LONGITUDE, _LATITUDE = ("longitude", "lon", "long"), ("latitude", "lat")
_SLASHED = re.compile(r"^([0-9]{4})/([0-9]{1,2})(?:/([0-9]{1,2}))?$")
_SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")


@dataclass(frozen=True, kw_only=True)
class Wells:
    """Monthly levels in wells.

    Raises:
        InputRefused: if the arrays contradict each other, or a specific yield lies outside of 0..1.
    """

    documents: tuple[Document, ...]
    """Tables that were read."""

    sources: tuple[Source, ...]
    """NetCDF files that were read."""

    sites: tuple[str, ...]
    longitude: NDArray[np.float64] = field(repr=False)
    """``(site,)``, degrees east; NaN where nothing tells it."""

    latitude: NDArray[np.float64] = field(repr=False)
    """``(site,)``, degrees north; NaN where nothing tells it."""

    specific_yield: NDArray[np.float64] = field(repr=False)
    """``(site,)``, above 0, at most 1; NaN where nothing tells it."""

    months: tuple[int, ...]
    """Months since 1970-01, from the first to the last with a reading, without a gap."""

    levels: NDArray[np.float64] = field(repr=False)
    """``(time, site)`` in m: means of the readings of a month, NaN where there is none."""

    readings: NDArray[np.int64] = field(repr=False)
    """How many readings each has ``(time, site)``."""

    measures: Measures
    """Whether levels are heads, which rise with storage, or depths to water, which fall."""

    unread: tuple[str, ...]
    """Sites of the table of sites that have no reading; they are no sites here."""

    def __post_init__(self) -> None:
        for name, values in (
            ("longitude", self.longitude),
            ("latitude", self.latitude),
            ("yield", self.specific_yield),
        ):
            if values.shape != (len(self.sites),):
                raise InputRefused(f"wells: {len(self.sites)} sites and {name}s of shape {values.shape}")
        if self.levels.shape != (len(self.months), len(self.sites)) or self.readings.shape != self.levels.shape:
            raise InputRefused(f"wells: {len(self.months)} months of {len(self.sites)} sites are {self.levels.shape}")
        wrong = np.flatnonzero((self.specific_yield <= 0) | (self.specific_yield > 1))
        if wrong.size:
            site = self.sites[int(wrong[0])]
            raise InputRefused(f"well {site}: a specific yield of {self.specific_yield[wrong[0]]:g} is not in 0..1")

    def storage(self) -> NDArray[np.float64]:
        """Groundwater storage above each site's own mean over its months, ``(time, site)`` in cm of water.

        Specific yield times change of head (science/flux_gwsa.md B3); a rising depth to water is a falling storage. NaN
        where there is no level or no specific yield.
        """
        counts = np.isfinite(self.levels).sum(axis=0)
        means = np.nansum(self.levels, axis=0) / np.where(counts, counts, 1)
        sign = 1.0 if self.measures == "head" else -1.0
        changes: NDArray[np.float64] = sign * 100.0 * self.specific_yield * (self.levels - means)
        return changes

    def check_unchanged(self) -> None:
        """Look at the files again.

        Raises:
            InputRefused: if one is not what it was.
        """
        for document in self.documents:
            document.check_unchanged()
        for source in self.sources:
            files.check_unchanged(source)


@dataclass(frozen=True, kw_only=True)
class _Place:
    longitude: float = math.nan
    latitude: float = math.nan
    specific_yield: float = math.nan


class _Levels:
    """Readings as they come, by site and month."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, int], list[float]] = {}
        self.sites: dict[str, None] = {}

    def add(self, site: str, month: int, value: float) -> None:
        self.sums.setdefault((site, month), []).append(value)


def open_wells(
    name: str,
    sites: str | None = None,
    *,
    measures: Measures,
    units: str,
    specific_yield: float | None = None,
) -> Wells:
    """Read wells.

    A table is long (columns site, time and value) or wide (the first column times and a column per site, or the first
    column sites and a column per time). A NetCDF file has one variable along sites and times, with latitude and
    longitude along sites.

    Args:
        name: path of the readings: CSV (also gzip's), or NetCDF.
        sites: path of the table of sites: a column of the site, longitude, latitude, and specific_yield if known.
        measures: whether values are heads or depths to water.
        units: their unit; a NetCDF file's own must be the same.
        specific_yield: of the sites whose own is not known; None: those have no storage.

    Raises:
        InputRefused: if a date, number, unit, coordinate or specific yield cannot be; says the line.
    """
    factor = metres(name, units)
    if specific_yield is not None and not 0 < specific_yield <= 1:
        raise InputRefused(f"{name}: a specific yield of {specific_yield:g} is not in 0..1")
    document, body = documents.read(name)
    read, sources = [document], []
    found = _Levels()
    places: dict[str, _Place] = {}
    if body.startswith(_SIGNATURES):
        sources = files.found([name])
        read = []
        _from_netcdf(sources[0], units, found, places)
    else:
        _from_table(_Table.parsed(name, body), found)
    if sites is not None:
        document, body = documents.read(sites)
        read.append(document)
        places |= _places(_Table.parsed(sites, body))
    if not found.sums:
        raise InputRefused(f"{name} holds no reading")
    return _gathered(found, places, factor, (tuple(read), tuple(sources)), measures, specific_yield)


def _gathered(
    found: _Levels,
    places: Mapping[str, _Place],
    factor: float,
    inputs: tuple[tuple[Document, ...], tuple[Source, ...]],
    measures: Measures,
    specific_yield: float | None,
) -> Wells:
    sites = tuple(found.sites)
    numbers = {site: number for number, site in enumerate(sites)}
    first, last = (end(month for _, month in found.sums) for end in (min, max))
    levels = np.full((last + 1 - first, len(sites)), np.nan)
    readings = np.zeros(levels.shape, dtype=np.int64)
    for (site, month), values in found.sums.items():
        at = (month - first, numbers[site])
        levels[at], readings[at] = math.fsum(values) / len(values) * factor, len(values)
    beyond = np.argwhere(np.abs(levels) > DEEPEST)
    if beyond.size:
        row, column = (int(part) for part in beyond[0])
        names = [item.name for group in inputs for item in group]
        raise InputRefused(
            f"{names[0]}: well {sites[column]} has {levels[row, column]:g} m in {np.datetime64(first + row, 'M')}, "
            f"beyond {DEEPEST:g} m: another unit, or a missing value that is not known as one"
        )
    known = [places.get(site, _Place()) for site in sites]
    other = math.nan if specific_yield is None else specific_yield
    return Wells(
        documents=inputs[0],
        sources=inputs[1],
        sites=sites,
        longitude=np.array([place.longitude for place in known]),
        latitude=np.array([place.latitude for place in known]),
        specific_yield=np.array([other if math.isnan(p.specific_yield) else p.specific_yield for p in known]),
        months=tuple(range(first, last + 1)),
        levels=levels,
        readings=readings,
        measures=measures,
        unread=tuple(site for site in places if site not in numbers),
    )


@dataclass(frozen=True, kw_only=True)
class _Table:
    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """Number of the line in the file, and the cells."""

    @classmethod
    def parsed(cls, name: str, body: bytes) -> "_Table":
        text = documents.text(name, body)
        lines = text.splitlines(keepends=True)
        start = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
        if start is None:
            raise InputRefused(f"{name} holds no table")
        delimiter = max(",;\t", key=lines[start].count)
        reader = csv.reader(io.StringIO("".join(lines[start:]), newline=""), delimiter=delimiter, strict=True)
        rows: list[tuple[int, tuple[str, ...]]] = []
        try:
            header = tuple(cell.strip() for cell in next(reader))
            for row in reader:
                if not any(cell.strip() for cell in row) or row[0].startswith("#"):
                    continue
                if len(row) != len(header):
                    raise InputRefused(
                        f"{name}, line {start + reader.line_num}: {len(row)} cells, and the header has {len(header)}"
                    )
                rows.append((start + reader.line_num, tuple(cell.strip() for cell in row)))
        except csv.Error as error:
            raise InputRefused(f"{name}, line {start + reader.line_num}: {error}") from None
        if len(header) < 2 or not rows:
            raise InputRefused(f"{name} holds no table of two columns and a row; columns are parted by , ; or tab")
        return cls(name=name, header=header, rows=tuple(rows))

    def column(self, names: Sequence[str], *, begins: bool = False) -> int | None:
        """Number of the column of one of some names; ``begins``: also where a name goes on behind ``_``."""
        lower = [cell.lower() for cell in self.header]
        for name in names:
            if lower.count(name) == 1:
                return lower.index(name)
        longer = [n for n, cell in enumerate(lower) if begins and cell.startswith(tuple(f"{name}_" for name in names))]
        if len(longer) > 1:
            raise InputRefused(
                f"{self.name}: which of the columns {', '.join(self.header[n] for n in longer)} is meant?"
            )
        return longer[0] if longer else None


def _from_table(table: _Table, found: _Levels) -> None:
    site, time = table.column(_SITE), table.column(_TIME)
    if site is not None and time is not None:
        _long(table, site, time, found)
        return
    times = [month for cell in table.header[1:] if (month := _month_or_none(cell)) is not None]
    if len(times) == len(table.header) - 1:
        _row_per_site(table, times, found)
    elif _month_or_none(table.rows[0][1][0]) is not None:
        _column_per_site(table, found)
    else:
        raise InputRefused(
            f"{table.name} is no table of wells: it has neither columns site, time and value, nor times in its first "
            f"column ({table.rows[0][1][0]!r}) or row ({table.header[1]!r})"
        )


def _long(table: _Table, site: int, time: int, found: _Levels) -> None:
    value = table.column(_VALUE)
    if value is None:
        raise InputRefused(f"{table.name} has no column of values; call it value (it has {', '.join(table.header)})")
    for line, cells in table.rows:
        name = cells[site]
        if not name:
            raise InputRefused(f"{table.name}, line {line}: no site is named")
        found.sites.setdefault(name)
        _add(table, found, line, (name, _month(table.name, line, cells[time])), cells[value])


def _row_per_site(table: _Table, months: Sequence[int], found: _Levels) -> None:
    _check_once(table, [cells[0] for _, cells in table.rows], "rows")
    for line, cells in table.rows:
        found.sites.setdefault(cells[0])
        for month, cell in zip(months, cells[1:], strict=True):
            _add(table, found, line, (cells[0], month), cell)


def _column_per_site(table: _Table, found: _Levels) -> None:
    _check_once(table, table.header[1:], "columns")
    found.sites.update(dict.fromkeys(table.header[1:]))
    for line, cells in table.rows:
        month = _month(table.name, line, cells[0])
        for name, cell in zip(table.header[1:], cells[1:], strict=True):
            _add(table, found, line, (name, month), cell)


def _add(table: _Table, found: _Levels, line: int, key: tuple[str, int], cell: str) -> None:
    value = _number(table.name, line, f"the level of {key[0]}", cell)
    if not math.isnan(value):
        found.add(*key, value)


def _places(table: _Table) -> dict[str, _Place]:
    site = table.column(_SITE)
    longitude, latitude = table.column(_LONGITUDE, begins=True), table.column(_LATITUDE, begins=True)
    own = table.column(_YIELD)
    if site is None or longitude is None or latitude is None:
        raise InputRefused(
            f"{table.name} has no columns site, longitude and latitude (it has {', '.join(table.header)})"
        )
    _check_once(table, [cells[site] for _, cells in table.rows], "rows")
    found: dict[str, _Place] = {}
    for line, cells in table.rows:
        where = [
            _within(table.name, line, what, cells[column], limit)
            for what, column, limit in (("longitude", longitude, 360.0), ("latitude", latitude, 90.0))
        ]
        if math.isnan(where[0]) != math.isnan(where[1]):
            raise InputRefused(f"{table.name}, line {line}: one of longitude and latitude is missing")
        share = math.nan if own is None else _number(table.name, line, "the specific yield", cells[own])
        if share <= 0 or share > 1:
            raise InputRefused(f"{table.name}, line {line}: a specific yield of {cells[own or 0]} is not in 0..1")
        found[cells[site]] = _Place(longitude=where[0], latitude=where[1], specific_yield=share)
    return found


def _check_once(table: _Table, names: Sequence[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputRefused(f"{table.name} has {count} {what} of the site {name}")
    if "" in names:
        raise InputRefused(f"{table.name}: one of its {what} names no site")


def _number(name: str, line: int, what: str, cell: str) -> float:
    """A cell as a number, NaN where it says that there is none."""
    if cell.lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputRefused(f"{name}, line {line}: {what} is {cell!r}, which is no number")
    return value


def _within(name: str, line: int, what: str, cell: str, limit: float) -> float:
    value = _number(name, line, f"the {what}", cell)
    if abs(value) > limit:
        raise InputRefused(f"{name}, line {line}: a {what} of {cell} is no place in degrees")
    return value


def _month(name: str, line: int, cell: str) -> int:
    month = _month_or_none(cell)
    if month is None:
        raise InputRefused(f"{name}, line {line}: {cell!r} is no date such as 2004-01 or 2004-01-31")
    return month


def _month_or_none(cell: str) -> int | None:
    slashed = _SLASHED.match(cell)
    if slashed:
        cell = "-".join(part.zfill(2) for part in slashed.groups() if part)
    if not re.match(r"^[0-9]{4}-?[0-9]{2}", cell):
        return None  # a year alone is no month, and 15 digits are the name of a site
    try:
        return int(parse_instant(cell)[0].astype("datetime64[M]").astype(np.int64))
    except QueryError:
        return None


def _from_netcdf(source: Source, units: str, found: _Levels, places: dict[str, _Place]) -> None:
    with handles.opened(source) as file:
        if not isinstance(file, handles.CONTAINERS):
            raise InputRefused(f"{source.name} has no variables")
        container = file.container()
        variable, time, along = _level_variable(container)
        stated = variable.text("units")
        if stated and not same(stated, units):
            raise InputRefused(f"{source.name}: {variable.name} is in {stated!r}, and {units!r} is asked for")
        reference = clock.parse_reference(
            f"{source.name}: {time.name}", time.text("units"), time.text("calendar") or None
        )
        instants = clock.decode(f"{source.name}: {time.name}", time.values(), reference)
        months = instants.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64).tolist()
        packing = cf.packing_of(variable, classic=container.zarr_format is None)
        values = packing.decode(packing.read(variable.read((slice(None), slice(None)))))
        if variable.dimensions[0] == along:
            values = values.T
        names = _names(container, along, values.shape[1])
        own = {role: _along(container, along, role) for role in ("longitude", "latitude")}
        shares = next((container.variables[n] for n in _YIELD if n in container.variables), None)
        yields = np.full(len(names), np.nan) if shares is None else cf.decoded(shares)
    if np.isinf(values).any():
        raise InputRefused(f"{source.name}: {variable.name} holds infinite values")
    for number, name in enumerate(names):
        found.sites.setdefault(name)
        if not (np.isnan(yields[number]) or 0 < yields[number] <= 1):
            raise InputRefused(f"{source.name}: well {name}: a specific yield of {yields[number]:g} is not in 0..1")
        places[name] = _Place(
            longitude=own["longitude"][number], latitude=own["latitude"][number], specific_yield=float(yields[number])
        )
    for row, number in np.argwhere(~np.isnan(values)).tolist():
        found.add(names[number], months[row], float(values[row, number]))


def _level_variable(container: cf.Container) -> tuple[cf.Variable, cf.Variable, str]:
    """The one variable along times and sites, its times, and the dimension of sites."""
    usable: list[tuple[cf.Variable, cf.Variable, str]] = []
    for variable in container.variables.values():
        if len(variable.dimensions) != 2 or variable.dtype.kind not in "iuf":
            continue
        for number, dimension in enumerate(variable.dimensions):
            time = next((c for c in container.along(dimension) if cf.coordinate_role(c) == "time"), None)
            if time is not None and not cf.is_bounds(container, variable):
                usable.append((variable, time, variable.dimensions[1 - number]))
    if len(usable) != 1:
        told = ", ".join(variable.name for variable, _, _ in usable) or "none"
        raise InputRefused(f"{container.name}: one variable along times and sites is wanted, and it has {told}")
    return usable[0]


def _along(container: cf.Container, dimension: str, role: str) -> list[float]:
    for variable in container.along(dimension):
        if cf.coordinate_role(variable) == role:
            values = cf.decoded(variable)
            limit = 90.0 if role == "latitude" else 360.0
            if (np.abs(values) > limit).any():
                raise InputRefused(f"{container.name}: {variable.name} holds a {role} beyond {limit:g} degrees")
            found: list[float] = values.tolist()
            return found
    raise InputRefused(f"{container.name} has no {role} along {dimension}")


def _names(container: cf.Container, dimension: str, count: int) -> list[str]:
    """Names of the sites: text or whole numbers along their dimension; else they are numbered from 1."""
    beside = [container.variables[key] for key in (dimension, *_SITE) if key in container.variables]
    names = next((_texts(variable) for variable in beside if variable.dimensions[:1] == (dimension,)), [])
    names = names or [str(number + 1) for number in range(count)]
    name, times = Counter(names).most_common(1)[0]
    if times > 1 or "" in names:
        raise InputRefused(f"{container.name} has {times} sites of the name {name!r}")
    return names


def _texts(variable: cf.Variable) -> list[str]:
    values: Any = variable.read((slice(None),) * len(variable.shape))
    if values.ndim == 2:  # characters of a classic file
        return [b"".join(bytes(letter) for letter in row).rstrip(b"\x00 ").decode("utf-8", "replace") for row in values]
    return [
        (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).rstrip("\x00 ")
        for value in values.tolist()
    ]
