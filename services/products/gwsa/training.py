"""Learns the regions' models from the coarse field, finds what their detail is worth, and exports them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Score
from models.errors import ModelError, TableRefused
from services.core.errors import InputRefused, ModelRefused
from services.pipeline.recipe import Each, Here
from services.products.gwsa import held_out, transfer
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.detail import REGIONS_FILE, Region, Regions
from services.products.gwsa.inputs import TIME_FEATURES, Inputs
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import HALO
from services.products.gwsa.regions import with_buffer
from services.products.gwsa.table import Table, tabulate
from services.products.gwsa.transfer import SCALE

type Note = Callable[[str], None]

TRAINED = "trained.json"
"""What ``train`` writes beside the regions' folders."""

ROWS = "rows.npy"
"""Rows of a region, held out, that the exported graph must answer as the trees do."""

MOST_MONTHS = 60
"""Months that the detail is scored in, spread evenly (our choice: the folds take most of the time of training)."""

MOST_ROWS = 4_000_000
"""Rows that a region learns from; where it has more, of months spread evenly (our choice: 22 features are 350 MB)."""

TOGETHER_ROWS = 1_000_000
"""Rows from which all workers learn a region together, if there are any; others are learned one by each worker.

Our choice: what a region as large as India has in 225 months. One worker alone would go on with it when the others have
done theirs, and hold its table whole.
"""


@dataclass(frozen=True, kw_only=True)
class _Learned:
    name: str
    worth: transfer.Worth
    rows: int
    at_once: bool
    """Whether all workers learned it together."""


def train(inputs: Path, out: Path, seed: int, note: Note, each: Each | None = None) -> None:
    """Prepare the coarse field, average the predictors, and learn a model for each region; needs the train extra.

    Args:
        inputs: directory with gwsa.toml.
        out: directory for a folder of each region and trained.json; made if it is not there.
        seed: of the trees and of the folds.
        note: told how far it is.
        each: does work on workers; None: in this process. With workers a region of ``TOGETHER_ROWS`` and more is
            learned by all of them at once, by ``xgboost.dask``; its trees then depend on how many workers there are.

    Raises:
        InputRefused: if an input does not hold.
        ModelRefused: if a region cannot be learned.
    """
    do = each or Here()
    found = Inputs.find(inputs).hashed()
    coarse = prepare(found, do, note)
    table = tabulate(found, coarse, do, note)
    out.mkdir(parents=True, exist_ok=True)
    work = partial(_learn, found, coarse, table, out, seed)
    apart: list[tuple[int, str]] = []
    at_once: list[tuple[int, str]] = []
    for number, name in enumerate(coarse.regions):
        large = do.client is not None and _near(coarse, table, number).sum() * len(table.months) >= TOGETHER_ROWS
        (at_once if large else apart).append((number, name))
    learned: dict[str, _Learned] = {}
    for one in chain(do(work, apart), (work(region, client=do.client) for region in at_once)):
        learned[one.name] = one
        note(
            f"{one.name} ({len(learned)} of {len(coarse.regions)}): {one.rows} rows"
            f"{', learned by all workers at once' if one.at_once else ''}; at 1/4 degree its detail leaves "
            f"{one.worth.sigma:.3f} of {one.worth.total.rmse(0.0):.3f} cm with weight {one.worth.weight:.2f}"
        )
    together = sum((one.worth for one in learned.values()), transfer.Worth())
    if not together.folds:
        raise ModelRefused(
            f"{inputs}: no region has cells in two squares of {transfer.FOLD / 4:g} degrees: nothing tells what "
            "its detail is worth; detail = false in gwsa.toml does without"
        )
    document = {
        "labels_sha256": coarse.labels_sha256,
        "features": found.features,
        "synthetic": found.settings.synthetic,
        "seed": seed,
        "regions": [_told(learned[name], together) for name in coarse.regions],
    }
    (out / TRAINED).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def export(trained: Path, out: Path, note: Note) -> None:
    """Write model.onnx and card.json of every region, and regions.json, from what ``train`` wrote.

    Args:
        trained: directory with trained.json.
        out: directory for a folder of each region.
        note: told of what was written.

    Raises:
        ModelRefused: if an exported graph does not answer as the trees.
    """
    from models.gwsa import export as exporting  # noqa: PLC0415 - xgboost is there only where the train extra is
    from models.gwsa.train import Trees  # noqa: PLC0415

    path = trained / TRAINED
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read ({error}): `cenote train gwsa` writes it") from None
    regions = []
    for entry in document["regions"]:
        name = entry["name"]
        region = Region(name=name, weight=round(entry["weight"], 4), sigma=round(entry["sigma_cm"], 4))
        regions.append(region)
        if region.weight == 0:
            note(f"{name}: its detail is worth nothing, so no model is needed")
            continue
        try:
            trees = Trees.read(trained / name)
            card = exporting.export(
                trees,
                out / name,
                name=f"gwsa_{name}",
                version="1",
                description=_text(name, synthetic=document["synthetic"]),
                rows=np.load(trained / name / ROWS),
                held=held_out.WHAT,
                table="departures of the 1/4 degree water balance from its 1 degree means, beside those of predictors",
                command="cenote train gwsa",
                synthetic=document["synthetic"],
                scores=_scores(entry, synthetic=document["synthetic"]),
            )
        except ModelError as error:
            raise ModelRefused(f"{name}: {error}") from error
        note(f"{out / name}: model {card.name}, sha256 {card.sha256}")
    out.mkdir(parents=True, exist_ok=True)
    told = Regions(
        features=document["features"],
        synthetic=document["synthetic"],
        labels_sha256=document["labels_sha256"],
        regions=regions,
    )
    (out / REGIONS_FILE).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _told(one: _Learned, together: transfer.Worth) -> dict[str, Any]:
    blocks = one.worth.total.blocks
    own = blocks >= transfer.LEAST_BLOCKS
    worth = one.worth if own else together
    return {
        "name": one.name,
        "rows": one.rows,
        "weight": worth.weight,
        "sigma_cm": worth.sigma,
        "without_detail_cm": worth.total.rmse(0.0),
        "blocks": blocks,
        "score_of": "the region" if own else "all regions together, as it has too few blocks",
    }


