"""Sequences per second of the attention network of XCO2 on one core (models/xco2_global/README.md, issue 6).

``python -m tests.bench.network`` writes infra/reports/xco2_network.json and prints the table (5 minutes). Sequences are
random, which no cache likes; the weights nearly so, and speed does not hang on them. CPU time on one thread; every
round asks each contestant once, and the median of the rounds stands. ``predictor`` is what a product calls:
onnxruntime with the rules of the card and all copies.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from models.predictor import Predictor
from models.xco2_global.export import export
from models.xco2_global.signature import INPUT
from models.xco2_global.table import Covariate, SequenceTable, make_rows
from models.xco2_global.train import Settings, Trained, train

FEATURES = 25
BATCHES = (64, 256, 1024, 4096, 16_384)
HIDDEN = (64, 128)
ROUNDS = 3
LEAST = 1024
"""Sequences that a turn asks for, at least; no part of them is empty, on which onnxruntime 1.31 aborts."""

MISSING = 0.03
SEED = 0

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "infra" / "reports" / "xco2_network.json"

type Answers = Callable[[Any], Any]


def table(rows: int = 2000) -> SequenceTable:
    """Random covariates with a few missing, and a target that hangs on one of them."""
    random = np.random.default_rng(SEED)
    values = random.normal(size=(rows, 12, FEATURES)).astype(np.float32)
    target = values[:, 11, 0].copy()
    values[random.random(values.shape) < MISSING] = np.nan
    cell = np.arange(rows)
    return SequenceTable(
        description="random",
        synthetic=True,
        covariates=tuple(Covariate(name=f"f{n}", units="1", long_name=f"number {n}") for n in range(FEATURES)),
        first_month=0,
        values=values,
        rows=make_rows({"cell": cell, "month": np.full(rows, 11), "target": target, "group": cell % 10}),
    )


def sequences() -> Any:
    """``(row, 12, feature)``, another draw of the same."""
    random = np.random.default_rng(SEED + 1)
    asked = random.normal(size=(max(*BATCHES, LEAST), 12, FEATURES)).astype(np.float32)
    asked[random.random(asked.shape) < MISSING] = np.nan
    return asked


def contestants(trained: Trained, directory: Path) -> dict[str, Answers]:
    """What answers a batch with departures, by name."""
    network = trained.network()
    half = trained.network().to(torch.bfloat16)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])

    def by_torch(asked: Any) -> Any:
        return network(torch.from_numpy(asked))[0].numpy()

    def by_torch_in_bfloat16(asked: Any) -> Any:
        return half(torch.from_numpy(asked).to(torch.bfloat16))[0].float().numpy()

    def by_session(asked: Any) -> Any:
        return session.run(None, {INPUT: asked})[0]

    predictors = {batch: Predictor.open(directory, batch=batch) for batch in (*BATCHES, LEAST)}

    def by_predictor(asked: Any) -> Any:
        return predictors[len(asked)].predict(asked)["departure"]

    found: dict[str, Answers] = {
        "onnxruntime": by_session,
        "predictor": by_predictor,
        "torch eager": by_torch,
        "torch eager bfloat16": by_torch_in_bfloat16,
    }
    if shutil.which("g++"):  # what torch.compile calls
        compiled = torch.compile(trained.network(), dynamic=True)
        found["torch.compile"] = lambda asked: compiled(torch.from_numpy(asked))[0].numpy()
    return found


def seconds(answers: Answers, asked: Any, batch: int) -> float:
    """CPU seconds that a sequence takes, over at least LEAST of them."""
    parts = [asked[start : start + batch] for start in range(0, max(batch, LEAST), batch)]
    start = time.process_time()
    for part in parts:
        answers(part)
    return (time.process_time() - start) / (len(parts) * batch)


def measured(trained: Trained, place: Path) -> dict[str, Any]:
    """Thousand sequences per second by contestant and rows per call, and how far each is from torch eager."""
    found, asked = contestants(trained, place / "model"), sequences()
    spent: dict[str, dict[int, list[float]]] = {}
    for batch in BATCHES:
        for answers in found.values():
            answers(asked[: min(batch, LEAST)])  # warms up, and compiles
        for _ in range(ROUNDS):
            for name, answers in found.items():
                spent.setdefault(name, {}).setdefault(batch, []).append(seconds(answers, asked, batch))
    departures = {name: answers(asked[:LEAST]) for name, answers in found.items()}
    return {
        "thousand_per_s": {
            name: {batch: round(1e-3 / median(each), 2) for batch, each in times.items()}
            for name, times in spent.items()
        },
        "largest_difference_ppm": {
            name: float(np.abs(values - departures["torch eager"]).max()) for name, values in departures.items()
        },
    }


def main() -> None:
    """Write the report and print its table in Markdown."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of torch's compiler, about its own parts
    results: dict[str, Any] = {}
    print("| hidden | by | " + " | ".join(str(batch) for batch in BATCHES) + " |")  # noqa: T201
    with torch.no_grad():
        for hidden in HIDDEN:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                trained = train(table(), Settings(hidden=hidden, epochs=1), SEED, (0,), place / "weights")
                export(trained, place / "model", rows=sequences()[:256], command="python -m tests.bench.network")
                results[str(hidden)] = measured(trained, place)
            for name, rate in results[str(hidden)]["thousand_per_s"].items():
                cells = " | ".join(f"{each:.1f}" for each in rate.values())
                print(f"| {hidden} | {name} | {cells} |", flush=True)  # noqa: T201
            REPORT.write_text(json.dumps(_report(results), indent=1) + "\n")


def _report(results: dict[str, Any]) -> dict[str, Any]:
    git = shutil.which("git") or "git"
    commit = subprocess.run([git, "rev-parse", "HEAD"], check=False, cwd=ROOT, capture_output=True, text=True)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "command": "OMP_NUM_THREADS=1 .venv/bin/python -m tests.bench.network",
        "commit": commit.stdout.strip(),
        "machine": {"cpu": models[0].split(": ")[1], "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
        "versions": {
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "measured": "CPU seconds of one thread, medians of rounds in which each contestant has one turn",
        "synthetic": True,
        "months": 12,
        "features": FEATURES,
        "missing_share": MISSING,
        "rounds": ROUNDS,
        "seed": SEED,
        "torch.compile": "dynamic shapes" if shutil.which("g++") else "no C++ compiler here",
        "by_hidden": results,
    }


if __name__ == "__main__":
    main()
