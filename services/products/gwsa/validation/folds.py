"""Skill of the regions' models at 1/4 degree on departures that they have not seen, beside what would be obvious.

What is asked for is what they learn: how cells depart from the conservative interpolation of their 1 degree means. A
departure may be easy to guess: from the same cell's other months, or from the cells around. Three ways of holding out
ask three questions, and each has the guess that it must beat:

- random: cells and months at random; the cell's climatology and trend of all other months of the balance;
- space: squares of 2 degrees; the 8 nearest cells of the others, weighted by the inverse square of their distance;
- time: blocks of 12 months; the cell's climatology and trend of all other months of the balance.

The balance begins before many predictors do, so that the guess may know more months than the model (our choice: whoever
guesses has them). Months that GRACE did not see are left out of all: they are made of the others, held out or not.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from models.errors import ModelError
from services.core.errors import InputRefused
from services.products.gwsa.declaration import COARSE, GWSA
from services.products.gwsa.reach import Reach
from services.products.gwsa.regions import with_buffer
from services.products.gwsa.seasonal import climatology_trend
from services.products.gwsa.table import Table
from services.products.gwsa.training import cut, surroundings
from services.products.gwsa.validation.published import Published
from services.validation.folds import dealt
from services.validation.metrics import ErrorSums
from services.validation.report import NotComputed

type Cells = NDArray[np.float64]
type Floats = NDArray[np.float32]
type Fit = Callable[[Floats, Cells, Cells], Callable[[Floats], Floats]]
"""Features ``(row, feature)``, target and weight of each row -> what predicts rows."""

FOLDS = 5
"""At most: fewer in a region that has fewer blocks of a kind."""

SQUARE = 8
"""Coarse cells along a side of what is held out together in space: 2 degrees (our choice)."""

BLOCK = 12
"""Months that are held out together."""

NEAREST = 8

MOST_ROWS = 20_000
"""Rows that a model of a fold learns from, drawn at random where there are more (our choice: 15 models a region)."""

SPLITS = {
    "random": "climatology and trend of the cell's other months",
    "space": "inverse square distance of the 8 nearest training cells",
    "time": "climatology and trend of the cell's other months",
}
"""How values are held out, and the obvious guess."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a region learns from and is scored on, at 1/4 degree."""

    values: Cells
    """Departures ``(time, cell)``, cm; every month from the first to the last, NaN in those that are not used."""

    record: Cells
    """The same in all months of the balance, also those that no predictor has, ``(month, cell)``; NaN if not used."""

    before: int
    """Months of ``record`` before the first of ``values``."""

    features: Floats
    """``(time, cell, feature)``."""

    area: Cells
    """Of land, ``(cell,)``."""

    mine: NDArray[np.bool_]
    """Cells that are scored, ``(cell,)``; the others are learned from only."""

    rows: NDArray[np.int64]
    """Row of each cell on COARSE."""

    columns: NDArray[np.int64]

    @property
    def used(self) -> NDArray[np.bool_]:
        """Months with values, ``(time,)``."""
        some: NDArray[np.bool_] = np.isfinite(self.values).all(axis=1)
        return some


