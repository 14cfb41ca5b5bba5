"""The published series at TCCON's stations: the cell that holds each, and the mean of SIZE x SIZE about it.

TCCON's months are means of its days of spectra between 12 and 14 h local solar time (``services.validation.
colocation``). Stations took no part in the training; soundings near them did.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, PositionOutside
from services.core.grid import Window
from services.products.xco2_global.declaration import INFERRED, UNCERTAINTY, XCO2
from services.products.xco2_global.inputs import SETTINGS
from services.products.xco2_global.validation.guesses import Guesses
from services.products.xco2_global.validation.points import Points, Values, features, said_by
from services.products.xco2_global.validation.published import Published
from services.products.xco2_global.validation.scores import INTERVAL, LEVELS
from services.sources.tccon import Station, open_tccon
from services.validation import agreement, colocation
from services.validation.report import NotComputed, Rows

SIZE = 5
"""Cells along a side of the mean."""


@dataclass(frozen=True, kw_only=True)
class AtStations:
    """Months that both have; arrays are ``(pair,)`` unless said otherwise."""

    stations: tuple[Station, ...]
    """All that lie in the version."""

    outside: tuple[str, ...]
    """Stations beyond it, by their two letters."""

    station: NDArray[np.int64] = field(repr=False)
    """Number of each pair's station."""

    at: Points = field(repr=False)
    """Cells of the settings' grid."""

    reference: Values = field(repr=False)
    """TCCON's month, ppm."""

    error: Values = field(repr=False)
    """Standard error of that mean by the scatter of its days, ppm."""

    stated: Values = field(repr=False)
    """Mean of the station's stated errors of a spectrum, ppm: stands for what its days have in common (our choice). NaN
    where none is stated."""

    cell: Values = field(repr=False)
    """Published, in the cell that holds the station, ppm."""

    around: Values = field(repr=False)
    """Area-weighted mean of the cells about it that have a value."""

    sigma: Values = field(repr=False)
    """Published uncertainty in the cell."""

    inferred: NDArray[np.bool_] = field(repr=False)
    """Whether no sounding fell in the cell."""

    @property
    def names(self) -> NDArray[np.str_]:
        """Two letters of each pair's station."""
        return np.array([one.site for one in self.stations])[self.station]

    @property
    def years(self) -> Values:
        """Middle of each pair's month."""
        return (self.at.month + 0.5) / 12


def at_stations(published: Published) -> AtStations:
    """Read TCCON's files, and the published series there.

    Raises:
        NotComputed: if no stations are named, or none has a month that is published.
        InputRefused: if a file does not hold, or is on another scale.
    """
    settings, place = published.source.settings.stations, published.source.directory / SETTINGS
    if settings is None:
        raise NotComputed(f"{SETTINGS} names no stations")
    found = open_tccon(
        settings.paths(place, "stations"), scale=published.source.soundings.scale, convert=settings.convert
    )
    stations, outside = [], []
    columns: list[dict[str, Any]] = []
    for one in found.stations:
        try:
            columns.append(_pairs(published, one))
        except PositionOutside:
            outside.append(one.site)
            continue
        stations.append(one)
    counts = [len(part["month"]) for part in columns]
    if not sum(counts):
        beyond = f"; {len(outside)} of them lie outside of the grid" if outside else ""
        raise NotComputed(
            f"none of {len(found.stations)} stations has a month with enough spectra that is published{beyond}"
        )
    joined = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return AtStations(
        stations=tuple(stations),
        outside=tuple(outside),
        station=np.repeat(np.arange(len(stations)), counts),
        at=Points(**{name: joined.pop(name) for name in ("month", "row", "column")}),
        **joined,
    )


def _pairs(published: Published, station: Station) -> dict[str, Any]:
    """Months of a station that are published."""
    grid, spectra = published.dataset.product.grid, station.spectra
    middle = colocation.cells_about(grid, station.longitude, station.latitude)
    window = colocation.cells_about(grid, station.longitude, station.latitude, size=SIZE)
    months = colocation.monthly(spectra.time, spectra.xco2, station.longitude)
    starts = np.array(published.dataset.time.starts)
    values, sigma, inferred = (published.series(one, window) for one in (XCO2, UNCERTAINTY, INFERRED))
    inner = (slice(None), middle.row - window.row, middle.column - window.column)
    both, mine, theirs = np.intersect1d(starts, months.period, return_indices=True)
    known = np.isfinite(values[inner][mine])
    both, mine, theirs = both[known], mine[known], theirs[known]
    noon = colocation.local_hours(spectra.time, station.longitude)
    stated = spectra.error[(noon >= colocation.NOON[0]) & (noon < colocation.NOON[1])]
    cell = published.whole(middle)
    return {
        "month": both.astype(np.int64),
        "row": np.full(len(both), cell.row),
        "column": np.full(len(both), cell.column),
        "reference": months.xco2[theirs],
        "error": months.error[theirs],
        "stated": np.full(len(both), stated.mean() if len(stated) else np.nan),
        "cell": values[inner][mine],
        "around": _mean(values[mine], grid.row_areas_km2, window),
        "sigma": sigma[inner][mine],
        "inferred": inferred[inner][mine] == 1,
    }


