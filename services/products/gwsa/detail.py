"""What the regions' models say of a month at fine cells, blended at their borders."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.card import ModelCard
from models.errors import ModelError
from models.predictor import Predictor
from services.core.errors import ModelRefused
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR
from services.products.gwsa.features import fine_features
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import interpolated
from services.products.gwsa.regions import REACH, shares

type Engine = Literal["onnx", "xgboost"]

REGIONS_FILE = "regions.json"
"""What ``cenote export gwsa`` writes beside the folders of the models."""

STRIP = 8
"""Coarse rows that features are held of at a time: 60 MB of a shard's 90 columns and 19 predictors."""


class Region(BaseModel):
    """One region's model: what its detail is worth."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    weight: Annotated[float, Field(ge=0, le=1)]
    """Share of the model's detail that is added; 0: it is not asked."""

    sigma: Annotated[float, Field(ge=0)]
    """Standard deviation of what the detail misses, cm."""


class Regions(BaseModel):
    """``regions.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    features: dict[str, str]
    """Names in order, and units."""

    regions: list[Region]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the models say in a rectangle of fine cells; 0 where there is no land."""

    values: NDArray[np.float64]
    """cm, ``(y, x)``."""

    variance: NDArray[np.float64]
    """Of the error of the detail, cm2, ``(y, x)``."""

    extrapolated: NDArray[np.bool_]
    """Where a predictor lies outside what a model that speaks here has learned, ``(y, x)``."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """The models of all regions: places and digests only, so that it travels to workers."""

    directory: Path
    regions: tuple[Region, ...]
    digests: Mapping[str, str]
    """Name of the model -> sha256 of its card; of those that are asked."""

    engine: Engine = "onnx"

    @classmethod
    def open(cls, directory: Path, features: Mapping[str, str], engine: Engine = "onnx") -> "Detail":
        """Check the models of a directory.

        Args:
            directory: what ``cenote export gwsa`` wrote.
            features: what the inputs give, names in order and units.
            engine: what asks the models.

        Raises:
            ModelRefused: if a file does not hold, or a model takes other features.
        """
        path = directory / REGIONS_FILE
        try:
            document = Regions.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ModelRefused(
                f"{path} cannot be read ({error.strerror}): `cenote train gwsa` and `cenote export gwsa` make it"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ModelRefused(f"{path} does not hold: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        digests: dict[str, str] = {}
        for region in document.regions:
            if region.weight > 0:
                card = _opened(directory / region.name, engine).card
                _check(card, features)
                digests[f"gwsa_{region.name}"] = card.digest
        if list(document.features.items()) != list(features.items()):
            raise ModelRefused(f"{path}: the models take {document.features}, the inputs give {dict(features)}")
        return cls(directory=directory.resolve(), regions=tuple(document.regions), digests=digests, engine=engine)

    @property
    def directories(self) -> dict[str, Path]:
        """Name of each model that is asked -> its directory."""
        return {f"gwsa_{region.name}": self.directory / region.name for region in self.regions if region.weight > 0}

    def facts(self) -> dict[str, Any]:
        """What decides the detail besides the models."""
        regions = {region.name: {"weight": region.weight, "sigma_cm": region.sigma} for region in self.regions}
        return {"engine": self.engine, "regions": regions}

    def check(self, regions: tuple[str, ...]) -> None:
        """Compare with the regions of the coarse field.

        Raises:
            ModelRefused: if they are others.
        """
        mine = tuple(region.name for region in self.regions)
        if mine != regions:
            raise ModelRefused(
                f"{self.directory}: models are of the regions {', '.join(mine)}, the inputs have {', '.join(regions)}: "
                "train them again"
            )

    def ask(self, inputs: Inputs, coarse: Coarse, cells: Reach, land: NDArray[np.bool_], month: int) -> Said:
        """Ask every model that weighs anything in a rectangle.

        Args:
            inputs: where the predictors are.
            coarse: where the regions are.
            cells: coarse cells.
            land: fine cells to answer for, ``(y, x)``.
            month: months since 1970-01.

        Raises:
            InputRefused: if a predictor is no longer what it was.
            ModelRefused: if a model is not the one that was opened, or does not answer.
        """
        found = Said(
            values=np.zeros(land.shape),
            variance=np.zeros(land.shape),
            extrapolated=np.zeros(land.shape, dtype=np.bool_),
        )
        weighing = shares(coarse.labels(cells.grown(REACH + 1)))
        for row in range(0, cells.height, STRIP):
            height = min(STRIP, cells.height - row)
            part = Reach(row=cells.row + row, column=cells.column, height=height, width=cells.width)
            rows = slice(row * FACTOR, (row + height) * FACTOR)
            if not land[rows].any():
                continue
            features = fine_features(inputs, month, part.times(FACTOR))
            for number, share in weighing:
                region = self.regions[number]
                own = interpolated(share[row : row + height + 2], FACTOR)
                where = land[rows] & (own > 0)
                if not where.any():
                    continue
                found.variance[rows][where] += own[where] * region.sigma**2
                if region.weight > 0:
                    values, beyond = self._answer(region, features[where])
                    found.values[rows][where] += own[where] * region.weight * values
                    found.extrapolated[rows][where] |= beyond
        return found

    def _answer(self, region: Region, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        predictor = self._predictors[region.name]
        try:
            values = predictor.predict(rows)["gwsa"]
        except ModelError as error:
            raise ModelRefused(f"{region.name}: {error}") from error
        limits = predictor.card.inputs[0].features
        low = np.array([one.valid_min for one in limits], dtype=np.float32)
        high = np.array([one.valid_max for one in limits], dtype=np.float32)
        beyond: NDArray[np.bool_] = ((rows < low) | (rows > high)).any(axis=1)
        return values.astype(np.float64), beyond

    @cached_property
    def _predictors(self) -> dict[str, Predictor]:
        found: dict[str, Predictor] = {}
        for name, directory in self.directories.items():
            predictor = _opened(directory, self.engine)
            if predictor.card.digest != self.digests[name]:
                raise ModelRefused(f"the card of {name} is {predictor.card.digest}, planned with {self.digests[name]}")
            found[name.removeprefix("gwsa_")] = predictor
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _opened(directory: Path, engine: Engine) -> Predictor:
    try:
        if engine == "onnx":
            return Predictor.open(directory)
        from models.gwsa.native import NativePredictor  # noqa: PLC0415 - xgboost is there only where it is asked for

        return NativePredictor.open(directory)
    except ModuleNotFoundError as error:
        raise ModelRefused(
            f'gwsa.toml asks for engine = "xgboost", and {error.name} is not installed here; "onnx" needs nothing more'
        ) from None
    except ModelError as error:
        raise ModelRefused(str(error)) from error


def _check(card: ModelCard, features: Mapping[str, str]) -> None:
    found = {feature.name: feature.units for tensor in card.inputs for feature in tensor.features}
    if list(found.items()) != list(features.items()):
        raise ModelRefused(f"model {card.name} takes {found}, the inputs give {dict(features)}")
    if [(tensor.name, tensor.units) for tensor in card.outputs] != [("gwsa", "cm")]:
        raise ModelRefused(f"model {card.name} gives {[tensor.name for tensor in card.outputs]}, not gwsa in cm")
