"""The published series at wells, beside the conservative bilinear interpolation of the coarse field there."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.errors import InputRefused, PositionOutside
from services.core.grid import Window
from services.products.gwsa.declaration import FACTOR, FILLED, GWSA, UNCERTAINTY
from services.products.gwsa.inputs import SETTINGS
from services.products.gwsa.levels import read_levels
from services.products.gwsa.validation.published import Published, decoded
from services.validation import selection, sites, trend
from services.validation.report import NotComputed
from services.validation.selection import LOOSE, STRICT, Rules, Wells

type Floats = NDArray[np.float64]

SPAN_SHARE = 0.8
"""Of the published years, those that a well must span where rules ask for more than are published (our choice)."""

RULES = {"strict": STRICT, "loose": LOOSE}


@dataclass(frozen=True, kw_only=True)
class AtWells:
    """Wells and the published series at them, in the months that both may have."""

    wells: Wells
    """Storage, cm."""

    cells: NDArray[np.int64]
    """Number of the version's cell that each well lies in, ``(site,)``; -1 outside."""

    field: Floats
    """Published, ``(time, site)``, cm."""

    uncertainty: Floats
    """Published, the same."""

    filled: NDArray[np.bool_]
    """Whether GRACE did not see the month, ``(time,)``."""

    reference: Floats
    """Conservative bilinear interpolation of the coarse field, ``(time, site)``, cm."""

    without_yield: int
    """Wells that are not among them."""

    fallback_yield: int
    """Wells whose specific yield is the one that gwsa.toml declares for all."""


def at_wells(published: Published, note: Callable[[str], None]) -> AtWells:
    """Read the wells, and the published series at them.

    Args:
        published: the version.
        note: told how far it is.

    Raises:
        NotComputed: if there are no wells, or none in the version and its months.
        InputRefused: if the files do not hold.
    """
    read = read_levels(published.source)
    if read is None:
        raise NotComputed(f"{SETTINGS} names no wells")
    levels, fallback = read
    known = ~np.isnan(levels.specific_yield)
    starts = published.dataset.time.starts
    months = np.array([month for month in starts if month in levels.months], dtype=np.int64)
    if not months.size:
        raise NotComputed("no well was read in a published month")
    wells = Wells(
        names=tuple(name for name, kept in zip(levels.sites, known, strict=True) if kept),
        longitudes=levels.longitude[known],
        latitudes=levels.latitude[known],
        months=months,
        storage=levels.storage()[np.searchsorted(levels.months, months)][:, known],
    )
    positions = [starts.index(month) for month in months.tolist()]
    rows, columns = _places(published, wells)
    inside = rows >= 0
    if not inside.any():
        raise NotComputed(f"none of {len(rows)} wells lies in the version")
    shape = wells.storage.shape
    field, sigma, reference = (np.full(shape, np.nan) for _ in range(3))
    filled = np.zeros(shape, dtype=np.bool_)
    for tile, members in _by_cell(published, rows, columns).items():
        window = _of_cell(published, tile)
        here = (slice(None), rows[members] - window.row, columns[members] - window.column)
        for into, quantity in ((field, GWSA), (sigma, UNCERTAINTY)):
            into[:, members] = decoded(quantity, published.dataset.read_series(quantity, positions, window))[here]
        filled[:, members] = decoded(FILLED, published.dataset.read_series(FILLED, positions, window))[here] == 1
    groups = _by_cell(published, rows, columns, cells=8)
    for number, (corner, members) in enumerate(groups.items(), start=1):
        note(f"wells: reference field, {number} of {len(groups)} squares of 2 degrees")
        reference[:, members] = _reference(published, positions, corner, rows[members], columns[members])
    width = published.dataset.product.grid.width
    return AtWells(
        wells=wells,
        cells=np.where(inside, rows * width + columns, -1),
        field=field,
        uncertainty=sigma,
        filled=filled.any(axis=1),
        reference=reference,
        without_yield=int((~known).sum()),
        fallback_yield=fallback,
    )


def scores(at: AtWells) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, sites.Scores]]:
    """Score the field by the wells, under strict and under loose rules.

    Returns:
        JSON data, a row for each well, and the scores of the rules that could be kept.
    """
    years = (int(at.wells.months[-1]) - int(at.wells.months[0]) + 1) / 12
    told: dict[str, Any] = {
        "months": len(at.wells.months),
        "wells_without_specific_yield": at.without_yield,
        "wells_with_the_declared_specific_yield": at.fallback_yield,
    }
    found: dict[str, sites.Scores] = {}
    reasons: dict[str, tuple[str, ...]] = {}
    for name, asked in RULES.items():
        rules = _kept(asked, years)
        reasons[name] = tuple(
            selection.left_out(at.wells, site, _seen(at)[:, site], rules) for site in range(len(at.wells.names))
        )
        counted = Counter(reasons[name])
        excluded = {reason: counted[reason] for reason in selection.REASONS}
        try:
            found[name] = sites.score(at.wells, at.field, at.cells, reference=at.reference, rules=rules)
            told[name] = found[name].to_json()
        except InputRefused as error:
            told[name] = {"not_computed": str(error), "wells": len(reasons[name]), "excluded": excluded}
        if rules != asked:
            told[name]["shortened"] = (
                f"{years:g} years are published: wells must span {rules.least_years:g} years, not {asked.least_years:g}"
            )
    return told, _rows(at, reasons), found


