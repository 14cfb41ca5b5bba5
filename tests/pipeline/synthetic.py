"""A recipe whose values say what, where and when they are, and what a command does with it.

Imported by name (``tests.pipeline.synthetic``), also by dask's worker processes.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from services.core.catalog import Version, current_version, read_pointer
from services.core.errors import InputRefused, RenderFailed
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.store import Store
from services.core.style import Style
from services.core.time_axis import TimeAxis
from services.pipeline import models
from services.pipeline import publish as publishing
from services.pipeline import run as running
from services.pipeline.code import Code, packages_of, this_code
from services.pipeline.plan import Plan, plan
from services.pipeline.recipe import Input, Recipe

REGION = Grid(
    west=Fraction(10),
    north=Fraction(50),
    step_x=Fraction(1, 4),
    step_y=Fraction(1, 4),
    width=45,
    height=29,
    chunk_y=4,
    chunk_x=5,
)
"""Sizes that nothing divides: 8 x 9 chunks, 2 x 3 shards, 3 levels."""

ONE_SHARD = replace(REGION, width=12, height=9, chunk_y=4, chunk_x=4)

PACKED = Quantity(
    name="heat",
    units="K",
    long_name="made-up temperature",
    standard_name="air_temperature",
    dtype="int16",
    scale_factor=0.01,
    add_offset=20.0,
    # inside the range of the values, on purpose: means must step over it
    fill_value=1000,
    style=Style(minimum=-90, maximum=90),
)
PLAIN = Quantity(name="flux", units="g m-2 s-1", long_name="made-up flux", dtype="float32", ancillary_of="heat")


def product(identity: str = "synthetic", **changes: Any) -> Product:
    """A declaration; ``changes`` are its fields."""
    fields: dict[str, Any] = {
        "id": identity,
        "title": "Made up",
        "description": "Values that say where and when they are.",
        "grid": ONE_SHARD,
        "step": "P1M",
        "quantities": (PACKED, PLAIN),
        "synthetic": True,
    }
    return Product(**(fields | changes))


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Whole numbers of stored units that differ between neighbours, periods and quantities; some cells are missing."""

    product: Product
    axis: TimeAxis
    shift: int = 0
    """Added to every value: another input."""

    flat: bool = False
    """Whether every period has the same values, so that equal regions compress to equally many bytes."""

    holes: tuple[str, ...] = ()
    """Periods with a mask of their own."""

    empty: tuple[str, ...] = ()
    """Periods in which everything is missing."""

    failing: Mapping[str, str] = field(default_factory=dict)
    """Period -> what happens to a region of it: refuse, fail, bug."""

    log: str | None = None
    """Folder where every call of ``compute`` leaves a file."""

    slow: float = 0.0
    """Seconds that a call takes at least."""

    models_at: Mapping[str, str] = field(default_factory=dict)
    """Model name -> its directory."""

    def periods(self) -> TimeAxis:
        return self.axis

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name="made up", size=1, sha256=f"{self.shift:064x}"),)

    def models(self) -> Mapping[str, str]:
        return {name: sha256(Path(at) / "card.json") for name, at in self.models_at.items()}

    def model_directories(self) -> Mapping[str, Path]:
        return {name: Path(at) for name, at in self.models_at.items()}

    def facts(self) -> Mapping[str, Any]:
        return {"shift": self.shift}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        if self.log is not None:
            told = {"periods": list(periods.ids), "window": [window.row, window.column, window.height, window.width]}
            (Path(self.log) / f"{time.time_ns()}-{os.getpid()}").write_text(json.dumps(told))
        time.sleep(self.slow)
        for name in periods.ids:
            match self.failing.get(name):
                case "refuse":
                    raise InputRefused(f"made-up file of {name} is broken")
                case "fail":
                    raise RenderFailed(f"made-up failure of {name}")
                case "bug":
                    raise ZeroDivisionError(f"made-up mistake in {name}")
        return {quantity.name: self.stored(quantity, periods, window) for quantity in self.product.quantities}

    def stored(self, quantity: Quantity, periods: TimeAxis, window: Window | None = None) -> NDArray[Any]:
        """What is to be stored, ``(time, y, x)``."""
        grid = self.product.grid
        window = window or Window(row=0, column=0, height=grid.height, width=grid.width)
        row = np.arange(grid.height)[window.rows, np.newaxis]
        column = np.arange(grid.width)[np.newaxis, window.columns]
        which = self.product.quantities.index(quantity)
        out = np.empty((len(periods), *window.shape), dtype=quantity.dtype)
        for place, (start, name) in enumerate(zip(periods.starts, periods.ids, strict=True)):
            when = 0 if self.flat else start
            values = (row * 131 + column * 17 + when * 7 + which * 1009 + self.shift) % 3000 - 500
            missing = (row * 5 + column * 3) % 11 == 0
            if name in self.holes:
                missing = missing | ((row + column) % 7 == 0)
            if name in self.empty:
                missing = missing | True
            if quantity.is_integer:
                # the missing value of PACKED lies among them: nothing may have it by chance
                values = np.where(values == quantity.fill_value, values + 1, values)
                out[place] = np.where(missing, quantity.fill, values)
            else:
                out[place] = np.where(missing, np.nan, values * 0.125)
        return out