def folds(
    published: Published, table: Table, seed: int, note: Callable[[str], None]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Hold out, learn, and compare with the obvious guess.

    Args:
        published: the version; the regions that lie in it are scored, wherever they reach.
        table: the predictors over land.
        seed: of folds, rows and trees.
        note: told how far it is.

    Returns:
        JSON data, and a row for each region and way of holding out.

    Raises:
        NotComputed: if XGBoost is not installed, or a region has no month to learn from.
    """
    try:
        from models.gwsa.train import Settings, fit  # noqa: PLC0415 - xgboost is there only where the train extra is
    except ModuleNotFoundError as error:
        raise NotComputed(
            f"it learns models, which needs the package {error.name}: install cenote with its train extra"
        ) from None
    grown = Settings(**published.source.settings.trees.model_dump(exclude={"engine"}))
    features = published.source.features
    learn = partial(
        fit,
        names=list(features),
        units=list(features.values()),
        settings=grown,
        seed=seed,
        threads=len(os.sched_getaffinity(0)),
    )

    def fitted(rows: Floats, target: Cells, weights: Cells) -> Callable[[Floats], Floats]:
        return learn(rows, target, weights=weights).predict

    whole = {split: (ErrorSums(), ErrorSums()) for split in SPLITS}
    told: dict[str, Any] = {}
    left_out: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    rows: list[dict[str, Any]] = []
    regions = _regions(published)
    for number in regions:
        name = published.coarse.regions[number]
        scene = scene_of(published, table, number)
        for split in SPLITS:
            note(f"folds: {name}, {split}")
            sums = (ErrorSums(), ErrorSums())
            try:
                scored = list(held_out(scene, split, fitted, seed))
            except (ModelError, InputRefused) as error:
                note(f"folds: {name}, {split}: not computed: {error}")
                left_out[split][name] = str(error)
                rows.append({"region": name, "split": split, "not_computed": str(error)})
                continue
            for known, said, guess, area in scored:
                for pair in (sums, whole[split]):
                    pair[0].add(said, known, area)
                    pair[1].add(guess, known, area)
            rows.append({"region": name, "split": split, **_told(*sums)})
    for split, baseline in SPLITS.items():
        told[split] = {"baseline": baseline, **_told(*whole[split]), "regions_not_computed": left_out[split]}
    return {
        "regions": len(regions),
        "months": int(scene.used.sum()),
        "folds": FOLDS,
        "seed": seed,
        "trees": grown.trees,
        "depth": grown.depth,
        "most_rows": MOST_ROWS,
        "synthetic": published.source.settings.synthetic,
        **told,
    }, rows


def scene_of(published: Published, table: Table, number: int) -> Scene:
    """A region's values and features.

    Raises:
        NotComputed: if the region has no month that GRACE saw and all predictors have.
    """
    coarse = published.coarse
    valid = coarse.valid & (table.land > 0)
    labels = coarse.read_labels()
    near = with_buffer(labels, number, valid, around=coarse.goes_round)
    seen = np.array([not coarse.read_filled(month) for month in coarse.months])
    use = seen & np.isin(coarse.months, table.months)
    if not use.any() or not near.any():
        raise NotComputed(f"{coarse.regions[number]} has no month that GRACE saw and all predictors have")
    whole, inner = surroundings(coarse, table, valid, near, coarse.months)
    here = cut(coarse, near, inner, fill=False)
    record = np.stack([(whole.inside(whole.values[one]) - whole.plain(one))[here] for one in range(len(coarse.months))])
    record[~seen] = np.nan
    before = table.months[0] - coarse.months[0]
    span = slice(before, table.months[-1] + 1 - coarse.months[0])
    values = np.where(use[span, None], record[span], np.nan)
    positions = np.flatnonzero(use[span])
    width = len(published.source.features)
    features = np.full((*values.shape, width), np.nan, dtype=np.float32)
    for position in positions:
        features[position] = whole.features(int(position) + before)[here]
    rows, columns = np.nonzero(here)
    return Scene(
        values=values,
        record=record,
        before=before,
        features=features,
        area=whole.inner_area[here],
        mine=cut(coarse, labels == number, inner, fill=False)[here],
        rows=rows + inner.row,
        columns=columns + inner.column,
    )


def held_out(scene: Scene, split: str, fit: Fit, seed: int) -> Iterator[tuple[Cells, Cells, Cells, Cells]]:
    """Learn without a fold and answer for it, fold after fold.

    Args:
        scene: of a region.
        split: one of SPLITS.
        fit: how a model is learned.
        seed: of the folds, and of the rows where there are too many.

    Yields:
        What is known, what the model says, the obvious guess, and the area of each, ``(row,)``.

    Raises:
        InputRefused: if the guess cannot be made.
        ModelError: if the rows cannot be learned from.
    """
    of = _dealt(scene, split, seed)
    known = np.isfinite(scene.values)
    random = np.random.default_rng(seed)
    for fold in range(FOLDS):
        held = (of == fold) & known & scene.mine
        learned = np.flatnonzero((of != fold) & known)
        if not held.any() or not learned.size:
            continue
        guess = _guess(scene, split, of == fold)[held]
        if len(learned) > MOST_ROWS:
            learned = np.sort(random.choice(learned, MOST_ROWS, replace=False))
        flat = scene.features.reshape(-1, scene.features.shape[2])
        area = np.broadcast_to(scene.area, scene.values.shape)
        predict = fit(flat[learned], scene.values.ravel()[learned], area.ravel()[learned])
        said = predict(scene.features[held]).astype(np.float64)
        yield scene.values[held], said, guess, area[held]


def _dealt(scene: Scene, split: str, seed: int) -> NDArray[np.int64]:
    """Fold of each value, ``(time, cell)``."""
    time, cells = scene.values.shape
    if split == "random":
        return _at_random(scene.used, cells, np.random.default_rng(seed))
    if split == "space":
        of = _in_blocks(np.stack([scene.rows // SQUARE, scene.columns // SQUARE], axis=1), seed)
        return np.broadcast_to(of, (time, cells))
    of = _in_blocks((np.arange(time) // BLOCK)[:, None], seed)
    return np.broadcast_to(of[:, None], (time, cells))


def _in_blocks(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Whole blocks of labels ``(thing, part)``: a region with fewer blocks than FOLDS has that many folds."""
    return dealt(labels, min(FOLDS, len(np.unique(labels, axis=0))), seed)


def _at_random(used: NDArray[np.bool_], cells: int, random: np.random.Generator) -> NDArray[np.int64]:
    """At random, but dealt out evenly within each cell and calendar month, so that none is lost to a climatology."""
    found = np.zeros((len(used), cells), dtype=np.int64)
    for month in range(12):
        years = np.flatnonzero(used & (np.arange(len(used)) % 12 == month))
        order = random.random((len(years), cells)).argsort(axis=0)
        found[years] = (order + random.integers(FOLDS, size=cells)) % FOLDS
    return found


def _guess(scene: Scene, split: str, held: NDArray[np.bool_]) -> Cells:
    """What is obvious, ``(time, cell)``; NaN where it is not asked for."""
    if split == "space":
        return _nearest(scene, held[0])
    record = scene.record.copy()
    span = slice(scene.before, scene.before + len(held))
    record[span][held] = np.nan
    found = np.full(scene.values.shape, np.nan)
    found[:, scene.mine] = climatology_trend(record[:, scene.mine])[span]
    return found


def _nearest(scene: Scene, held: NDArray[np.bool_]) -> Cells:
    """Inverse distance of the NEAREST cells that are not held out, ``(time, cell)``; squared (Shepard, 1968)."""
    latitude, longitude = np.radians(COARSE.latitudes[scene.rows]), np.radians(COARSE.longitudes[scene.columns])
    places = np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
    count = min(NEAREST, int((~held).sum()))
    distance, which = KDTree(places[~held]).query(places[held], k=[*range(1, count + 1)])
    weight = 1 / distance**2
    weight /= weight.sum(axis=1, keepdims=True)
    found = np.full(scene.values.shape, np.nan)
    found[:, held] = (scene.values[:, ~held][:, which] * weight).sum(axis=2)
    return found


def _regions(published: Published) -> list[int]:
    """Regions with values in the version."""
    reach = Reach.of(published.cells)
    coarse = published.coarse
    valid = np.isfinite(coarse.read(GWSA.name, coarse.months[0], reach))
    found: list[int] = np.unique(coarse.labels(reach)[valid]).tolist()
    if not found:
        raise NotComputed("no published cell of 1/4 degree has a value")
    return found


def _told(model: ErrorSums, guess: ErrorSums) -> dict[str, Any]:
    try:
        of_model, of_guess = model.errors(), guess.errors()
    except ValueError:
        return {"not_computed": "no value could be held out and learned without: too few cells or months for folds"}
    return {
        "rows": of_model.cells,
        "r2": of_model.r2,
        "rmse_cm": of_model.rmse,
        "bias_cm": of_model.bias,
        "baseline_r2": of_guess.r2,
        "baseline_rmse_cm": of_guess.rmse,
        "skill": 1 - of_model.rmse**2 / of_guess.rmse**2 if of_guess.rmse else float("nan"),
    }
