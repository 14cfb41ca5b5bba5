"""Learns the sample Earth's network from its training table, and exports it.

The same table, seed, torch and machine give the same weights.
"""

import copy
import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.card import ModelCard, Score, Training
from models.errors import ModelRefused, TableRefused
from models.export import export as export_network
from models.rules import apply_rules
from models.sample_earth.net import SampleEarthNet, negative_log_likelihood
from models.sample_earth.signature import BACKGROUND, INPUTS, OUTPUTS
from models.table import Table

WEIGHTS_FILE = "weights.safetensors"
SEED = 0
COMMAND = "cenote sample --size study && cenote train sample_earth && cenote export sample_earth"

_EPOCHS = 120
_PATIENCE = 15
_BATCH = 1024
_RATE = 4e-3
_ROWS_PER_CALL = 8192  # measured, see README.md
_GOLDEN = 8
_TOLERANCE = {"xco2": 2e-3, "xco2_uncertainty": 2e-4}

type Floats = NDArray[np.float32]
type Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Some rows of the table with the card's rules applied."""

    features: torch.Tensor
    """``(row, feature)`` float32."""

    seen: torch.Tensor
    """What the site reported, ppm, ``(row,)``."""

    truth: NDArray[np.float64]
    """What it should have been, ppm, ``(row,)``; for scoring only."""


def train(table: Path, out: Path, seed: int = SEED, *, epochs: int = _EPOCHS, report: Report | None = None) -> Path:
    """Learn from a table and write the weights with a record of how they came about.

    A tenth of the sites stops the training early, a fifth is scored at the end; neither is learned from.

    Args:
        table: CSV with ``site``, the features of the card, ``xco2_ppm`` and ``xco2_true_ppm``.
        out: directory for weights.safetensors; made if it is not there.
        seed: of the weights' start, the order of the batches and the choice of sites.
        epochs: at most.
        report: told once per epoch; None prints to stderr.

    Returns:
        The file that was written.

    Raises:
        TableRefused: if the table does not hold.
    """
    tell = report or _print
    rows = Table.read(table)
    parts, golden = _split(rows, seed)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads differ from run to run
    try:
        network = _fit(parts["train"], parts["stop"], epochs, tell)
        scores = _scores(network, parts)
    finally:
        torch.set_num_threads(threads)
    for score in scores:
        tell(f"{score.output}, {score.split}, {score.rows} rows (synthetic): {score.metrics}")
    record = {
        "training": Training(
            table="site observations of the sample Earth beside the predictors of their cells",
            table_sha256=rows.sha256,
            rows=len(parts["train"].seen),
            seed=seed,
            command=COMMAND,
            synthetic=True,
        ).model_dump(),
        "scores": [score.model_dump() for score in scores],
        "golden": [[None if np.isnan(value) else float(str(value)) for value in row] for row in golden],
    }
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    part = out / f".{WEIGHTS_FILE}.part"
    save_file(state, part, metadata={"record": json.dumps(record)})
    return part.replace(out / WEIGHTS_FILE)


def export(weights: Path, out: Path) -> ModelCard:
    """Write model.onnx and card.json from trained weights.

    Args:
        weights: what ``train`` wrote.
        out: directory for the two files.

    Raises:
        ExportRefused: if the exported graph does not answer as the network; nothing is written then.
    """
    network, record = load(weights)
    golden = np.array(
        [[np.nan if value is None else value for value in row] for row in record["golden"]], dtype=np.float32
    )
    return export_network(
        network,
        out,
        name="sample_earth",
        version="1",
        description=(
            "Synthetic XCO2 of cenote's sample Earth and the standard deviation of reports around it, from made-up "
            "predictors. A demonstration: learned from made-up observations."
        ),
        inputs=INPUTS,
        outputs=OUTPUTS,
        rows={"features": golden},
        tolerance=_TOLERANCE,
        training=Training.model_validate(record["training"]),
        scores=[Score.model_validate(score) for score in record["scores"]],
        batch=_ROWS_PER_CALL,
        golden_rows=_GOLDEN,
    )


