"""The sample Earth's XCO2 at half a degree, 84 months: learned, rendered, held against its truth (synthetic).

    python -m tests.products.xco2_global.sample_study DIR [STEP ...] [--seed 7] [--rows 400000] [--epochs 8]

Steps, all of them in this order where none is named; each goes on where it stopped, or is done:

    inputs      the study-sized sample Earth: soundings, stations, covariates (3 GB)
    train       cenote train and export, with the inventory of emissions among the covariates
    render      cenote render
    validate    cenote validate: stations, held-out blocks, folds, truth
    without     the same network learned and rendered without the inventory
    hotspots    detections in both rendered collections against the emitters of the truth
    shuffled    the network once more, each cell with the covariates of another cell
    report      infra/reports/xco2_study.json

DIR lies outside the checkout and takes about 10 GB; all of it is hours of two cores, and `make sample-study` runs it.
A segment's id holds the digest of the code, so ``render`` must be started each time from the same code. The seed is
none that numbers were chosen with.
"""

import argparse
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.xco2_global.table import SequenceTable
from services.products.xco2_global.inputs import PLACE_AND_SEASON, SETTINGS
from services.products.xco2_global.table import SCORED, STOPPING
from services.products.xco2_global.training import TABLE
from services.sample.carbon_files import read_world, write_carbon
from services.sample.earth import Earth
from services.sample.manifest import MANIFEST
from tests.products.study import ROOT, Place, cenote, commit, tell
from tests.products.xco2_global.hotspot_study import TUNED, collection

REPORT = ROOT / "infra" / "reports" / "xco2_study.json"

ID = "xco2_global"
INVENTORY = "emissions"
"""The covariate that tells of emissions."""