def write_model(folder: Path, body: bytes, **card: Any) -> Path:
    """A model and its card, as far as the pipeline looks at them."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(body)
    (folder / "card.json").write_text(json.dumps({"sha256": sha256(folder / "model.onnx"), **card}))
    return folder


def sha256(path: Path) -> str:
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(path.read_bytes()).hexdigest()


def months(count: int, first: str = "2001-01") -> TimeAxis:
    return TimeAxis.regular(first, "P1M", count)


class Quiet:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.finished: list[str] = []

    def start(self, stage: str, total: int, done: int) -> None:
        self.notes.append(f"{stage} {done}/{total}")

    def advance(self, stage: str, task: str) -> None:
        assert task.startswith(stage)
        self.finished.append(task)

    def note(self, text: str) -> None:
        self.notes.append(text)


def current(store: Store, name: str = "synthetic") -> Version | None:
    return None if read_pointer(store, name) is None else current_version(store, name)[1]


def planned(
    store: Store, recipe: Recipe, *, periods: str | None = None, keep: bool = True, code: Code | None = None
) -> Plan:
    """The plan of the next render."""
    return plan(
        product=recipe.product,
        available=recipe.periods(),
        current=current(store, recipe.product.id),
        code=code or this_code(packages_of(recipe)),
        inputs=recipe.inputs(),
        models=dict(recipe.models()),
        facts=dict(recipe.facts()),
        periods=periods,
        keep=keep,
    )


def composed(
    store: Store,
    recipe: Recipe | None,
    made: Plan,
    client: Client | None = None,
    progress: running.Progress | None = None,
) -> Version:
    """Run a plan; the version that would list its segment."""
    base = current(store, made.product.id)
    scores = {} if recipe is None else models.keep(store, made.models, recipe.model_directories())
    outcome = running.run(store, made, recipe, client, progress or Quiet())
    return publishing.compose(made, outcome, base, scores=scores)


def render(
    store: Store, recipe: Recipe, client: Client | None = None, *, periods: str | None = None, keep: bool = True
) -> publishing.Published:
    """What ``cenote render`` does: plan, run, compose, publish."""
    made = planned(store, recipe, periods=periods, keep=keep)
    return publishing.publish(store, composed(store, recipe, made, client))


def contents(store: Store, prefix: str) -> dict[str, str]:
    """Path below a prefix -> sha256 of every object, the ledger aside."""
    import hashlib  # noqa: PLC0415

    return {
        listed.key.removeprefix(prefix): hashlib.sha256(store.get(listed.key)).hexdigest()
        for listed in store.list(prefix)
        if "/ledger/" not in listed.key
    }
