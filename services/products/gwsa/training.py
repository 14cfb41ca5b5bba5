"""Learns the regions' models from the coarse field, finds what their detail is worth, and exports them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import Score
from models.errors import ModelError
from services.core.errors import InputRefused, ModelRefused
from services.pipeline.recipe import Each, Here
from services.products.gwsa import transfer
from services.products.gwsa.coarse import Coarse, prepare
from services.products.gwsa.declaration import COARSE
from services.products.gwsa.detail import REGIONS_FILE, Region, Regions
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.regions import with_buffer
from services.products.gwsa.table import Table, tabulate

type Note = Callable[[str], None]

TRAINED = "trained.json"
"""What ``train`` writes beside the regions' folders."""

ROWS = "rows.npy"
"""Rows of a region that the exported graph must answer as the trees do."""

PARITY_ROWS = 2000

MOST_MONTHS = 60
"""Months that the detail is scored in, spread evenly (our choice: the folds take most of the time of training)."""


@dataclass(frozen=True, kw_only=True)
class _Learned:
    name: str
    moments: transfer.Moments
    rows: int


def train(inputs: Path, out: Path, seed: int, note: Note, each: Each | None = None) -> None:
    """Prepare the coarse field, average the predictors, and learn a model for each region; needs the train extra.

    Args:
        inputs: directory with gwsa.toml.
        out: directory for a folder of each region and trained.json; made if it is not there.
        seed: of the trees and of the folds.
        note: told how far it is.
        each: does work on workers; None: in this process.

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
    learned: dict[str, _Learned] = {}
    for one in do(work, list(enumerate(coarse.regions))):
        learned[one.name] = one
        share = one.moments.best
        note(
            f"{one.name} ({len(learned)} of {len(coarse.regions)}): {one.rows} rows; at 1/4 degree its detail leaves "
            f"{one.moments.rmse(share):.3f} of {one.moments.rmse(0):.3f} cm with weight {share:.2f}"
        )
    together = sum((one.moments for one in learned.values()), transfer.Moments())
    document = {
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
                table="monthly 1/4 degree groundwater storage anomaly of the water balance beside predictors over land",
                command="cenote train gwsa",
                synthetic=document["synthetic"],
                scores=_scores(entry, synthetic=document["synthetic"]),
            )
        except ModelError as error:
            raise ModelRefused(f"{name}: {error}") from error
        note(f"{out / name}: model {card.name}, sha256 {card.sha256}")
    out.mkdir(parents=True, exist_ok=True)
    told = Regions(features=document["features"], regions=regions)
    (out / REGIONS_FILE).write_text(told.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _told(one: _Learned, together: transfer.Moments) -> dict[str, Any]:
    own = one.moments.blocks >= transfer.LEAST_BLOCKS
    moments = one.moments if own else together
    weight = moments.best
    return {
        "name": one.name,
        "rows": one.rows,
        "weight": weight,
        "sigma_cm": moments.rmse(weight),
        "without_detail_cm": moments.rmse(0.0),
        "blocks": one.moments.blocks,
        "score_of": "the region" if own else "all regions together, as it has too few blocks",
    }


def _text(name: str, *, synthetic: bool) -> str:
    made_up = "Synthetic: learned from cenote's sample Earth. " if synthetic else ""
    return (
        f"{made_up}Groundwater storage anomaly of region {name} from predictors at 1/4 degree; asked at 1/120 degree, "
        "where only what varies within 1/4 degree cells is used."
    )


def _scores(entry: dict[str, Any], *, synthetic: bool) -> list[Score]:
    return [
        Score(
            output="gwsa",
            split=(
                "detail of 1/4 degree cells within 1 degree blocks in held-out squares of 2 degrees, learned at 1 "
                f"degree; score of {entry['score_of']}"
            ),
            rows=max(entry["blocks"], 1),
            metrics={
                "rmse_cm": round(entry["sigma_cm"], 4),
                "rmse_of_conservative_bilinear_cm": round(entry["without_detail_cm"], 4),
                "detail_weight": round(entry["weight"], 4),
            },
            synthetic=synthetic,
        )
    ]


def _learn(inputs: Inputs, coarse: Coarse, table: Table, out: Path, seed: int, region: tuple[int, str]) -> _Learned:
    """Learn one region: its trees from all rows, and what their detail is worth from folds."""
    from models.gwsa.train import Settings, fit  # noqa: PLC0415 - xgboost is there only where the train extra is

    number, name = region
    labels = coarse.read_labels()
    offset = table.months[0] - coarse.months[0]
    values = coarse.read_all("gwsa")[offset : offset + len(table.months)]
    valid = np.isfinite(values[0]) & (table.land > 0)
    near = with_buffer(labels, number, valid)
    if not near.any():
        raise InputRefused(f"region {name} has no cell with land")
    learn = partial(
        fit,
        names=list(inputs.features),
        units=list(inputs.features.values()),
        settings=Settings(**inputs.settings.trees.model_dump(exclude={"engine"})),
        seed=seed,
    )
    features = np.concatenate([table.features(month)[near] for month in table.months])
    target = values[:, near].ravel()
    weights = np.tile(table.land[near], len(table.months))
    try:
        trees = learn(features, target, weights=weights)
        moments = _moments(coarse, table, values, (labels == number) & valid, near, seed, learn)
    except ModelError as error:
        raise ModelRefused(f"{name}: {error}") from error
    trees.write(out / name)
    chosen = np.random.default_rng(seed).choice(len(features), min(PARITY_ROWS, len(features)), replace=False)
    np.save(out / name / ROWS, features[np.sort(chosen)])
    return _Learned(name=name, moments=moments, rows=len(features))


def _moments(
    coarse: Coarse,
    table: Table,
    values: NDArray[np.float64],
    mine: NDArray[np.bool_],
    near: NDArray[np.bool_],
    seed: int,
    learn: Callable[..., Any],
) -> transfer.Moments:
    window = coarse.window
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    corner = (window.row + int(rows[0]), window.column + int(columns[0]))
    pad = transfer.padded((cut[0].stop - cut[0].start, cut[1].stop - cut[1].start), corner)
    chosen = list(transfer.months_of(len(table.months), MOST_MONTHS))

    def grown(array: NDArray[Any], fill: float) -> NDArray[Any]:
        return np.pad(array[..., *cut], [(0, 0)] * (array.ndim - 2) + list(pad), constant_values=fill)

    def features(position: int) -> NDArray[np.float32]:
        found = np.moveaxis(table.features(table.months[chosen[position]]), 2, 0)
        return np.moveaxis(grown(found, np.nan), 0, 2)

    first = corner[0] - pad[0][0]
    lines = np.clip(np.arange(first, first + grown(near, 0).shape[0]), 0, COARSE.height - 1)
    area = grown(np.where(near, table.land, 0.0), 0.0)
    scene = transfer.Scene(
        values=np.where(area > 0, grown(values[chosen], np.nan), np.nan),
        features=features,
        area=area,
        row_areas=COARSE.row_areas[lines],
    )

    def fitted(rows: NDArray[np.float32], target: NDArray[np.float64], weights: NDArray[np.float64]) -> Any:
        return learn(rows, target, weights=weights).predict

    try:
        return transfer.moments(scene, grown(mine, 0).astype(bool), grown(near, 0).astype(bool), fitted, seed)
    except ModelError:
        # too few blocks to learn from at 1 degree: the score of all regions together is taken
        return transfer.Moments()
