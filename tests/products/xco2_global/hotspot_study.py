"""How well hotspots are found on the sample Earth, by the error of the field (synthetic).

    python -m tests.products.xco2_global.hotspot_study table REPORT.json [--seed 7] [--every 3]
    python -m tests.products.xco2_global.hotspot_study collection ID --store STORE --inputs DIR [--seed 7]

``table`` stands in for rendered fields: the truth of each month, plus errors like a network's (smooth over some 400 km,
30 % of their variance the same in every month) and noise between cells, less a part of each plume that the model did
not capture. *With* emission inputs, plumes of the inventory are captured whole, those it lacks in part, and those
switched off are there in part. ``collection`` scores what was really rendered. Numbers were chosen with the seeds in
TUNED and are scored with another one.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.catalog import current_version
from services.core.dataset import Dataset
from services.core.settings import StoreSettings
from services.core.store import Store
from services.products.xco2_global.hotspots import GUIDES, HotspotsRecipe, computed
from services.sample.carbon import SPANS, Carbon
from services.sample.carbon_emitters import HIDDEN, STRONG, SWITCHED_OFF, Emissions, Emitter
from services.sample.carbon_seen import Covariates
from services.sample.earth import Earth
from services.sample.noise import noise, sphere
from services.sample.solutions import month_number
from services.validation.components import Hotspots, Limits, find
from services.validation.excess import Around, Months
from services.validation.hotspots import Score, score

TUNED = (8, 11, 12)
"""Seeds that numbers were chosen with: the detector's 11 and 12, those of ``lasting.py`` 8."""

SMOOTH = (0.0, 0.3, 0.6, 0.9)
"""Standard deviations of the smooth error of a month, ppm."""

LASTING = 0.3
"""Share of its variance that is the same in every month."""

NOISE = 0.3
"""Of each cell and month for itself, ppm."""

CAPTURED = (1.0, 0.8, 0.6)
"""Share of a plume that the field shows where no inventory tells of it."""

type Values = NDArray[np.float64]


def months(every: int = 1) -> range:
    first, last = (month_number(one) for one in SPANS["study"])
    return range(first, last + 1, every)


def guides(earth: Carbon) -> Values:
    """GUIDES of the sample's own covariate files: means of the last year, 0 where there is nothing."""
    seen = Covariates(world=earth)
    skies = [seen.month(month) for month in list(months())[-12:]]
    names = {"ndvi": "vegetation"}
    maps = [np.stack([sky[names.get(name, name)] for sky in skies]) for name in GUIDES]
    counts = [np.maximum((~np.isnan(one)).sum(axis=0), 1) for one in maps]
    return np.stack([np.nansum(one, axis=0) / count for one, count in zip(maps, counts, strict=True)]).astype(float)


def lacking(earth: Carbon, captured: float, *, inventory: bool) -> Emissions:
    """Emissions that a field with such inputs has too much, negative ones where it lacks some."""

    def wrong(one: Emitter) -> Emitter:
        if not inventory or one.hidden:
            return replace(one, emitted=-(1 - captured) * one.emitted)
        # what the inventory says in vain is believed as far as soundings do not tell otherwise
        return replace(one, emitted=(1 - captured) * one.reported if one.switched_off else 0.0)

    made = Emissions(weather=earth.weather)
    vars(made)["emitters"] = tuple(wrong(one) for one in earth.emitters())
    return made


def field_of(earth: Carbon, smooth: float, captured: float, *, inventory: bool) -> Callable[[int], Values]:
    """What stands in for a rendered month."""
    points = sphere(earth.grid.longitudes, earth.grid.latitudes)
    wrong = lacking(earth, captured, inventory=inventory)
    asked: dict[str, Any] = {"seed": earth.seed, "frequency": 14, "octaves": 2}
    always = noise(points, name="study error", **asked)

    def month(number: int) -> Values:
        values = earth.xco2(number).astype(np.float64) + wrong.plumes(number)
        if smooth:
            now = noise(points, name=f"study error {number}", **asked)
            values += smooth * (np.sqrt(LASTING) * always + np.sqrt(1 - LASTING) * now)
            values += NOISE * np.random.default_rng([earth.seed, number]).standard_normal(values.shape)
        return values

    return month