def _mean(values: Values, row_areas: Values, window: Window) -> Values:
    """Of the cells of a window that have a value, by area, ``(time,)``."""
    weight = np.isfinite(values) * row_areas[window.rows][:, np.newaxis]
    mean: Values = (np.nan_to_num(values) * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    return mean


def said_at(published: Published, at: AtStations, ready: Guesses | None) -> dict[str, Values]:
    """What guesses that are fitted to all cells with soundings, and the network alone, say at the pairs.

    Returns:
        ppm, ``(pair,)`` for each.
    """
    source = published.source
    said = {} if ready is None else ready.said(at.at, features(source, at.at))
    if published.network is not None:
        said["network"] = said_by(published.network, source, at.at)[0]
    return said


def scores(published: Published, at: AtStations, said: dict[str, Values]) -> tuple[dict[str, Any], Rows]:
    """Score the version, and all that is said beside it, on the pairs.

    Args:
        published: the version.
        at: the pairs.
        said: ppm, ``(pair,)`` for each name.

    Returns:
        JSON data, and a row for each station.
    """
    answers = {"published": at.cell, f"published_{SIZE}x{SIZE}": at.around, **said}
    told: dict[str, Any] = {
        "synthetic": published.synthetic,
        "stations": len(np.unique(at.station)),
        "stations_outside": list(at.outside),
        "pairs": len(at.reference),
        "pairs_without_soundings_in_the_cell": int(at.inferred.sum()),
        "rule": f"months of at least {colocation.LEAST_SPECTRA} spectra on {colocation.LEAST_DAYS} days, "
        f"{colocation.NOON[0]:g}..{colocation.NOON[1]:g} h local solar time, against the cell that holds the station",
        "intervals": f"{INTERVAL:.0%}, whole stations drawn",
        "coverage": _coverage(at),
        "methods": {name: _told(at, values) for name, values in answers.items()},
        "rmse_difference": {name: _apart(at, values) for name, values in answers.items() if name != "published"},
    }
    return told, [_row(at, number, said) for number in range(len(at.stations))]


def _told(at: AtStations, values: Values) -> dict[str, Any]:
    """Of all pairs together; None where stations are too few."""
    known = np.isfinite(values)
    if not known.any():
        return {"not_computed": "it says nothing at any pair"}
    one, other, names = values[known], at.reference[known], at.names[known]
    found = agreement.table(one, other, names)
    told: dict[str, Any] = {**found.pooled.to_json(), "spread_of_station_biases": found.bias_spread}
    told["detrended"] = _detrended(one, other, at.years[known], names)
    if len(np.unique(names)) > 1:
        told["intervals"] = agreement.intervals(one, other, names, level=INTERVAL)
    return told


def _detrended(values: Values, reference: Values, years: Values, names: NDArray[np.str_]) -> dict[str, Any]:
    try:
        left = agreement.detrended(values, reference, years, names)
    except InputRefused as error:
        return {"not_computed": str(error)}
    return {**left.agreement().to_json(), "stations_too_short": list(left.left_out)}


def _apart(at: AtStations, values: Values) -> dict[str, Any]:
    """RMSE of the published less another's, with its interval over stations."""
    known = np.isfinite(values)
    if len(np.unique(at.station[known])) < 2:
        return {"not_computed": "a single station has nothing to be drawn against"}
    difference, low, high = agreement.difference_interval(
        at.cell[known], values[known], at.reference[known], at.station[known], level=INTERVAL
    )
    return {"difference": difference, "low": low, "high": high}


def _coverage(at: AtStations) -> dict[str, Any]:
    """Share of TCCON's months within the published intervals, without and with errors of TCCON's own."""
    months = np.sqrt(at.sigma**2 + at.error**2)
    stated = np.sqrt(months**2 + at.stated**2)
    found: dict[str, Any] = {}
    for name, sigma in (
        ("alone", at.sigma),
        ("with_error_of_the_months_mean", months),
        ("with_stated_error_of_a_spectrum_too", stated),
    ):
        known = np.isfinite(sigma)
        found[name] = (
            {
                "pairs": int(known.sum()),
                "share_within": {
                    f"{level:g}": agreement.coverage(at.cell[known], at.reference[known], sigma[known], level=level)
                    for level in LEVELS
                },
            }
            if known.any()
            else {"not_computed": "TCCON states no error"}
        )
    return found


def _row(at: AtStations, number: int, said: dict[str, Values]) -> dict[str, Any]:
    station, own = at.stations[number], at.station == number
    row: dict[str, Any] = {
        "site": station.site,
        "name": station.name,
        "place": station.place,
        "longitude": station.longitude,
        "latitude": station.latitude,
        "altitude_m": float(np.median(station.spectra.altitude)),
        "versions": " ".join(station.versions),
        "months": int(own.sum()),
    }
    if not own.any():
        return row
    reference, years, names = at.reference[own], at.years[own], at.names[own]
    row["months_without_soundings_in_the_cell"] = int(at.inferred[own].sum())
    for name, values in (("", at.cell[own]), (f"_{SIZE}x{SIZE}", at.around[own])):
        found = agreement.agreement(values, reference).to_json()
        row |= {f"{key}{name}": found[key] for key in ("bias", "rmse", "mae", "r2", "r2_pearson", "slope")}
        row[f"r2_detrended{name}"] = _detrended(values, reference, years, names).get("r2")
    sigma = np.sqrt(at.sigma[own] ** 2 + at.error[own] ** 2)
    if np.isfinite(sigma).all():
        row["within_95_percent_interval"] = agreement.coverage(at.cell[own], reference, sigma, level=INTERVAL)
    for name, values in said.items():
        if np.isfinite(values[own]).all():
            row[f"rmse_{name}"] = agreement.agreement(values[own], reference).rmse
    return row
