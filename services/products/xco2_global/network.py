"""The trained network and the background that it departs from: what ``cenote export xco2_global`` writes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from models.errors import ModelError
from models.predictor import Predictor
from models.xco2_global.signature import ATTENTION, DEPARTURE, SPREAD
from services.core.errors import ModelRefused
from services.pipeline.recipe import Input
from services.products.xco2_global.background import Background, Fitted
from services.products.xco2_global.inputs import Inputs

BACKGROUND_FILE = "background.json"
NAME = "xco2_global"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A directory with model.onnx, card.json and background.json: places and digests, so that it travels."""

    directory: Path
    digest: str
    """Of card.json."""

    fitted: Fitted
    document: Input
    """background.json."""

    @classmethod
    def open(cls, directory: Path, inputs: Inputs) -> "Network":
        """Check the files.

        Args:
            directory: what ``cenote export`` wrote.
            inputs: what it is to be asked of.

        Raises:
            ModelRefused: if a file does not hold or is another export's, or the network takes other features or was
                learned from cells on another scale or with other offsets.
        """
        features, scale = inputs.settings.features, inputs.soundings.scale
        place = directory / BACKGROUND_FILE
        try:
            body = place.read_bytes()
            fitted = Fitted.model_validate_json(body)
            card = Predictor.open(directory).card
        except OSError as error:
            raise ModelRefused(
                f"{place} cannot be read ({error.strerror}): `cenote train xco2_global` and `cenote export "
                "xco2_global` make it"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ModelRefused(f"{place} does not hold: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except ModelError as error:
            raise ModelRefused(str(error)) from error
        taken = {feature.name: feature.units for tensor in card.inputs for feature in tensor.features}
        if list(taken.items()) != list(features.items()):
            other = sorted(set(taken.items()) ^ set(features.items()))
            raise ModelRefused(
                f"model {card.name} in {directory} takes other covariates than the inputs give: "
                f"{other[0][0] if other else 'their order'}; train one for these inputs"
            )
        if fitted.network not in {None, card.sha256}:
            raise ModelRefused(
                f"{place} was exported with another model.onnx than the one beside it: `cenote export xco2_global` "
                "writes both"
            )
        subtracted = inputs.settings.soundings.subtract_offsets
        if fitted.subtract_offsets != subtracted:
            raise ModelRefused(
                f"model {card.name} in {directory} was learned with "
                f"soundings.subtract_offsets = {str(fitted.subtract_offsets).lower()}, and these inputs say "
                f"{str(subtracted).lower()}; train one for them"
            )
        if fitted.around != inputs.settings.around:
            raise ModelRefused(
                f"model {card.name} in {directory} was learned with around = {_degrees(fitted.around)}, and these "
                f"inputs say {_degrees(inputs.settings.around)}; train one for them"
            )
        if fitted.co2_scale != scale:
            raise ModelRefused(
                f"model {card.name} in {directory} was learned on the scale {fitted.co2_scale}, the inputs are on "
                f"{scale}"
            )
        document = Input(name=BACKGROUND_FILE, size=len(body), sha256=hashlib.sha256(body).hexdigest())
        return cls(directory=directory, digest=card.digest, fitted=fitted, document=document)

    def background(self, inputs: Inputs) -> Background:
        """What is added to the network's departures."""
        return Background(fitted=self.fitted, inputs=inputs)

    def ask(self, sequences: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Departures and spreads, ppm, ``(row,)``.

        Raises:
            ModelRefused: if the model is not what was planned with.
        """
        said = self._said(sequences)
        return (
            said[DEPARTURE].astype(np.float64),
            said[SPREAD].astype(np.float64) * self.fitted.spread_factor,
        )

    def attention(self, sequences: NDArray[np.float32]) -> NDArray[np.float32]:
        """Share of each month in the answer, ``(row, 12)``, oldest first; each row's add up to 1.

        Raises:
            ModelRefused: if the model is not what was planned with.
        """
        return self._said(sequences)[ATTENTION]

    def _said(self, sequences: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            predictor = Predictor.open(self.directory)
            if predictor.card.digest != self.digest:
                raise ModelRefused(
                    f"the card in {self.directory} is {predictor.card.digest}, planned with {self.digest}"
                )
            return predictor.predict(sequences)
        except ModelError as error:
            raise ModelRefused(str(error)) from error


def _degrees(around: Mapping[str, float]) -> str:
    return ", ".join(f"{degrees:g} ({name})" for name, degrees in around.items()) or "nothing"