def _text(name: str, *, synthetic: bool) -> str:
    made_up = "Synthetic: learned from cenote's sample Earth. " if synthetic else ""
    return (
        f"{made_up}How groundwater storage of region {name} departs from the interpolation of its means over larger "
        "cells, from how predictors do: learned from 1/4 degree cells in 1 degree blocks, asked of 1/120 degree cells."
    )


def _scores(entry: dict[str, Any], *, synthetic: bool) -> list[Score]:
    return [
        Score(
            output="gwsa",
            split=(
                "departures of 1/4 degree cells from their 1 degree means in held-out squares of 2 degrees; score of "
                f"{entry['score_of']}"
            ),
            rows=max(entry["blocks"], 1),
            metrics={
                "rmse_with_weights_of_other_folds_cm": round(entry["sigma_cm"], 4),
                "rmse_of_conservative_bilinear_cm": round(entry["without_detail_cm"], 4),
                "detail_weight": round(entry["weight"], 4),
            },
            synthetic=synthetic,
        )
    ]


def _near(coarse: Coarse, table: Table, number: int) -> NDArray[np.bool_]:
    """The cells that a region learns from."""
    return with_buffer(coarse.read_labels(), number, coarse.valid & (table.land > 0), around=coarse.goes_round)


def _learn(
    inputs: Inputs,
    coarse: Coarse,
    table: Table,
    out: Path,
    seed: int,
    region: tuple[int, str],
    client: Any = None,
) -> _Learned:
    """Learn one region: its trees from all rows, and what their detail is worth from folds.

    With a cluster's client its workers learn together what is made ready here; without, all is done here.
    """
    from models.gwsa.train import Settings, fit  # noqa: PLC0415 - xgboost is there only where the train extra is

    number, name = region
    labels = coarse.read_labels()
    valid = coarse.valid & (table.land > 0)
    near = _near(coarse, table, number)
    if not near.any():
        raise InputRefused(f"region {name} has no cell with land")
    scene, inner = surroundings(coarse, table, valid, near, table.months)

    def inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return cut(coarse, mask, inner, fill=False)

    learn = partial(
        fit,
        names=list(inputs.features),
        units=list(inputs.features.values()),
        long_names=[
            text if text in TIME_FEATURES else f"{text} less the interpolation of its means over larger cells"
            for text in inputs.features
        ],
        settings=Settings(**inputs.settings.trees.model_dump(exclude={"engine"})),
        seed=seed,
        client=client,
    )

    def fitted(rows: NDArray[np.float32], target: NDArray[np.float64], weights: NDArray[np.float64]) -> Any:
        try:
            return learn(rows, target, weights=weights).predict
        except TableRefused:
            return None  # too little is left outside this fold

    here = inside(near)
    months = transfer.months_of(len(scene.months), max(1, MOST_ROWS // int(here.sum())))
    features, target, weights = scene.rows(here, months)
    try:
        trees = learn(features, target, weights=weights)
        asked = held_out.held_out(inputs, coarse, near, features, seed)
    except (ModelError, ModelRefused) as error:
        raise ModelRefused(f"{name}: {error}") from error
    rows = len(features)
    del features, target, weights  # the folds need their memory
    scored = replace(scene, **_thinned(scene))
    try:
        found = transfer.worth(scored, inside((labels == number) & valid), here, fitted, seed)
    except ModelError as error:
        raise ModelRefused(f"{name}: {error}") from error
    trees.write(out / name)
    np.save(out / name / ROWS, asked)
    return _Learned(name=name, worth=found, rows=rows, at_once=client is not None)


def _thinned(scene: transfer.Scene) -> dict[str, Any]:
    """Fewer months of a scene, spread evenly."""
    chosen = list(transfer.months_of(len(scene.months), MOST_MONTHS))
    return {
        "values": scene.values[chosen],
        "months": tuple(scene.months[one] for one in chosen),
        "predictors": lambda position: scene.predictors(chosen[position]),
    }


def surroundings(
    coarse: Coarse, table: Table, valid: NDArray[np.bool_], near: NDArray[np.bool_], months: tuple[int, ...]
) -> tuple[transfer.Scene, Reach]:
    """The cells around some cells, in whole blocks, and the inside of that.

    Args:
        coarse: the field.
        table: the predictors.
        valid: cells with values and land, ``(Y, X)`` of the coarse window.
        near: the cells that are asked for.
        months: in a row; features can be asked for in those that the table has.
    """
    inner = box(coarse, near)
    outer = inner.grown(HALO * SCALE)
    lines = np.clip(outer.places(COARSE)[0], 0, COARSE.height - 1)
    scene = transfer.Scene(
        values=coarse.read_months("gwsa", months, outer),
        predictors=lambda position: cut(coarse, table.predictors(months[position]), outer, np.nan),
        months=months,
        area=cut(coarse, np.where(valid, table.land, 0.0), outer, 0.0),
        row_areas=COARSE.row_areas[lines],
    )
    return scene, inner


def box(coarse: Coarse, cells: NDArray[np.bool_]) -> Reach:
    """Whole blocks around cells of the coarse window ``(Y, X)``, the shorter way round the earth."""
    window = coarse.window
    rows = np.flatnonzero(cells.any(axis=1))
    west, east = _ends(cells.any(axis=0), around=coarse.goes_round)
    top, left = ((first + start) // SCALE * SCALE for first, start in ((window.row, rows[0]), (window.column, west)))
    bottom, right = (
        -(-(first + stop + 1) // SCALE) * SCALE for first, stop in ((window.row, rows[-1]), (window.column, east))
    )
    return Reach(row=int(top), column=int(left), height=int(bottom - top), width=int(right - left))


def _ends(some: NDArray[np.bool_], *, around: bool) -> tuple[int, int]:
    """First and last column of some, the shorter way round the earth; the first may be negative."""
    columns = np.flatnonzero(some)
    first, last = int(columns[0]), int(columns[-1])
    if not around:
        return first, last
    empty = np.diff(columns, append=columns[0] + some.size) - 1
    widest = int(empty.argmax())
    if empty[widest] < 2 * SCALE:
        return 0, some.size - 1  # in whole blocks it would meet itself
    if widest == columns.size - 1:
        return first, last
    first, last = int(columns[widest + 1]) - some.size, int(columns[widest])
    # what is around it must not pass the map's edges twice
    return (first, last) if first >= -some.size // 2 else (first + some.size, last + some.size)


def cut(coarse: Coarse, array: NDArray[Any], reach: Reach, fill: float) -> NDArray[Any]:
    """A rectangle of an array ``(..., Y, X)`` of the coarse window, filled beyond it."""
    found = np.full((*array.shape[:-2], *reach.shape), fill, dtype=array.dtype)
    for source, target in reach.parts(COARSE, coarse.window):
        found[..., target[0], target[1]] = array[..., source.rows, source.columns]
    return found