def load(weights: Path) -> tuple[SampleEarthNet, dict[str, Any]]:
    """The network with trained weights, and the record of how they came about.

    Raises:
        ModelRefused: if the file does not hold both.
    """
    network = SampleEarthNet()
    try:
        with safe_open(weights, framework="pt") as file:
            record: dict[str, Any] = json.loads(file.metadata()["record"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelRefused(f"{weights} does not hold the weights of this network: {error}") from error
    return network.eval(), record


def _print(line: str) -> None:
    sys.stderr.write(line + "\n")


def _split(table: Table, seed: int) -> tuple[dict[str, _Rows], Floats]:
    names = [feature.name for feature in INPUTS[0].features]
    features = np.stack([table.numbers(name) for name in names], axis=1).astype(np.float32)
    as_given = features.copy()
    lost = apply_rules(INPUTS[0], features)
    seen, truth = table.numbers("xco2_ppm"), table.numbers("xco2_true_ppm")
    usable = ~lost & np.isfinite(seen) & np.isfinite(truth)
    # whole sites are held out: months of one site know each other
    share = np.array([zlib.crc32(f"{seed} {site}".encode()) % 100 for site in table.text("site")])
    chosen = {"score": share < 20, "stop": (share >= 20) & (share < 30), "train": share >= 30}
    parts: dict[str, _Rows] = {}
    for name, mask in chosen.items():
        at = np.flatnonzero(mask & usable)
        if not at.size:
            raise TableRefused(f"{table.path} has no usable row in the part {name!r} of its {len(table)}")
        parts[name] = _Rows(
            features=torch.from_numpy(features[at]),
            seen=torch.from_numpy(seen[at].astype(np.float32)),
            truth=truth[at],
        )
    return parts, _golden(as_given[np.flatnonzero(chosen["score"] & usable)])


def _golden(rows: Floats) -> Floats:
    """Rows for the golden answer and parity: real ones from all over the table, two of them broken on purpose."""
    picked: Floats = rows[np.linspace(0, len(rows) - 1, 64).astype(int)].copy()
    names = [feature.name for feature in INPUTS[0].features]
    picked[1, names.index("vegetation")] = np.nan  # filled
    picked[2, names.index("temperature")] = np.nan  # loses the row
    picked[3, names.index("noon_sun")] = 0.01  # out of range, loses the row
    picked[4, names.index("elevation")] = 9500  # clipped
    return picked


def _fit(train_rows: _Rows, stop_rows: _Rows, epochs: int, tell: Report) -> SampleEarthNet:
    network = SampleEarthNet()
    network.mean.copy_(train_rows.features.mean(0))
    # a feature that hardly varies in the table would blow up whatever differs from it later
    least = torch.tensor([(feature.valid_max - feature.valid_min) / 100 for feature in INPUTS[0].features])
    network.deviation.copy_(torch.maximum(train_rows.features.std(0), least))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, best_loss, since = copy.deepcopy(network.state_dict()), float("inf"), 0
    for epoch in range(1, epochs + 1):
        network.train()
        for batch in torch.split(torch.randperm(len(train_rows.seen)), _BATCH):
            optimizer.zero_grad()
            value, sigma = network(train_rows.features[batch])
            loss = negative_log_likelihood(value, sigma, train_rows.seen[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            value, sigma = network(stop_rows.features)
            stop_loss = float(negative_log_likelihood(value, sigma, stop_rows.seen))
            error = float(torch.sqrt(((value - stop_rows.seen) ** 2).mean()))
        tell(f"epoch {epoch:3d} of {epochs}: loss {stop_loss:.4f}, error {error:.3f} ppm at held-out sites")
        if stop_loss < best_loss - 1e-4:
            best, best_loss, since = copy.deepcopy(network.state_dict()), stop_loss, 0
        else:
            since += 1
        if since == _PATIENCE:
            tell(f"stopped: no better for {_PATIENCE} epochs")
            break
    if not np.isfinite(best_loss):
        raise TableRefused("the training never reached a finite loss: does a column hold absurd values?")
    network.load_state_dict(best)
    return network.eval()


def _scores(network: SampleEarthNet, parts: dict[str, _Rows]) -> list[Score]:
    rows = parts["score"]
    with torch.no_grad():
        value, sigma = (tensor.numpy().astype(np.float64) for tensor in network(rows.features))
    seen = rows.seen.numpy().astype(np.float64)
    error, simple = value - seen, _simple(parts["train"], rows) - seen
    departure = seen - rows.features[:, BACKGROUND].numpy()
    share = np.abs(error) / sigma
    split = "sites that were not learned from"
    metrics = {
        "rmse_ppm": _rms(error),
        "rmse_to_truth_ppm": _rms(value - rows.truth),
        "bias_ppm": float(error.mean()),
        "r2_of_departure_from_background": 1 - float((error**2).sum() / ((departure - departure.mean()) ** 2).sum()),
        "rmse_of_background_and_zonal_season_ppm": _rms(simple),
    }
    calibration = {"within_1_sigma": float((share < 1).mean()), "within_2_sigma": float((share < 2).mean())}
    return [
        Score(output=output, split=split, rows=len(seen), metrics=_rounded(found), synthetic=True)
        for output, found in (("xco2", metrics), ("xco2_uncertainty", calibration))
    ]


def _simple(learned: _Rows, asked: _Rows) -> NDArray[np.float64]:
    """What a network has to beat: the background plus the mean departure of 10 degree band and calendar month."""
    keys = [_band_and_season(rows) for rows in (learned, asked)]
    departure = (learned.seen - learned.features[:, BACKGROUND]).numpy().astype(np.float64)
    means = {key: departure[keys[0] == key].mean() for key in np.unique(keys[0])}
    guess = np.array([means.get(key, departure.mean()) for key in keys[1]])
    level: NDArray[np.float64] = asked.features[:, BACKGROUND].numpy() + guess
    return level


def _band_and_season(rows: _Rows) -> NDArray[np.int64]:
    names = [feature.name for feature in INPUTS[0].features]
    values = {name: rows.features[:, names.index(name)].numpy() for name in names}
    band = np.floor(np.degrees(np.arcsin(values["position_z"])) / 10)
    season = np.rint(np.degrees(np.arctan2(values["season_sin"], values["season_cos"])) / 30 + 12)
    key: NDArray[np.int64] = (band * 100 + season).astype(np.int64)
    return key


def _rms(error: NDArray[np.float64]) -> float:
    return float(np.sqrt((error**2).mean()))


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
