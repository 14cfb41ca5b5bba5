"""How the sample Earth is computed: predictor files -> features -> network -> stored maps of value and uncertainty."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.card import ModelCard
from models.errors import ModelError
from models.predictor import Predictor
from models.sample_earth import DIRECTORY
from services.core.errors import ModelRefused
from services.core.grid import Window
from services.core.product import Product
from services.core.time_axis import TimeAxis
from services.pipeline.recipe import Input
from services.products.sample_earth.declaration import PRODUCT
from services.products.sample_earth.features import FEATURES, features
from services.products.sample_earth.predictors import Predictors


def open_recipe(inputs: Path, models: Path | None = None) -> "SampleEarth":
    """Check the inputs and the model.

    Args:
        inputs: directory with the predictors.
        models: directory with model.onnx and card.json; None: the shipped ones.

    Raises:
        InputRefused: if a predictor is missing a month, or has another unit or grid; names file and fact.
        ModelRefused: if the model, its card and the features do not agree.
    """
    place = DIRECTORY if models is None else models.resolve()
    card = _predictor(place).card
    _check_card(card)
    return SampleEarth(predictors=Predictors.find(inputs), model=place, card_sha256=card.digest)


@dataclass(frozen=True, kw_only=True)
class SampleEarth:
    """The recipe. It names the model by its digest, so that a worker with another model refuses."""

    predictors: Predictors
    model: Path
    """Directory of the model."""

    card_sha256: str
    """Of the card, which names its model and holds the missing and range rules."""

    @property
    def product(self) -> Product:
        """The declaration."""
        return PRODUCT

    def periods(self) -> TimeAxis:
        """The months that all predictors have."""
        return self.predictors.periods

    def inputs(self) -> tuple[Input, ...]:
        """The predictor files, by name."""
        return self.predictors.files

    def models(self) -> Mapping[str, str]:
        """The network."""
        return {PRODUCT.id: self.card_sha256}

    def model_directories(self) -> Mapping[str, Path]:
        """Where the network lies."""
        return {PRODUCT.id: self.model}

    def facts(self) -> Mapping[str, Any]:
        """What was concluded, for provenance."""
        era5 = self.predictors.era5
        return {
            "synthetic": True,
            "months": [self.periods().ids[0], self.periods().ids[-1]],
            "features": dict(FEATURES),
            "era5_first_column": sorted({place.shift for place in era5}),
            "era5_latitudes_rise": sorted({place.rising for place in era5}),
        }

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        """Stored values of both quantities, ``(time, y, x)``; one month's rows are in memory at a time.

        Raises:
            InputRefused: if a file is no longer the one that was planned with, or broken.
            ModelRefused: if this process' model is not the one that was planned with, or does not predict.
        """
        predictor = _predictor(self.model)
        if predictor.card.digest != self.card_sha256:
            raise ModelRefused(f"the card of {PRODUCT.id} is {predictor.card.digest}, planned with {self.card_sha256}")
        stored = {
            quantity.name: np.empty((len(periods), *window.shape), dtype=quantity.dtype)
            for quantity in PRODUCT.quantities
        }
        for position, month in enumerate(periods.starts):
            rows = features(self.predictors, month, window)
            try:
                answer = predictor.predict(rows)
            except ModelError as error:
                raise ModelRefused(f"{periods.ids[position]}: {error}") from error
            for quantity in PRODUCT.quantities:
                stored[quantity.name][position] = quantity.pack(answer[quantity.name].reshape(window.shape))
        return stored


def _predictor(place: Path) -> Predictor:
    try:
        return Predictor.open(place)
    except ModelError as error:
        raise ModelRefused(str(error)) from error


def _check_card(card: ModelCard) -> None:
    found = {feature.name: feature.units for tensor in card.inputs for feature in tensor.features}
    if list(found.items()) != list(FEATURES.items()):
        raise ModelRefused(f"model {card.name} takes {found}, the product makes {FEATURES}")
    outputs = {tensor.name: tensor.units for tensor in card.outputs}
    declared = {quantity.name: quantity.units for quantity in PRODUCT.quantities}
    if outputs != declared:
        raise ModelRefused(f"model {card.name} gives {outputs}, the product declares {declared}")