def _places(published: Published, wells: Wells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each well in the version, -1 outside."""
    found = np.full((2, len(wells.names)), -1, dtype=np.int64)
    for site, (longitude, latitude) in enumerate(zip(wells.longitudes, wells.latitudes, strict=True)):
        try:
            found[:, site] = published.dataset.product.grid.locate(float(longitude), float(latitude))
        except PositionOutside:
            continue
    return found[0], found[1]


def _by_cell(
    published: Published, rows: NDArray[np.int64], columns: NDArray[np.int64], cells: int = 1
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Wells by the square of so many coarse cells that they lie in: its row and column on COARSE -> sites."""
    side = FACTOR * cells
    squares = {
        ((int(row) + published.row) // side * cells, (int(column) + published.column) // side * cells)
        for row, column in zip(rows, columns, strict=True)
        if row >= 0
    }
    found = {}
    for top, left in sorted(squares):
        same = ((rows + published.row) // side * cells == top) & ((columns + published.column) // side * cells == left)
        found[top, left] = np.flatnonzero(same & (rows >= 0))
    return found


def _of_cell(published: Published, cell: tuple[int, int]) -> Window:
    """The part of a coarse cell that lies in the version, as cells of it."""
    grid = published.dataset.product.grid
    top, left = cell[0] * FACTOR - published.row, cell[1] * FACTOR - published.column
    row, column = max(top, 0), max(left, 0)
    return Window(
        row=row,
        column=column,
        height=min(top + FACTOR, grid.height) - row,
        width=min(left + FACTOR, grid.width) - column,
    )


def _reference(
    published: Published,
    positions: list[int],
    corner: tuple[int, int],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Floats:
    """The field without detail at wells in a square of 8 coarse cells, ``(time, site)``."""
    fine = (rows + published.row, columns + published.column)
    top, left = (int(part.min()) // FACTOR for part in fine)
    bottom, right = (int(part.max()) // FACTOR + 1 for part in fine)
    tile = Window(row=max(top, corner[0]), column=max(left, corner[1]), height=bottom - top, width=right - left)
    at = (fine[0] - tile.row * FACTOR, fine[1] - tile.column * FACTOR)
    return np.stack([decoded(GWSA, stored[at]) for stored in published.plain(positions, tile)])


def _kept(rules: Rules, years: float) -> Rules:
    """Rules that wells can keep in the published years."""
    return replace(rules, least_years=round(min(rules.least_years, SPAN_SHARE * years), 3))


def _seen(at: AtWells) -> NDArray[np.bool_]:
    seen: NDArray[np.bool_] = np.isfinite(at.field) & np.isfinite(at.reference) & (at.cells >= 0)
    return seen


def _rows(at: AtWells, reasons: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """One for each well: where it is, why it is left out, and how the series agree."""
    both = _seen(at) & ~np.isnan(at.wells.storage)
    series = {
        "well": np.where(both, at.wells.storage, np.nan),
        "field": np.where(both, at.field, np.nan),
        "reference": np.where(both, at.reference, np.nan),
    }
    found = []
    for site, name in enumerate(at.wells.names):
        months = int(both[:, site].sum())
        annual = selection.tells_annual(at.wells.months[both[:, site]])
        row: dict[str, Any] = {
            "well": name,
            "longitude": float(at.wells.longitudes[site]),
            "latitude": float(at.wells.latitudes[site]),
            "months": months,
            **{f"left_out_{rules}": of[site] for rules, of in reasons.items()},
            "annual_cycle_fitted": annual,
        }
        for kind, values in series.items():
            slope = trend.ols(
                values[:, site : site + 1],
                at.wells.months,
                harmonics=1 if annual else 0,
                least=selection.ANNUAL_READINGS if annual else 3,
            ).slope
            row[f"trend_{kind}_cm_a_year"] = float(slope[0])
        for kind in ("field", "reference"):
            row[f"correlation_{kind}"] = _correlation(series["well"][:, site], series[kind][:, site])
        found.append(row)
    return found


def _correlation(one: Floats, other: Floats) -> float:
    known = ~np.isnan(one) & ~np.isnan(other)
    if known.sum() < 3:
        return float("nan")
    parts = [values[known] - values[known].mean() for values in (one, other)]
    spread = np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum())
    return float((parts[0] * parts[1]).sum() / spread) if spread > 1e-12 else float("nan")
