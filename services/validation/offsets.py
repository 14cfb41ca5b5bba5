"""Offsets between instruments and modes that look at one sky: what each reads more than a reference, in the same cells.

A group (an instrument in a mode) has, in a cell of a month, the cell's true mean, the group's offset and an error:
y_cg = m_c + b_g + e_cg. The true means drop out where groups meet in a cell; what is left is a network of differences
between groups, solved for the offsets by weighted least squares with the reference's set to 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from services.core.errors import InputRefused, SettingsError

type Floats = NDArray[np.float64]
type Whole = NDArray[np.int64]

FLOOR = 0.5
"""Ppm added in quadrature to the error of each mean. Our choice: two groups see a cell on different days of a month,
and a cell of many soundings must not outweigh all others."""

LEAST_CELLS = 5
"""Cells that two groups must share to be taken as connected. Our choice."""

BLOCK = 10.0
"""Degrees of the blocks whose cells of a month are taken to err together. Our choice: a day's weather is as wide."""

HUBER = 1.345
"""Huber's threshold in robust sigmas: 95 % efficient where errors are normal (Huber 1981)."""

MERGED = 2**20
"""Means that wait at most, or as many as are kept, before they are merged."""

_STEPS = 50
_SETTLED = 1e-6
"""Ppm that a step of the reweighting moves no offset by any more."""
_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation of a normal distribution."""


class MeetingCells:
    """Gathers soundings to means by month, cell and group, batch by batch; memory grows with cells, not soundings.

    Args:
        degrees: width of a cell. Our choice of 1: in the 0.05 degrees of a product two modes hardly ever meet.
    """

    def __init__(self, degrees: float = 1.0) -> None:
        if not 0 < degrees <= BLOCK or abs(180.0 / degrees - round(180.0 / degrees)) > 1e-9:
            raise SettingsError(f"cells of {degrees:g} degrees do not part 180 evenly, or are wider than {BLOCK:g}")
        self._degrees = degrees
        self._rows = round(180.0 / degrees)
        self._columns = 2 * self._rows
        self._keys: Whole = np.empty(0, dtype=np.int64)
        self._sums: Floats = np.empty((3, 0))
        self._waiting: list[tuple[Whole, Floats]] = []

    def add(self, months: Whole, latitude: Floats, longitude: Floats, group: Whole, values: Floats) -> None:
        """Add soundings.

        Args:
            months: ``(n,)`` months since 1970-01.
            latitude: ``(n,)`` degrees north.
            longitude: ``(n,)`` degrees east, -180..180.
            group: ``(n,)`` number of the group of each, below 256.
            values: ``(n,)`` ppm, none missing.
        """
        if not values.size:
            return
        if not np.isfinite(values).all() or int(group.min()) < 0 or int(group.max()) > 255:
            raise InputRefused("offsets: a sounding has no value, or its group is not in 0..255")
        row = np.clip(np.floor((90.0 - latitude) / self._degrees).astype(np.int64), 0, self._rows - 1)
        column = np.floor((longitude + 180.0) / self._degrees).astype(np.int64) % self._columns
        keys = ((months * self._rows + row) * self._columns + column) * 256 + group
        # squares about 400 ppm, not 0, lose no digits
        terms = np.stack([np.ones_like(values), values - 400.0, (values - 400.0) ** 2])
        self._waiting.append(_added([(keys, terms)]))
        # merged as often as they double: each batch would sort all that is kept
        if sum(keys.size for keys, _ in self._waiting) > max(self._keys.size, MERGED):
            self._merge()

    def cells(self) -> "Cells":
        """What was gathered. The error of a mean is that of independent soundings; ``FLOOR`` stands for the rest."""
        self._merge()
        count, total, squares = self._sums
        mean = total / count
        variance = np.maximum(squares / count - mean**2, 0.0) * count / np.maximum(count - 1, 1)
        place = self._keys // 256
        return Cells.of(
            months=place // (self._rows * self._columns),
            row=place // self._columns % self._rows,
            column=place % self._columns,
            degrees=self._degrees,
            group=self._keys % 256,
            mean=mean + 400.0,
            error=np.where(count > 1, np.sqrt(variance / count), np.nan),
            count=count.astype(np.int64),
        )

    def _merge(self) -> None:
        self._keys, self._sums = _added([(self._keys, self._sums), *self._waiting])
        self._waiting.clear()


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Means of groups in cells of months, a row each; columns are ``(n,)``.

    Raises:
        InputRefused: if columns differ in length, a mean is missing, or a group has two means in a cell.
    """

    cell: Whole = field(repr=False)
    """One number for cell and month."""

    group: Whole = field(repr=False)
    mean: Floats = field(repr=False)
    """Ppm."""

    error: Floats = field(repr=False)
    """Of the mean, one sigma in ppm; NaN where nothing tells it: such a row weighs as the median of its group's."""

    count: Whole = field(repr=False)
    """Soundings."""

    block: Whole = field(repr=False)
    """One number for all cells of a month that err together."""

    def __post_init__(self) -> None:
        for name in ("group", "mean", "error", "count", "block"):
            if getattr(self, name).shape != self.cell.shape:
                raise InputRefused(f"offsets: {self.cell.size} cells and {name} of shape {getattr(self, name).shape}")
        if not np.isfinite(self.mean).all() or (self.error < 0).any():
            raise InputRefused("offsets: a mean is missing, or an error is negative")
        if np.unique(np.stack([self.cell, self.group]), axis=1).shape[1] != self.cell.size:
            raise InputRefused("offsets: a group has two means in one cell of a month")

    @classmethod
    def of(
        cls,
        *,
        months: Whole,
        row: Whole,
        column: Whole,
        degrees: float,
        group: Whole,
        mean: Floats,
        error: Floats,
        count: Whole,
    ) -> "Cells":
        """Cells of a global grid, row 0 at 90 N and column 0 at 180 W, whose blocks are ``BLOCK`` degrees wide."""
        across, down = round(360.0 / degrees), round(180.0 / degrees)
        wide = round(360.0 / BLOCK)
        north = np.floor(row * degrees / BLOCK).astype(np.int64)
        return cls(
            cell=(months * down + row) * across + column,
            group=group,
            mean=mean,
            error=error,
            count=count,
            block=(months * wide + north) * wide + np.floor(column * degrees / BLOCK).astype(np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence["Cells"]) -> "Cells":
        """Those of several parts, which share no cell of a month."""
        columns = ("cell", "group", "mean", "error", "count", "block")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two groups in the cells that both have."""

    first: str
    second: str
    cells: int
    blocks: int
    difference: float
    """First minus second, weighted and robust mean over cells, ppm."""

    error: float
    """Of the difference, one sigma in ppm, with cells of a block erring together; NaN in a single block."""


@dataclass(frozen=True, kw_only=True)
class Offsets:
    """What groups read more than the reference."""

    groups: tuple[str, ...]
    reference: str
    offset: Floats
    """``(group,)`` ppm; 0 of the reference, NaN of groups that are not connected with it."""

    error: Floats
    """``(group,)`` one sigma in ppm; the larger of what the stated errors mean and what the residuals of blocks do."""

    cells: Whole
    """``(group,)`` cells of months that the group shares with a connected one."""

    soundings: Whole
    """``(group,)`` in all."""

    pairs: tuple[Pair, ...]
    """All that share a cell."""

    unconnected: tuple[str, ...]
    """Groups with soundings that no chain of pairs of LEAST_CELLS and more ties to the reference."""

    chi2: float
    """Sum of squared weighted residuals per degree of freedom, NaN without any; above 1 errors are understated."""

    def subtract(self, values: Floats, group: Whole, *, leave_unconnected: bool = False) -> Floats:
        """Values as the reference would have read them, ``(n,)`` ppm.

        Args:
            values: ``(n,)`` ppm.
            group: ``(n,)`` number of the group of each.
            leave_unconnected: values of groups without an offset stay as they are; else they are refused.

        Raises:
            InputRefused: if one is of a group whose offset is not known.
        """
        known = np.isfinite(self.offset)
        present = np.unique(group)
        unknown = [self.groups[n] for n in present.tolist() if not known[n]]
        if unknown and not leave_unconnected:
            raise InputRefused(
                f"offsets: nothing ties {', '.join(unknown)} to {self.reference}: too few cells of a month are shared; "
                "leave these soundings out, or leave them as they are by option"
            )
        moved: Floats = values - np.where(known, self.offset, 0.0)[group]
        return moved

    def apart(self, parts: Sequence[Sequence[str]]) -> "Offsets":
        """The same with each part's groups against the one among them that has the most soundings.

        Args:
            parts: names of groups; those of no part have no offset.
        """
        offset = np.full(len(self.groups), np.nan)
        for part in parts:
            mine = [n for n, name in enumerate(self.groups) if name in part and np.isfinite(self.offset[n])]
            if mine:
                offset[mine] = self.offset[mine] - self.offset[max(mine, key=self.soundings.__getitem__)]
        return replace(self, offset=offset)

    def told(self) -> dict[str, float]:
        """Offsets of the groups that have one and soundings, ppm."""
        both = zip(self.groups, self.offset.tolist(), self.soundings, strict=True)
        return {name: offset for name, offset, soundings in both if soundings and np.isfinite(offset)}

    def lines(self) -> list[str]:
        """What was found, told to a person."""
        told = [f"offsets against {self.reference} (ppm, one sigma):"]
        for number, name in enumerate(self.groups):
            if name == self.reference or not self.soundings[number]:
                continue
            told.append(
                f"  {name}: not connected"
                if name in self.unconnected
                else f"  {name}: {self.offset[number]:+.3f} +- {self.error[number]:.3f} from {self.cells[number]} cells"
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """As JSON data, None where a number cannot be told."""
        return {
            "reference": self.reference,
            "chi2": _json(self.chi2),
            "unconnected": list(self.unconnected),
            "groups": {
                name: {
                    "offset": _json(self.offset[number]),
                    "error": _json(self.error[number]),
                    "cells": int(self.cells[number]),
                    "soundings": int(self.soundings[number]),
                }
                for number, name in enumerate(self.groups)
                if self.soundings[number]
            },
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "cells": pair.cells,
                    "blocks": pair.blocks,
                    "difference": _json(pair.difference),
                    "error": _json(pair.error),
                }
                for pair in self.pairs
            ],
        }


def estimate(
    cells: Cells,
    groups: Sequence[str],
    reference: str,
    *,
    floor: float = FLOOR,
    least: int = LEAST_CELLS,
    robust: bool = True,
) -> Offsets:
    """Offsets of all groups against one.

    Weights are 1 / (error^2 + floor^2), times Huber's where ``robust``. Cells' means and groups' offsets are solved for
    together, so that three groups in a cell count as two differences, not three. Standard errors: the larger of
    (X'WX)^-1 and the sandwich over blocks (Liang and Zeger 1986).

    Args:
        cells: means of groups in cells.
        groups: names of the groups by number.
        reference: name of the group whose offset is 0.
        floor: ppm in quadrature to each mean's error.
        least: cells that connect two groups.
        robust: whether outliers weigh less.

    Raises:
        SettingsError: if the reference is no group, or has no sounding.
    """
    if reference not in groups:
        raise SettingsError(f"{reference!r} is no group; there are {', '.join(groups)}")
    if floor <= 0 or least < 1:
        raise SettingsError(f"a floor of {floor:g} ppm and at least {least} cells: both must be above 0")
    if cells.group.size and int(cells.group.max()) >= len(groups):
        raise InputRefused(f"offsets: a mean is of group {int(cells.group.max())}, and there are {len(groups)}")
    count = len(groups)
    soundings = np.bincount(cells.group, cells.count, minlength=count).astype(np.int64)
    at = groups.index(reference)
    if not soundings[at]:
        raise SettingsError(f"the reference {reference} has no sounding; choose another one")
    _, place = np.unique(cells.cell, return_inverse=True)
    shared = _meetings(place, cells.group, count)
    _, label = csgraph.connected_components(sparse.csr_array(shared >= least), directed=False)
    connected = label == label[at]
    use = connected[cells.group] & _met(place, connected[cells.group])
    weight = 1.0 / (_errors(cells, count) ** 2 + floor**2)
    fit = _Fit.of(
        place[use], cells.group[use], cells.mean[use], weight[use], cells.block[use], (count, at), robust=robust
    )
    offset, error = np.full(count, np.nan), np.full(count, np.nan)
    offset[connected], error[connected] = fit.offset[connected], fit.error[connected]
    return Offsets(
        groups=tuple(groups),
        reference=reference,
        offset=offset,
        error=error,
        cells=np.bincount(cells.group[use], minlength=count),
        soundings=soundings,
        pairs=tuple(_pairs(cells, place, weight, shared, groups, robust=robust)),
        unconnected=tuple(
            name for name, own, tied in zip(groups, soundings, connected, strict=True) if own and not tied
        ),
        chi2=fit.chi2,
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    offset: Floats
    error: Floats
    chi2: float

    @classmethod
    def of(
        cls,
        cell: Whole,
        group: Whole,
        mean: Floats,
        weight: Floats,
        block: Whole,
        kind: tuple[int, int],
        *,
        robust: bool,
    ) -> "_Fit":
        count, at = kind
        zeros = np.zeros(count)
        if not cell.size:
            return cls(offset=zeros, error=np.where(np.arange(count) == at, 0.0, np.nan), chi2=np.nan)
        _, cell = np.unique(cell, return_inverse=True)
        free = np.setdiff1d(np.unique(group), [at])
        own, offset = weight, zeros
        for _ in range(_STEPS):
            before = offset
            offset = _solved(cell, group, mean, own, free, count)
            if not robust:
                break
            rest = np.sqrt(weight) * _residuals(cell, group, mean, own, offset)
            sigma = _TO_SIGMA * float(np.median(np.abs(rest[rest != 0]))) if rest.any() else 0.0
            if sigma == 0.0 or float(np.abs(offset - before).max()) < _SETTLED:
                break
            own = weight * np.minimum(1.0, HUBER * sigma / np.maximum(np.abs(rest), 1e-300))
        rest = _residuals(cell, group, mean, own, offset)
        inverse = np.zeros((count, count))
        inverse[np.ix_(free, free)] = np.linalg.inv(_normal(cell, group, own, count)[np.ix_(free, free)])
        # a row's score has a term of its cell, too, which vanishes: a cell's weighted residuals add up to 0
        _, number = np.unique(block, return_inverse=True)
        scores = sparse.coo_array((own * rest, (number, group))).toarray()
        scores = np.pad(scores, ((0, 0), (0, count - scores.shape[1])))
        blocks = len(scores)
        spread = inverse @ (scores.T @ scores) @ inverse * (blocks / max(blocks - 1, 1))
        error = np.sqrt(np.maximum(np.diag(inverse), np.diag(spread)))
        freedom = cell.size - (int(cell.max()) + 1) - free.size
        chi2 = float((own * rest**2).sum() / freedom) if freedom > 0 else np.nan
        return cls(offset=offset, error=error, chi2=chi2)


def _normal(cell: Whole, group: Whole, weight: Floats, count: int) -> Floats:
    """X'WX of the offsets, cells' effects eliminated."""
    table = sparse.coo_array((weight, (cell, group)), shape=(int(cell.max()) + 1, count)).tocsr()
    totals = np.bincount(cell, weight)
    shared = table.T @ sparse.diags_array(1.0 / totals) @ table
    normal: Floats = np.diag(np.bincount(group, weight, minlength=count)) - shared.toarray()
    return normal


def _solved(cell: Whole, group: Whole, mean: Floats, weight: Floats, free: Whole, count: int) -> Floats:
    totals = np.bincount(cell, weight)
    within = mean - (np.bincount(cell, weight * mean) / totals)[cell]
    right = np.bincount(group, weight * within, minlength=count)
    offset = np.zeros(count)
    offset[free] = np.linalg.solve(_normal(cell, group, weight, count)[np.ix_(free, free)], right[free])
    return offset


def _residuals(cell: Whole, group: Whole, mean: Floats, weight: Floats, offset: Floats) -> Floats:
    left = mean - offset[group]
    residual: Floats = left - (np.bincount(cell, weight * left) / np.bincount(cell, weight))[cell]
    return residual


def _pairs(
    cells: Cells, place: Whole, weight: Floats, shared: Whole, groups: Sequence[str], *, robust: bool
) -> list[Pair]:
    """Each pair by itself: the same fit with two groups."""
    found: list[Pair] = []
    for first, second in np.argwhere(np.triu(shared > 0, 1)).tolist():
        both = np.isin(cells.group, [first, second])
        use = both & _met(place, both)
        fit = _Fit.of(
            place[use],
            (cells.group[use] == first).astype(np.int64),
            cells.mean[use],
            weight[use],
            cells.block[use],
            (2, 0),
            robust=robust,
        )
        blocks = np.unique(cells.block[use]).size
        found.append(
            Pair(
                first=groups[first],
                second=groups[second],
                cells=int(shared[first, second]),
                blocks=blocks,
                difference=float(fit.offset[1]),
                error=float(fit.error[1]) if blocks > 1 else np.nan,
            )
        )
    return found


def _met(place: Whole, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows whose cell has two and more of some rows."""
    many: NDArray[np.bool_] = (np.bincount(place[among], minlength=int(place.max(initial=-1)) + 1) > 1)[place]
    return many


def _meetings(place: Whole, group: Whole, count: int) -> Whole:
    """``(group, group)``: cells that two groups share."""
    shape = (int(place.max(initial=-1)) + 1, count)
    table = sparse.coo_array((np.ones(place.size, dtype=np.int64), (place, group)), shape=shape).tocsr()
    shared: Whole = (table.T @ table).toarray()
    np.fill_diagonal(shared, 0)
    return shared


def _errors(cells: Cells, count: int) -> Floats:
    """Errors, with the median of the group where one is not known; 0 where a group has none, which leaves the floor."""
    errors = cells.error.copy()
    for number in range(count):
        own = cells.group == number
        lost = own & np.isnan(errors)
        if lost.any():
            known = errors[own & ~lost]
            errors[lost] = np.median(known) if known.size else 0.0
    return errors


def _added(parts: Sequence[tuple[Whole, Floats]]) -> tuple[Whole, Floats]:
    """Terms ``(3, n)`` of equal keys added up."""
    found, place = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    terms = np.concatenate([terms for _, terms in parts], axis=1)
    return found, np.stack([np.bincount(place, row, minlength=found.size) for row in terms])


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
