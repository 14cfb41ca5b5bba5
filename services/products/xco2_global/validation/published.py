"""A published version on the product's grid, and what it was made from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.xco2_global import DIRECTORY
from services.core.dataset import Dataset
from services.core.errors import InputRefused, ModelRefused
from services.core.grid import Window
from services.core.quantity import Quantity
from services.pipeline.recipe import Here
from services.products.xco2_global.declaration import INFERRED, OBSERVATIONS, UNCERTAINTY, XCO2
from services.products.xco2_global.inputs import SETTINGS, Inputs
from services.products.xco2_global.network import BACKGROUND_FILE, NAME, Network
from services.products.xco2_global.observed import Observed, prepare
from services.products.xco2_global.render import open_recipe
from services.sources.field import Field, open_field
from services.validation.report import NotComputed, Note, check_made_from

type Floats = NDArray[np.float64]

READ = (XCO2, UNCERTAINTY, OBSERVATIONS, INFERRED)
"""Quantities that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version, the inputs that it was made from, their cells with soundings, and the network.

    Raises:
        InputRefused: from ``of``, if the version is none of this product, or was made from other inputs.
        ModelRefused: from ``of``, if the models are not those of the version.
    """

    dataset: Dataset
    source: Inputs
    """Hashed."""

    observed: Observed
    """Prepared."""

    network: Network | None
    """None where it was not given."""

    row: int
    """Row of the version's first cell on the grid of the settings."""

    column: int

    @classmethod
    def of(cls, dataset: Dataset, inputs: Path, models: Path | None, note: Note) -> "Published":
        """Lay a version on the product's grid, and hold its inputs and model against these.

        Args:
            dataset: the version.
            inputs: directory with xco2.toml.
            models: what it was rendered with; None: the sample Earth's for its inputs, else none.
            note: told how far it is.
        """
        name, grid = dataset.product.id, dataset.product.grid
        kinds = {(one.name, one.dtype, one.scale_factor, one.add_offset) for one in dataset.product.quantities}
        lacking = [one.name for one in READ if (one.name, one.dtype, one.scale_factor, one.add_offset) not in kinds]
        if lacking:
            raise InputRefused(f"{name} has no {', '.join(lacking)} as xco2_global stores them")
        source = Inputs.find(inputs).hashed()
        whole = source.settings.grid
        row, column = (whole.north - grid.north) / whole.step_y, (grid.west - whole.west) / whole.step_x
        if (grid.step_x, grid.step_y) != (whole.step_x, whole.step_y) or {row.denominator, column.denominator} != {1}:
            raise InputRefused(f"{name} does not lie on the cells of {source.settings.step} degree of {inputs}")
        network = _network(dataset, source, inputs, models)
        return cls(
            dataset=dataset,
            source=source,
            observed=prepare(source, Here(), note),
            network=network,
            row=int(row),
            column=int(column),
        )

    @property
    def the_network(self) -> Network:
        """The network.

        Raises:
            NotComputed: if it was not given.
        """
        if self.network is None:
            raise NotComputed("the model is not given (--models DIR)")
        return self.network

    @property
    def synthetic(self) -> bool:
        """Whether the inputs are."""
        return self.source.settings.synthetic

    @cached_property
    def land(self) -> Field | None:
        """Share of land; None where no file tells it."""
        settings = self.source.settings.land
        if settings is None:
            return None
        return open_field("land", settings.paths(self.source.directory / SETTINGS, "land"), "1")

    def whole(self, window: Window) -> Window:
        """A window of the version as one of the settings' grid."""
        return Window(
            row=window.row + self.row, column=window.column + self.column, height=window.height, width=window.width
        )

    def values(self, quantity: Quantity, position: int, window: Window) -> Floats:
        """A month in a window of the version, ``(y, x)``, NaN where missing."""
        return decoded(quantity, self.dataset.read_map(quantity, position, 0, window))

    def series(self, quantity: Quantity, window: Window) -> Floats:
        """All months in a window of the version, ``(time, y, x)``, NaN where missing."""
        return decoded(quantity, self.dataset.read_series(quantity, range(len(self.dataset.time)), window))


def decoded(quantity: Quantity, stored: NDArray[np.generic]) -> Floats:
    """Stored values as float64, NaN where missing; ppm for columns."""
    return np.asarray(quantity.decode(stored), dtype=np.float64)


def _network(dataset: Dataset, source: Inputs, inputs: Path, models: Path | None) -> Network | None:
    """The version's network, its files and inputs held against the version's."""
    provenance, name = dataset.version.provenance, dataset.product.id
    mine, settings = {one.name: one.sha256 for one in source.digests}, source.settings.deciding()
    shipped = source.settings.synthetic and (DIRECTORY / BACKGROUND_FILE).is_file()
    if models is None and not shipped:
        check_made_from(dataset.version, mine, settings, str(inputs), unknown=BACKGROUND_FILE)
        return None
    recipe = open_recipe(inputs, models)
    for segment, origin in provenance.items():
        if origin.get("models", {}).get(NAME) != recipe.network.digest:
            raise ModelRefused(
                f"{recipe.network.directory} does not hold the network that {name} (segment {segment}) was rendered "
                "with; --models names that"
            )
    check_made_from(dataset.version, {one.name: one.sha256 for one in recipe.inputs()}, settings, str(inputs))
    return recipe.network
