"""What the product adds to a network, for the network and for trees alike: what is told from the same month's cells.

Kriging and covariance are the product's own code. A contestant learns without the blocks that the product would keep
for stopping; what it leaves over there and where it learned gives the covariance; and all cells that are seen, of the
months that are asked for, tell what is added. Nothing of a cell that is asked for is looked at but its place and month.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from services.products.xco2_global.nearby import SAME_HOURS, Covariance, Left, averaged, told
from services.products.xco2_global.residuals import MOST_ROWS, Residuals, spread_factor
from services.products.xco2_global.table import BLOCK, BLOCK_MONTHS, GROUPS, SCORED, STOPPING
from services.validation import folds
from services.validation.baselines import background_season_anomaly
from tests.products.xco2_global.brazil_study import SEED, Case, Values, both

NEXT_TO = 0.4
"""Degrees within which two cells of 1/4 degree touch (our choice)."""

LEARNED_FROM = 2
"""A group that is neither of the product's two that are held out."""

assert LEARNED_FROM not in {STOPPING, SCORED}


@dataclass(frozen=True, kw_only=True)
class Said:
    """A contestant's answers; ppm."""

    looked_at: NDArray[np.int64] = field(repr=False)
    """Rows of what is seen that it was asked for, too, as ``looked_at`` gives them."""

    there: Values = field(repr=False)
    """Of those, ``(row looked at,)``."""

    there_spread: Values = field(repr=False)
    asked: Values = field(repr=False)
    """Of what the case asks for, ``(row asked,)``."""

    asked_spread: Values = field(repr=False)


def base_of(case: Case) -> tuple[Values, Values]:
    """Mauna Loa's twelve months and the domain's season, which what is learned departs from.

    Returns:
        Of the rows that are seen and of those that are asked for, ppm, ``(row,)`` each.
    """
    found = background_season_anomaly(
        case.seen, case.values, both(case.seen, case.asked), case.background.year_ending(), degrees=None
    )
    return found[: len(case.seen)], found[len(case.seen) :]


def held(case: Case) -> NDArray[np.bool_]:
    """Rows of what is seen in the blocks that nobody learns from, dealt as the product deals them, ``(row,)``."""
    labels = folds.space_time(case.seen.longitude, case.seen.latitude, case.seen.month, BLOCK, BLOCK_MONTHS)
    found: NDArray[np.bool_] = folds.dealt(labels, GROUPS, SEED) == STOPPING
    return found


def drawn(case: Case) -> NDArray[np.int64]:
    """Rows that the covariance is of: MOST_ROWS from all months evenly, as pairs of one month are what costs."""
    count = min(MOST_ROWS, len(case.seen))
    return np.sort(np.random.default_rng(SEED).choice(len(case.seen), count, replace=False))


def looked_at(case: Case) -> NDArray[np.int64]:
    """Rows of what is seen that matter: those of the months asked for, and those drawn; none if there are no former."""
    matter = np.isin(case.seen.month, case.asked.month)
    if matter.any():
        matter[drawn(case)] = True
    return np.flatnonzero(matter)


def stated_error(case: Case) -> Values:
    """Of each row that is seen, ppm, ``(row,)``: what cells that touch on one day differ by, over the root of its days.

    The files state none. Half the mean squared difference of two independent errors is their variance (the nugget of
    a semivariogram); the truth of cells 28 km apart counts as the same (our choice).
    """
    seen, once = case.seen, case.days == 1
    squares, pairs = 0.0, 0
    for month in np.unique(seen.month):
        mine = np.flatnonzero(once & (seen.month == month))
        first, second = (
            KDTree(np.stack([seen.longitude[mine], seen.latitude[mine]], axis=1))
            .query_pairs(NEXT_TO, output_type="ndarray")
            .T
        )
        together = np.abs(case.time[mine][first] - case.time[mine][second]) < SAME_HOURS * 3600
        squares += float(((case.values[mine][first] - case.values[mine][second])[together] ** 2).sum())
        pairs += int(together.sum())
    found: Values = np.sqrt(squares / (2 * pairs) / case.days)
    return found


def covariance_of(case: Case, said: Said, factor: float, error: Values) -> Covariance:
    """As the product estimates it, from rows drawn of what is seen."""
    mine = np.isin(said.looked_at, drawn(case))
    rows = said.looked_at[mine]
    return Residuals(
        month=case.seen.month[rows],
        group=np.where(held(case)[rows], STOPPING, LEARNED_FROM),
        left=left_over(case, said, factor, error).take(mine),
        spread=said.there_spread[mine] * factor,
    ).covariance()


def left_over(case: Case, said: Said, factor: float, error: Values) -> Left:
    """In the rows looked at, in units of the spread; its noise is the stated error squared."""
    rows, spread = said.looked_at, said.there_spread * factor
    return Left(
        latitude=case.seen.latitude[rows],
        longitude=case.seen.longitude[rows],
        time=case.time[rows],
        value=(case.values[rows] - said.there) / spread,
        noise=(error[rows] / spread) ** 2,
    )


def with_nearby(case: Case, said: Said) -> Values:
    """What was said of the rows that are asked for, and what the seen cells of their month tell, ppm, ``(row,)``."""
    error, stops = stated_error(case), held(case)[said.looked_at]
    rows = said.looked_at[stops]
    factor = spread_factor(case.values[rows] - said.there[stops], said.there_spread[stops], error[rows])
    covariance, over = covariance_of(case, said, factor, error), left_over(case, said, factor, error)
    found = said.asked.copy()
    for month in np.unique(case.asked.month):
        near = over.take(case.seen.month[said.looked_at] == month)
        near = Left(**{**vars(near), "noise": covariance.noise(np.sqrt(near.noise))})
        mine = case.asked.month == month
        mean, _ = told(averaged(near), covariance, case.asked.latitude[mine], case.asked.longitude[mine])
        found[mine] += mean * said.asked_spread[mine] * factor
    return found


def mean_of(answers: list[Said]) -> Said:
    """Of several that were asked for the same, as one: mean and deviation of their mixture of normal distributions.

    The variance of a mixture is the mean of its members' variances and the variance of their means (Lakshminarayanan
    et al., 2017, NeurIPS, arXiv 1612.01474, section 2.4).
    """
    found: dict[str, Any] = {"looked_at": answers[0].looked_at}
    for name in ("there", "asked"):
        means = np.stack([getattr(one, name) for one in answers])
        variances = np.stack([getattr(one, f"{name}_spread") ** 2 for one in answers])
        found[name] = means.mean(axis=0)
        found[f"{name}_spread"] = np.sqrt(variances.mean(axis=0) + means.var(axis=0))
    return Said(**found)


def once(learn: Callable[[Case], list[Said]]) -> Callable[[Case], list[Said]]:
    """The same of a case that was learned last, as several contestants are made of it."""
    last: list[tuple[Case, list[Said]]] = []

    def remembered(case: Case) -> list[Said]:
        if not last or last[0][0] is not case:
            last[:] = [(case, learn(case))]
        return last[0][1]

    return remembered
