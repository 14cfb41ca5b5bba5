"""How the product is computed: background, what the network says of the departure, what soundings nearby say of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.xco2_global import DIRECTORY
from models.xco2_global.signature import MONTHS
from services.core.errors import ModelRefused
from services.core.grid import Window, windows
from services.core.product import Product
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Each, Input
from services.products.xco2_global.cost import told
from services.products.xco2_global.covariates import ABSENT, sequences
from services.products.xco2_global.declaration import (
    INFERRED,
    MISSING,
    OBSERVATIONS,
    PRODUCT,
    UNCERTAINTY,
    XCO2,
)
from services.products.xco2_global.inputs import PLACE_AND_SEASON, Inputs
from services.products.xco2_global.left_over import LeftOver
from services.products.xco2_global.left_over import prepare as prepare_left_over
from services.products.xco2_global.network import NAME, Network
from services.products.xco2_global.observed import Observed, prepare

HELD_BYTES = 256 << 20
"""Of the sequences that are held at a time; reading them takes about as much again."""


def open_recipe(inputs: Path, models: Path | None = None) -> "Xco2":
    """Check the inputs and the model.

    Args:
        inputs: directory with xco2.toml.
        models: what ``cenote export xco2_global`` wrote; None: the one shipped for the sample Earth, and for its inputs
            only.

    Raises:
        InputRefused: if an input does not hold; names file and fact.
        ModelRefused: if there is no model, or it does not hold, or was made for other covariates.
    """
    found = Inputs.find(inputs).hashed()
    if models is None and not found.settings.synthetic:
        raise ModelRefused(
            f"no model is shipped for {inputs}: `cenote train xco2_global` and `cenote export xco2_global` make one, "
            "and --models names its directory"
        )
    return Xco2(
        source=found,
        network=Network.open((models or DIRECTORY).resolve(), found),
    )


@dataclass(frozen=True, kw_only=True)
class Xco2:
    """The recipe."""

    source: Inputs
    network: Network

    @cached_property
    def product(self) -> Product:
        """The declaration, on the grid of the settings; synthetic where the inputs are."""
        scale, grid = self.source.soundings.scale, self.source.settings.grid
        quantities = tuple(
            replace(one, attributes={**one.attributes, "co2_scale": scale}) if one.units == XCO2.units else one
            for one in PRODUCT.quantities
        )
        found = replace(PRODUCT, grid=grid, quantities=quantities)
        if grid != PRODUCT.grid:
            found = replace(found, title=f"XCO2, global, {float(grid.step_x):g} degree, monthly")
        if not self.source.settings.synthetic:
            return found
        return replace(found, title=f"{found.title} (synthetic)", synthetic=True, license="CC0-1.0")

    def periods(self) -> TimeAxis:
        """The months that the covariates reach, with eleven before them."""
        return self.source.periods

    def inputs(self) -> tuple[Input, ...]:
        """Every file, by name."""
        return self.source.digests

    def models(self) -> Mapping[str, str]:
        """The network."""
        return {NAME: self.network.digest}

    def model_directories(self) -> Mapping[str, Path]:
        """Where it lies."""
        return {NAME: self.network.directory}

    def facts(self) -> Mapping[str, Any]:
        """What decides the values besides inputs and the model."""
        settings = self.source.settings
        return {
            "synthetic": settings.synthetic,
            "co2_scale": self.source.soundings.scale,
            "soundings": self.source.soundings.lines(),
            "background": json.loads(self.network.fitted.model_dump_json()),
            "features": settings.features,
            "settings": settings.deciding(),
        }

    def remarks(self, window: Window) -> list[str]:  # noqa: ARG002 - it is so for all of them
        """Months that no sounding tells of, for people."""
        periods, told = self.periods(), set(self.source.sounding_months)
        without = [name for name, month in zip(periods.ids, periods.starts, strict=True) if month not in told]
        line = f"soundings: no file of {len(without)} of {len(periods)} months, {', '.join(without[:3])}"
        return [f"{line}{' ...' if len(without) > 3 else ''}: the model speaks alone there"] if without else []

    def prepare(self, each: Each, note: Callable[[str], None]) -> None:
        """Make the cells of the soundings and what they tell of their neighbourhood, unless they are there."""
        observed = prepare(self.source, each, note)
        if self.source.settings.nearby:
            prepare_left_over(self.source, observed, self.network, each, note)

    def estimate(self, periods: TimeAxis, window: Window, shard: tuple[int, int]) -> list[str]:
        """What a render of some periods of a window will cost, as ``Recipe`` says it."""
        parts = windows(window.shape, shard)
        return told(self.source, self.network, periods, window, sum(len(list(self._strips(part))) for part in parts))

    def check_inputs(self) -> None:
        """Look at every file once more."""
        self.source.check_unchanged()

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values ``(time, y, x)``; a strip of rows of a month at a time is in memory.

        Raises:
            InputRefused: if a file is no longer what it was.
            ModelRefused: if the model is not the one that was planned with.
        """
        stored = {
            one.name: np.full((len(periods), *window.shape), one.fill, dtype=one.dtype) for one in PRODUCT.quantities
        }
        strips = list(self._strips(window))
        most = max((strip.height * strip.width for _, strip in strips), default=0)
        memory = np.empty(most * MONTHS * len(self.source.settings.features), dtype=np.float32)
        for position, month in enumerate(periods.starts):
            for first, strip in strips:
                for name, values in self._strip(month, strip, memory).items():
                    stored[name][position, first : first + strip.height] = values
        return stored

    def _strips(self, window: Window) -> Iterator[tuple[int, Window]]:
        row_bytes = 4 * window.width * MONTHS * len(self.source.settings.features)
        height = max(HELD_BYTES // row_bytes, 1)
        for first in range(0, window.height, height):
            yield (
                first,
                replace(window, row=window.row + first, height=min(height, window.height - first)),
            )

    def _strip(self, month: int, window: Window, memory: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        grid = self.source.settings.grid
        asked = sequences(self.source, month, window, memory)
        of_files = asked[..., : -len(PLACE_AND_SEASON)]
        absent = np.isnan(of_files).mean(axis=(1, 2)).reshape(window.shape) > ABSENT
        departure, spread = (part.reshape(window.shape) for part in self.network.ask(asked))
        values = self.network.background(self.source).field(month, grid, window) + departure
        cells = self._observed.window(month, window)
        count = np.zeros(window.shape)
        count[cells.row, cells.column] = cells.count
        if self._left_over is not None:
            over, deviation = self._left_over.at(month, grid, window)
            lasts = self._left_over.lasting(grid.latitudes[window.rows][:, None], grid.longitudes[window.columns])
            values, spread = values + spread * over + lasts, spread * deviation
        gone = np.where(np.isnan(values), np.nan, 0.0)
        layers: dict[str, NDArray[Any]] = {
            XCO2.name: values,
            UNCERTAINTY.name: spread,
            OBSERVATIONS.name: np.minimum(count, 65534),
            INFERRED.name: (count == 0).astype(np.float64),
            MISSING.name: absent.astype(np.float64),
        }
        return {one.name: one.pack(layers[one.name] + gone) for one in PRODUCT.quantities}

    @cached_property
    def _observed(self) -> Observed:
        return Observed.of(self.source)

    @cached_property
    def _left_over(self) -> LeftOver | None:
        if not self.source.settings.nearby:
            return None
        return LeftOver.of(self.source, self._observed, self.network)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
