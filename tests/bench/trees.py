"""Rows per second of boosted trees on one core: the graph beside the booster it was made of (models/gwsa/README.md).

``python -m tests.bench.trees`` prints the table (3 minutes). Rows are random, which no cache likes. CPU time, rules and
copies included; every round asks each contestant once, and the median of the rounds stands.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from models.gwsa.export import export
from models.gwsa.native import NativePredictor
from models.gwsa.train import Settings, Trees, fit
from models.predictor import Predictor

FEATURES = 19
ROWS = 65_536
BATCHES = (64, 512, 1024, 4096, 16_384, 65_536)
ROUNDS = 5


def rows(count: int, seed: int) -> Any:
    """``(row, feature)`` with 5 % missing."""
    random = np.random.default_rng(seed)
    found = random.normal(size=(count, FEATURES)).astype(np.float32)
    found[random.random(found.shape) < 0.05] = np.nan
    return found


def learned(settings: Settings) -> Trees:
    """Trees that use every feature."""
    features = rows(60_000, 0)
    held = np.nan_to_num(features)
    noise = np.random.default_rng(1).normal(scale=3, size=len(features))
    target = 5 * held[:, 0] + 8 * np.sin(held[:, 1] * held[:, 2]) + held[:, 3:].sum(axis=1) + noise
    names = [f"predictor{number}" for number in range(FEATURES)]
    return fit(features, target, names=names, units=["1"] * FEATURES, settings=settings)


def rates(directory: Path, asked: Any) -> dict[str, dict[int, float]]:
    """Thousand rows per second by contestant and rows per call."""
    spent: dict[str, dict[int, list[float]]] = {"onnxruntime": {}, "XGBoost": {}}
    openers = {"onnxruntime": Predictor, "XGBoost": NativePredictor}
    for batch in BATCHES:
        part = asked[: max(batch, 16_384)]
        contestants = {name: opener.open(directory, batch=batch) for name, opener in openers.items()}
        for predictor in contestants.values():
            predictor.predict(part[:batch])
        for _ in range(ROUNDS):
            for name, predictor in contestants.items():
                start = time.process_time()
                predictor.predict(part)
                spent[name].setdefault(batch, []).append((time.process_time() - start) / len(part))
    return {name: {batch: 1e-3 / median(each) for batch, each in found.items()} for name, found in spent.items()}


def main() -> None:
    """Print the table in Markdown."""
    asked = rows(ROWS, 2)
    print("| trees | by | " + " | ".join(str(batch) for batch in BATCHES) + " |")  # noqa: T201
    for settings in (Settings(trees=60, depth=5), Settings()):
        with tempfile.TemporaryDirectory() as folder:
            export(
                learned(settings),
                Path(folder),
                name="bench",
                version="1",
                description="made up",
                rows=asked[:256],
                held="random rows that were not learned from",
                table="made up",
                command="python -m tests.bench.trees",
                synthetic=True,
                scores=[],
            )
            sizes = {path.name: round(path.stat().st_size / 2**20, 2) for path in Path(folder).iterdir()}
            for name, found in rates(Path(folder), asked).items():
                cells = " | ".join(f"{rate:.0f}" for rate in found.values())
                print(f"| {settings.trees} x {settings.depth} | {name} | {cells} |", flush=True)  # noqa: T201
            print(f"MiB: {sizes}")  # noqa: T201


if __name__ == "__main__":
    main()