def detected(earth: Carbon, field: Callable[[int], Values], around: Around, every: int, stated: float) -> Hotspots:
    gathered = Months(earth.grid)
    for number in months(every):
        gathered.add(number, around.excess(field(number)), np.full(earth.grid.shape, stated) if stated else None)
    return find(gathered.lasting(), earth.grid, Limits())


def scored(earth: Carbon, found: Hotspots) -> Score:
    """Against the strongest; the hidden ones apart, and those switched off as decoys."""
    emitters = earth.emitters()
    places = np.array([(one.longitude, one.latitude) for one in emitters])
    hidden = np.array([one.hidden for one in emitters[:STRONG]])
    decoys = np.array([one.switched_off for one in emitters])
    assert (int(hidden.sum()), int(decoys.sum())) == (HIDDEN, SWITCHED_OFF)
    centroids = np.array([(one.longitude, one.latitude) for one in found.table]).reshape(-1, 2)
    return score(centroids, places[:STRONG], chosen=hidden, decoys=places[decoys])


def table(seed: int, every: int, tell: Callable[[str], None]) -> dict[str, Any]:
    earth = Carbon("study", seed=seed)
    around = Around.of(earth.grid, guides(earth))
    rows = []
    for inventory in (False, True):
        for captured in CAPTURED:
            for smooth in SMOOTH:
                found = detected(earth, field_of(earth, smooth, captured, inventory=inventory), around, every, smooth)
                one = scored(earth, found)
                rows.append({"inventory": inventory, "captured": captured, "error_ppm": smooth, **one.to_json()})
                tell(
                    f"{'with' if inventory else 'without'} inventory, {captured:.0%} captured, error {smooth} ppm: "
                    f"recall {one.recall:.2f}, false {one.false_share:.2f} of {one.detections}, hidden "
                    f"{one.chosen_hits}/{one.chosen}, at switched-off {one.false_at_decoys}/{one.decoys}"
                )
    bare = detected(
        earth,
        field_of(earth, 0.0, 1.0, inventory=False),
        Around.of(earth.grid, np.empty((0, *earth.grid.shape))),
        every,
        0,
    )
    without = scored(earth, bare)
    tell(f"no guides, no error: recall {without.recall:.2f}, false {without.false_share:.2f} of {without.detections}")
    return {
        "synthetic": True,
        "seed": seed,
        "tuned_with": list(TUNED),
        "months": len(months(every)),
        "noise_ppm": NOISE,
        "lasting_share": LASTING,
        "limits": vars(Limits()),
        "rows": rows,
        "truth_without_guides": without.to_json(),
    }


def collection(name: str, store: str, inputs: Path, seed: int) -> dict[str, Any]:
    opened = Store.open(store, StoreSettings())
    dataset = Dataset(opened, current_version(opened, name)[1])
    recipe = HotspotsRecipe.open(opened, dataset, inputs=inputs, variable=None, periods=None)
    earth = Carbon("study", seed=seed)
    one = scored(earth, computed(recipe)[1])
    return {"synthetic": True, "collection": name, "seed": seed, "guides": list(recipe.guides), **one.to_json()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    made = kinds.add_parser("table")
    made.add_argument("report", type=Path)
    made.add_argument("--every", type=int, default=1)
    real = kinds.add_parser("collection")
    real.add_argument("id")
    real.add_argument("--store", required=True)
    real.add_argument("--inputs", type=Path, required=True)
    for one in (made, real):
        one.add_argument("--seed", type=int, default=Earth().seed)
    asked = parser.parse_args()
    if asked.seed in TUNED:
        sys.stderr.write(f"seed {asked.seed} is one that numbers were chosen with\n")
    if asked.kind == "collection":
        sys.stdout.write(json.dumps(collection(asked.id, asked.store, asked.inputs, asked.seed), indent=1) + "\n")
        return
    found = table(asked.seed, asked.every, lambda line: print(line, flush=True))  # noqa: T201 - a script
    asked.report.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
