"""TCCON: columns of CO2 seen from the ground, in the public NetCDF files of GGG2014 and GGG2020 and in tables of them.

GGG2020 (``hw20210530_20240331.public.qc.nc``; read from a real file): ``time``, ``xco2`` on X2007 and ``xco2_x2019``
on X2019 with an error each, ``lat``, ``long``, ``zobs``, and along altitudes ``ak_xco2``, ``prior_co2`` and
``integration_operator``. GGG2014 (``rj20131116_20170315.public.nc``; from the header that Caltech's archive shows):
units stand in the names, ``xco2_ppm``, ``xco2_ppm_error``, ``lat_deg``, ``long_deg``, ``zobs_km``, beside ``time`` or
``year``, ``day`` and ``hour``; -1e38 is missing; all of it is on X2007. Tables have a line a spectrum, of GGG2014.
Public files hold spectra that passed their site's checks; where there is a ``flag``, those of flag 0 are read.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused
from services.pipeline.recipe import Input
from services.sources import cf, clock, co2_scale, documents, files, handles, tccon_sites
from services.sources.co2_scale import Scale
from services.sources.documents import Document
from services.sources.files import Source
from services.sources.units import mole_fraction

type Floats = NDArray[np.float64]

LEAST, MOST = 250.0, 600.0
"""ppm beyond which no column of this century lies: it is another unit, or a fill that nobody declared. Our choice."""

_NAMED = re.compile(r"^([a-z]{2})[0-9]{8}_[0-9]{8}\.public\b")
_TABLE = re.compile(r"^([a-z]+[0-9]*)(?:_tccon)?\.csv(?:\.gz)?$", re.IGNORECASE)
_LATITUDE, _LONGITUDE, _ALTITUDE = ("lat", "lat_deg"), ("long", "long_deg"), ("zobs", "zobs_km")
_NO_TIME = np.datetime64("NaT", "us").astype(np.int64)
_COLUMNS = ("tccon_datetime", "tccon_xco2", "tccon_error", "tccon_latitude", "tccon_longitude")


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Columns that were measured at one site; every array is ``(spectrum,)`` float64.

    Raises:
        InputRefused: if the arrays contradict each other, or times do not rise.
    """

    time: Floats = field(repr=False)
    """Seconds since 1970-01-01 UTC, never falling."""

    xco2: Floats = field(repr=False)
    """ppm."""

    error: Floats = field(repr=False)
    """One-sigma precision of a spectrum, ppm; NaN where none is stated."""

    latitude: Floats = field(repr=False)
    longitude: Floats = field(repr=False)
    """Degrees east, -180..180."""

    altitude: Floats = field(repr=False)
    """Metres above the sea; NaN where none is stated."""

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if values.shape != self.time.shape:
                raise InputRefused(f"spectra: {self.time.shape} times and {name} of shape {values.shape}")
        if not np.isfinite(self.xco2).all() or not np.isfinite(self.time).all() or (np.diff(self.time) < 0).any():
            raise InputRefused("spectra: each has a time and a column, and times do not fall")

    def __len__(self) -> int:
        return len(self.time)

    def take(self, which: NDArray[Any]) -> "Spectra":
        """Some of them, by number or by mask."""
        return Spectra(**{name: values[which] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Station:
    """A site and what it measured."""

    site: str
    """TCCON's two letters, as ``pa``."""

    name: str
    """TCCON's long name, as ``parkfalls01``; the number tells instruments of a site apart."""

    place: str
    """For people, as ``Park Falls, Wisconsin, USA``."""

    spectra: Spectra

    versions: tuple[str, ...]
    """``GGG2014`` or ``GGG2020``, or both where files of both follow one another."""

    @property
    def latitude(self) -> float:
        """Median over the spectra, degrees north."""
        return float(np.median(self.spectra.latitude))

    @property
    def longitude(self) -> float:
        """Median over the spectra, degrees east."""
        return float(np.median(self.spectra.longitude))


@dataclass(frozen=True, kw_only=True)
class Tccon:
    """Stations, all on one scale."""

    scale: Scale
    stations: tuple[Station, ...]
    """By their two letters."""

    sources: tuple[Source, ...]
    """NetCDF files, with their digests."""

    documents: tuple[Document, ...]
    """Tables."""

    notes: tuple[str, ...]
    """What was done to the values, a sentence each."""

    def inputs(self) -> tuple[Input, ...]:
        """The files, as a recipe names what it was made from."""
        of_sources = (Input(name=one.name, size=one.size, sha256=one.sha256) for one in self.sources)
        return (*of_sources, *(document.input() for document in self.documents))

    def check_unchanged(self) -> None:
        """Look at the files again.

        Raises:
            InputRefused: if one is not what it was.
        """
        for source in self.sources:
            files.check_unchanged(source)
        for document in self.documents:
            document.check_unchanged()


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """What a GGG2020 file says along altitudes, of every spectrum that it holds, ``(spectrum, level)`` float64.

    TCCON's column average of any profile is the sum of ``operator`` times its wet mole fractions.
    """

    prior_co2: Floats = field(repr=False)
    """Prior, wet mole fraction in ppm."""

    operator: Floats = field(repr=False)
    """What integrates a wet mole fraction to a dry column average, on the scale asked for."""

    averaging_kernel: Floats = field(repr=False)
    """Of the column; 1 where the retrieval sees all of a layer."""

    prior_xco2: Floats = field(repr=False)
    """The file's own column average of the prior, ``(spectrum,)`` ppm."""

    def column(self, profiles: NDArray[np.floating[Any]]) -> Floats:
        """Column averages ``(spectrum,)`` of wet mole fractions ``(spectrum, level)``, in their unit."""
        found: Floats = np.einsum("sl,sl->s", self.operator, profiles.astype(np.float64))
        return found


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one file holds."""

    label: str
    site: str
    name: str
    place: str
    version: str
    spectra: Spectra
    dropped: int
    """Spectra of another flag than 0."""

    stated: Scale


def open_tccon(names: Sequence[str], *, scale: str = "X2019", convert: bool = False) -> Tccon:
    """Read stations.

    Args:
        names: paths, globs or URLs of public NetCDF files, and paths or globs of tables (``parkfalls01_tccon.csv.gz``).
        scale: that of the run. GGG2020 files hold both; GGG2014 is on X2007.
        convert: whether values on the other scale are converted (``co2_scale``), as GGG2014 to X2019.

    Raises:
        InputRefused: if a file is none of TCCON's, is on another scale, or two hold the same days of a site.
        SettingsError: if there is no such scale.
    """
    wanted = co2_scale.parsed(scale)
    tables, rasters = _sorted(names)
    sources = files.hashed(files.found(rasters)) if rasters else ()
    read: list[Document] = []
    parts = [_from_netcdf(source, wanted) for source in sources]
    for table in tables:
        document, body = documents.read(table)
        read.append(document)
        parts.append(_from_table(table, body))
    notes: list[str] = []
    parts = [_on_scale(part, wanted, convert, notes) for part in parts]
    notes += [f"{p.label}: {p.dropped} spectra of another flag than 0 left out" for p in parts if p.dropped]
    sites = sorted({part.site for part in parts})
    return Tccon(
        scale=wanted,
        stations=tuple(_station([part for part in parts if part.site == site]) for site in sites),
        sources=tuple(sources),
        documents=tuple(read),
        notes=tuple(dict.fromkeys(notes)),
    )


def open_profiles(name: str, *, scale: str = "X2019") -> Profiles:
    """Read priors, averaging kernels and integration operators of a GGG2020 file, whole.

    Args:
        name: path or URL of one file.
        scale: whose integration operator and column of the prior are wanted.

    Raises:
        InputRefused: if they are not there.
        SettingsError: if there is no such scale.
    """
    tail = "_x2019" if co2_scale.parsed(scale) == "X2019" else ""
    (source,) = files.found([name])
    with handles.opened(source) as file:
        container = _container(source, file)
        wanted = ("prior_co2", f"integration_operator{tail}", "ak_xco2", f"prior_xco2{tail}")
        lacking = [key for key in wanted if key not in container.variables]
        if lacking:
            raise InputRefused(f"{source.name} has no {' and no '.join(lacking)}; GGG2020's files have them")
        prior, operator, kernel, column = (cf.decoded(container.variables[key]) for key in wanted)
        units = [container.variables[key].text("units") for key in (wanted[0], wanted[3])]
    if not prior.shape == operator.shape == kernel.shape or column.shape != prior.shape[:1]:
        raise InputRefused(f"{source.name}: priors {prior.shape} do not fit operators {operator.shape}")
    return Profiles(
        prior_co2=prior * mole_fraction(f"{source.name}: {wanted[0]}", units[0]),
        operator=operator,
        averaging_kernel=kernel,
        prior_xco2=column * mole_fraction(f"{source.name}: {wanted[3]}", units[1]),
    )


def _sorted(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tables and others, globs of tables spelled out."""
    tables: list[str] = []
    rest: list[str] = []
    for name in names:
        if not name.lower().endswith((".csv", ".csv.gz")):
            rest.append(name)
        elif any(mark in name for mark in "*?[") and not Path(name).exists():
            folder, _, pattern = name.rpartition("/")
            matches = sorted(str(path) for path in Path(folder or ".").glob(pattern))
            if not matches:
                raise InputRefused(f"no file matches {name}")
            tables += matches
        else:
            tables.append(name)
    if not tables and not rest:
        raise InputRefused("no file of TCCON is named")
    return tables, rest


def _container(source: Source, file: Any) -> cf.Container:
    if not isinstance(file, handles.CONTAINERS):
        raise InputRefused(f"{source.name} is no NetCDF file, as TCCON's are")
    return file.container()


def _from_netcdf(source: Source, wanted: Scale) -> _Part:
    with handles.opened(source) as file:
        container = _container(source, file)
        variables = container.variables
        if "xco2" in variables:
            version, base = "GGG2020", "xco2"
            stated: Scale = wanted if "xco2_x2019" in variables else "X2007"
            column, beside = ("xco2_x2019", "xco2_error_x2019") if stated == "X2019" else ("xco2", "xco2_error")
        elif "xco2_ppm" in variables:
            version, base, stated, column, beside = "GGG2014", "xco2_ppm", "X2007", "xco2_ppm", "xco2_ppm_error"
        else:
            raise InputRefused(
                f"{source.name} has neither xco2 (GGG2020) nor xco2_ppm (GGG2014): it is none of TCCON's"
            )
        said = co2_scale.named(variables[column].text("wmo_or_analogous_scale"))
        if said not in {None, stated}:
            raise InputRefused(f"{source.name}: {column} says that it is on {said}, and {stated} is meant")
        xco2 = _in_ppm(source, variables[column], base)
        error = _in_ppm(source, variables[beside], base) if beside in variables else np.full(xco2.shape, np.nan)
        time = _times(source, container)
        latitude, longitude = (_first_of(source, container, keys) for keys in (_LATITUDE, _LONGITUDE))
        altitude = np.full(xco2.shape, np.nan)
        if any(key in variables for key in _ALTITUDE):
            altitude = 1000.0 * _first_of(source, container, _ALTITUDE)
        flag = cf.decoded(variables["flag"]) if "flag" in variables else np.zeros(xco2.shape)
        long_name = _text(container, "long_name") or _text(container, "longName")
        place = _text(container, "short_location") or _text(container, "Location") or _text(container, "location")
    site, name = _site(source.name, long_name)
    kept = np.isfinite(xco2) & (flag == 0)
    if not kept.any():
        raise InputRefused(f"{source.name} holds no spectrum with a column and flag 0, of {xco2.size}")
    spectra = _spectra(source.name, [c[kept] for c in (time, xco2, error, latitude, longitude, altitude)])
    return _Part(
        label=source.name,
        site=site,
        name=name,
        place=place or name,
        version=version,
        spectra=spectra,
        dropped=int((np.isfinite(xco2) & (flag != 0)).sum()),
        stated=stated,
    )


def _from_table(name: str, body: bytes) -> _Part:
    found = _TABLE.match(name.rpartition("/")[2])
    if not found:
        raise InputRefused(
            f"{name} is not named as a table of TCCON, parkfalls01_tccon.csv; nothing else says its site"
        )
    reader = csv.reader(io.StringIO(documents.text(name, body), newline=""), strict=True)
    header = [cell.strip() for cell in next(reader, [])]
    lacking = [column for column in _COLUMNS if column not in header]
    if lacking:
        raise InputRefused(f"{name} has no column {' and no '.join(lacking)} (it has {', '.join(header)})")
    places = [header.index(column) for column in _COLUMNS]
    rows: list[list[float]] = []
    for row in reader:
        if len(row) != len(header):
            raise InputRefused(f"{name}, line {reader.line_num}: {len(row)} cells, and the header has {len(header)}")
        moment, *rest = (row[place] for place in places)
        rows.append([_instant(name, reader.line_num, moment), *(_number(name, reader.line_num, cell) for cell in rest)])
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(_COLUMNS)).T
    kept = np.isfinite(values[1])
    if not kept.any():
        raise InputRefused(f"{name} holds no spectrum with a column")
    site, long_name = _site(name, found[1].lower())
    spectra = _spectra(name, [*values[:, kept], np.full(int(kept.sum()), np.nan)])
    return _Part(
        label=name,
        site=site,
        name=long_name,
        place=tccon_sites.place(site) or long_name,
        version="GGG2014",
        spectra=spectra,
        dropped=0,
        stated="X2007",
    )


def _spectra(name: str, columns: Sequence[Floats]) -> Spectra:
    """Spectra in the order of their times.

    Raises:
        InputRefused: if a column or a place cannot be.
    """
    time, xco2, error, latitude, longitude, altitude = columns
    wrong = np.flatnonzero((xco2 < LEAST) | (xco2 > MOST))
    if wrong.size:
        raise InputRefused(
            f"{name}: a column of {xco2[wrong[0]]:g} ppm is not within {LEAST:g}..{MOST:g}: another unit, or a missing "
            "value that is not declared"
        )
    if (error < 0).any():
        raise InputRefused(f"{name}: an error of {np.nanmin(error):g} ppm is below 0")
    if not ((np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)).all():
        raise InputRefused(f"{name}: a spectrum has no latitude and longitude in degrees")
    order = np.argsort(time, kind="stable")
    east = (longitude + 180.0) % 360.0 - 180.0
    return Spectra(
        time=time[order],
        xco2=xco2[order],
        error=error[order],
        latitude=latitude[order],
        longitude=east[order],
        altitude=altitude[order],
    )


def _on_scale(part: _Part, wanted: Scale, convert: bool, notes: list[str]) -> _Part:  # noqa: FBT001 - our own
    co2_scale.check(part.label, stated=part.stated, wanted=wanted, convert=convert)
    if part.stated == wanted:
        return part
    notes.append(f"{part.version}: {part.stated} converted to {wanted} as samples in tanks are (Hall et al., 2021)")
    spectra = replace(
        part.spectra,
        xco2=co2_scale.converted(part.spectra.xco2, stated=part.stated, wanted=wanted),
        error=part.spectra.error * co2_scale.factor(stated=part.stated, wanted=wanted),
    )
    return replace(part, spectra=spectra, stated=wanted)


def _station(parts: Sequence[_Part]) -> Station:
    """Files of a site, one after the other."""
    ordered = sorted(parts, key=lambda part: part.spectra.time[0])
    for before, after in pairwise(ordered):
        if after.spectra.time[0] <= before.spectra.time[-1]:
            day = np.datetime64(int(after.spectra.time[0]), "s").astype("datetime64[D]")
            raise InputRefused(f"{before.label} and {after.label} both hold spectra of {before.site} from {day} on")
    last = ordered[-1]
    joined = {name: np.concatenate([vars(part.spectra)[name] for part in ordered]) for name in vars(last.spectra)}
    return Station(
        site=last.site,
        name=last.name,
        place=last.place,
        spectra=Spectra(**joined),
        versions=tuple(dict.fromkeys(part.version for part in ordered)),
    )


def _site(label: str, long_name: str | None) -> tuple[str, str]:
    """Two letters and long name, by the name of the file and by what it says."""
    told = _NAMED.match(label.rpartition("/")[2])
    known = None if long_name is None else tccon_sites.site(long_name)
    if told and known and told[1] != known:
        raise InputRefused(f"{label} is named as {told[1]}'s and says that it is {long_name}'s, which is {known}")
    found = told[1] if told else known
    if found is None:
        what = f"{long_name!r}, which is no site of TCCON that is known here" if long_name else "no site"
        raise InputRefused(f"{label} names {what}; TCCON's files begin with two letters, as hw20210530_20240331.public")
    return found, long_name or found


def _in_ppm(source: Source, variable: cf.Variable, base: str) -> Floats:
    """A column in ppm, by its attribute; by its name where it has none."""
    stated = variable.text("units")
    suffix = base.partition("_")[2]
    label = f"{source.name}: {variable.name}"
    unit = mole_fraction(label, stated or suffix or None)
    if stated and suffix and unit != mole_fraction(label, suffix):
        raise InputRefused(f"{label} is in {stated!r} by its attribute and in {suffix} by its name")
    return cf.decoded(variable) * unit


def _times(source: Source, container: cf.Container) -> Floats:
    """Seconds since 1970 of each spectrum."""
    variables = container.variables
    time = variables.get("time")
    if time is not None and clock.is_time_unit(time.text("units")):
        label = f"{source.name}: time"
        reference = clock.parse_reference(label, time.text("units"), time.text("calendar") or None)
        return clock.decode(label, time.values(), reference).astype(np.float64) / clock.SECOND
    if not {"year", "day", "hour"} <= variables.keys():
        raise InputRefused(f"{source.name} has neither a time with its unit nor year, day and hour")
    # the hour counts from that day's midnight UTC and may be below 0 or over 24
    year, day, hour = (cf.decoded(variables[key]) for key in ("year", "day", "hour"))
    if not np.isfinite(year + day + hour).all():
        raise InputRefused(f"{source.name}: a year, day or hour is missing")
    january = (year - 1970).astype(np.int64).astype("datetime64[Y]").astype("datetime64[D]").astype(np.float64)
    found: Floats = (january + day - 1) * 86400.0 + hour * 3600.0
    return found


def _first_of(source: Source, container: cf.Container, keys: Sequence[str]) -> Floats:
    key = next((key for key in keys if key in container.variables), None)
    if key is None:
        raise InputRefused(f"{source.name} has no {' or '.join(keys)}")
    return cf.decoded(container.variables[key])


def _text(container: cf.Container, key: str) -> str | None:
    value = container.attributes.get(key)
    return " ".join(value.split()) if isinstance(value, str) and value.strip() else None


def _instant(name: str, line: int, cell: str) -> float:
    try:
        moment = np.datetime64(cell.strip().replace(" ", "T"), "us").astype(np.int64)
    except ValueError:
        moment = _NO_TIME
    if moment == _NO_TIME:
        raise InputRefused(f"{name}, line {line}: {cell!r} is no time such as 2015-02-10 04:10:26")
    return float(moment) / clock.SECOND


def _number(name: str, line: int, cell: str) -> float:
    if cell.strip().lower() in {"", "na", "nan"}:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputRefused(f"{name}, line {line}: {cell!r} is no number")
    return value