WORKERS = "2"
STEPS = ("inputs", "train", "render", "validate", "without", "hotspots", "shuffled", "report")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Where it lies, and how it learns."""

    place: Place
    seed: int
    rows: int
    epochs: int

    @property
    def bare(self) -> Place:
        """The part without the inventory: its inputs are the same files."""
        return Place(directory=self.place.directory / "without")

    def inputs(self) -> None:
        """The files, and how many rows and epochs the network gets."""
        if (self.place.inputs / MANIFEST).exists():
            tell(f"{self.place.inputs} is there")
            return
        write_carbon(self.place.inputs, "study", lambda done, of, what: tell(f"{done} of {of}: {what}"), seed=self.seed)
        settings = self.place.inputs / SETTINGS
        text = settings.read_text(encoding="utf-8").partition("\n[training]")[0]
        learning = f"hidden = 64\nepochs = {self.epochs}\npatience = {self.epochs}\nrows = {self.rows}\n"
        settings.write_text(f"{text}\n[training]\n{learning}", encoding="utf-8")

    def train(self, place: Place) -> None:
        """Learn and export."""
        trained = place.directory / "trained"
        run(place, "train", ID, "--inputs", str(place.inputs), "--out", str(trained), "--workers", WORKERS)
        run(place, "export", ID, "--from", str(trained), "--out", str(place.models))

    def render(self, place: Place) -> None:
        """Render all months; what is there is not rendered again."""
        models = ("--inputs", str(place.inputs), "--models", str(place.models))
        run(place, "render", ID, *models, "--workers", WORKERS)

    def validate(self) -> None:
        """The report that ``cenote validate`` writes."""
        out = self.place.directory / "report"
        models = ("--inputs", str(self.place.inputs), "--models", str(self.place.models))
        run(self.place, "validate", ID, "--collection", ID, *models, "--out", str(out))

    def without(self) -> None:
        """Learn and render from the same files with a xco2.toml that does not name the inventory."""
        self.bare.inputs.mkdir(parents=True, exist_ok=True)
        for path in self.place.inputs.iterdir():
            linked = self.bare.inputs / path.name
            if path.is_file() and path.name != SETTINGS and not linked.exists():
                linked.symlink_to(path)
        text = (self.place.inputs / SETTINGS).read_text(encoding="utf-8")
        (self.bare.inputs / SETTINGS).write_text(left_out(text, INVENTORY), encoding="utf-8")
        self.train(self.bare)
        self.render(self.bare)

    def hotspots(self) -> None:
        """Against all emitters, with the inventory and without."""
        found = {
            name: collection(ID, str(place.store), place.inputs, self.seed)
            for name, place in (("with_inventory", self.place), ("without_inventory", self.bare))
            if (place.store / "catalog.json").exists()
        }
        self.place.note("hotspots", found)
        tell(json.dumps(found))

    def shuffled(self) -> None:
        """Learn from cells that each have the covariates of another; held-out blocks are scored the same way."""
        from models.xco2_global.train import Settings, Trained, train  # noqa: PLC0415 - torch is slow to start

        held = self.place.directory / "trained"
        table = SequenceTable.read(held / TABLE)
        honest = Trained.read(held)
        generator = np.random.default_rng(self.seed)
        files = table.values.shape[2] - len(PLACE_AND_SEASON)
        values = np.array(table.values)
        values[..., :files] = values[generator.permutation(len(values))][..., :files]
        mixed = replace(table, values=values)
        asked = Settings(hidden=64, epochs=self.epochs, patience=self.epochs)
        learned = train(
            mixed,
            asked,
            honest.record.seed,
            (STOPPING,),
            self.place.directory / "shuffled",
            tell,
            withheld_groups=(SCORED,),
        )
        rows = np.flatnonzero(table.rows["group"] == SCORED)
        rows = np.sort(generator.choice(rows, min(20_000, len(rows)), replace=False))
        target = table.rows["target"][rows]

        def rmse(said: Any) -> float:
            return round(float(np.sqrt(np.mean((target - said) ** 2, dtype=np.float64))), 4)

        found = {
            "cells": len(rows),
            "rmse_ppm_against_soundings": {
                "network": rmse(honest.predict(table.sequences(rows))["departure"]),
                "network_of_shuffled_covariates": rmse(learned.predict(mixed.sequences(rows))["departure"]),
                "background": rmse(0.0),
            },
        }
        self.place.note("shuffled", found)
        tell(json.dumps(found))

    def report(self) -> None:
        """What the others found, in one small file."""
        said = json.loads((self.place.directory / "report" / "report.json").read_text(encoding="utf-8"))
        world = read_world(self.place.inputs)
        stations = {key: value for key, value in said["stations"].items() if not isinstance(value, list)}
        document = {
            "synthetic": True,
            "commit": commit(),
            "command": f"make sample-study STUDY=DIR, seed {self.seed}, {self.rows} rows, {self.epochs} epochs",
            "seed": world.seed,
            "grid_degrees": 0.5,
            **{key: said[key] for key in ("periods", "co2_scale", "guesses", "summary", "truth", "held_out")},
            "stations": stations,
            "shuffled": self.place.noted("shuffled"),
            "hotspots": self.place.noted("hotspots"),
        }
        REPORT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        shutil.copyfile(self.place.directory / "report" / "map.png", REPORT.with_suffix(".png"))


def left_out(text: str, name: str) -> str:
    """The text of a xco2.toml without one of its covariates.

    Raises:
        AssertionError: if it has none of that name.
    """
    part = re.compile(r"\[\[covariates\]\]\nname = \"" + re.escape(name) + r"\"\n(?:[^\[\n][^\n]*\n)*\n?")
    found, count = part.subn("", text)
    assert count == 1, f"{count} covariates are called {name}"
    return found


def run(place: Place, *words: str) -> None:
    """A command of cenote on the store of a place, at low priority; ends with it where it fails."""
    tell("cenote " + " ".join(words))
    nice = [shutil.which("nice") or "nice", "-n", "10"]
    subprocess.run([*nice, *cenote("--store", str(place.store), *words)], check=True, cwd=ROOT)


def main() -> None:
    """Steps, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--seed", type=int, default=Earth().seed)
    parser.add_argument("--rows", type=int, default=400_000, help="cells that the network learns from")
    parser.add_argument("--epochs", type=int, default=8)
    asked = parser.parse_args()
    unknown = sorted(set(asked.steps) - set(STEPS))
    if unknown:
        parser.error(f"{unknown[0]} is no step; they are {', '.join(STEPS)}")
    if asked.seed in TUNED:
        parser.error(f"numbers were chosen with seed {asked.seed}: it scores nothing")
    place = Place(directory=asked.directory.resolve())
    study = Study(place=place, seed=asked.seed, rows=asked.rows, epochs=asked.epochs)
    work = {
        "inputs": study.inputs,
        "train": lambda: study.train(place),
        "render": lambda: study.render(place),
        "validate": study.validate,
        "without": study.without,
        "hotspots": study.hotspots,
        "shuffled": study.shuffled,
        "report": study.report,
    }
    place.directory.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        if not asked.steps or step in asked.steps:
            tell(f"step {step}")
            work[step]()
    tell(f"`cenote --store {place.store} serve` shows it")


if __name__ == "__main__":
    main()
