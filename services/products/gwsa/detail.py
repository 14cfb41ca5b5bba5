"""What the regions' models say of a month at fine cells, blended at their borders."""

from collections.abc import Iterator, Mapping
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
from models.rules import count_outside
from services.core.errors import ModelRefused
from services.products.gwsa.coarse import Coarse
from services.products.gwsa.declaration import FACTOR
from services.products.gwsa.features import Floats, features, fine_predictors, smoothed
from services.products.gwsa.inputs import Inputs
from services.products.gwsa.reach import Reach
from services.products.gwsa.refine import DETAIL_HALO, Blocks, interpolated
from services.products.gwsa.regions import REACH, shares

type Engine = Literal["onnx", "xgboost"]

REGIONS_FILE = "regions.json"
"""What ``cenote export gwsa`` writes beside the folders of the models."""

STRIP = 8
"""Coarse rows that features are held of at a time: 60 MB of a shard's 90 columns and 19 predictors."""

AT_ONCE = 256 << 20
"""Bytes of predictors up to which they are read once; else strip by strip, for their means and once more for rows."""


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

    synthetic: bool
    """Whether they were learned from made-up inputs."""

    labels_sha256: str
    """Of the regions' cells."""

    regions: list[Region]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the models say in a rectangle of fine cells; 0 where there is no land."""

    values: NDArray[np.float64]
    """cm, ``(y, x)``."""

    variance: NDArray[np.float64]
    """Of the error of the detail, cm2, ``(y, x)``."""

    extrapolated: NDArray[np.bool_]
    """Where a predictor is missing, or outside what a model that speaks here has learned, ``(y, x)``."""


@dataclass(frozen=True, kw_only=True)
class Detail:
    """The models of all regions: places and digests only, so that it travels to workers."""

    directory: Path
    regions: tuple[Region, ...]
    digests: Mapping[str, str]
    """Name of the model -> sha256 of its card; of those that are asked."""

    engine: Engine = "onnx"
    labels_sha256: str = ""
    """Of the regions' cells that the models were learned in."""

    @classmethod
    def open(cls, directory: Path, taken: Mapping[str, str], engine: Engine = "onnx", *, synthetic: bool) -> "Detail":
        """Check the models of a directory.

        Args:
            directory: what ``cenote export gwsa`` wrote.
            taken: the features that the inputs give, names in order and units.
            engine: what asks the models.
            synthetic: whether the inputs are made up.

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
        _check_features(f"{path}: the models", document.features, taken)
        digests: dict[str, str] = {}
        for region in document.regions:
            if region.weight > 0:
                card = _opened(directory / region.name, engine).card
                _check(card, taken)
                digests[f"gwsa_{region.name}"] = card.digest
        if document.synthetic != synthetic:
            kinds = ["measured", "synthetic"]
            raise ModelRefused(
                f"{path}: the models are of {kinds[document.synthetic]} inputs, these are {kinds[synthetic]}"
            )
        return cls(
            directory=directory.resolve(),
            regions=tuple(document.regions),
            digests=digests,
            engine=engine,
            labels_sha256=document.labels_sha256,
        )

    @property
    def directories(self) -> dict[str, Path]:
        """Name of each model that is asked -> its directory."""
        return {f"gwsa_{region.name}": self.directory / region.name for region in self.regions if region.weight > 0}

    def facts(self) -> dict[str, Any]:
        """What decides the detail besides the models."""
        regions = {region.name: {"weight": region.weight, "sigma_cm": region.sigma} for region in self.regions}
        return {"engine": self.engine, "regions": regions}

    def check(self, coarse: Coarse) -> None:
        """Compare with the regions of the coarse field, by name and cell by cell.

        Raises:
            ModelRefused: if they are others.
        """
        mine = tuple(region.name for region in self.regions)
        if mine != coarse.regions:
            raise ModelRefused(
                f"{self.directory}: models are of the regions {', '.join(mine)}, the inputs have "
                f"{', '.join(coarse.regions)}: train them again"
            )
        if self.labels_sha256 != coarse.labels_sha256:
            raise ModelRefused(
                f"{self.directory}: the regions have the same names and other cells (other polygons, or another area "
                "in gwsa.toml): train the models again"
            )

    def ask(self, inputs: Inputs, coarse: Coarse, wide: Reach, blocks: Blocks, month: int) -> Said:
        """Ask every model that weighs anything in a rectangle.

        Args:
            inputs: where the predictors are.
            coarse: where the regions are.
            wide: coarse cells with DETAIL_HALO around those that are answered for.
            blocks: of ``wide``.
            month: months since 1970-01.

        Returns:
            Of the rectangle without what is around it.

        Raises:
            InputRefused: if a predictor is no longer what it was.
            ModelRefused: if a model is not the one that was opened, or does not answer.
        """
        cells = wide.grown(-DETAIL_HALO)
        land = blocks.inside(DETAIL_HALO).land
        found = Said(
            values=np.zeros(land.shape),
            variance=np.zeros(land.shape),
            extrapolated=np.zeros(land.shape, dtype=np.bool_),
        )
        weighing = shares(coarse.labels(cells.grown(REACH + 1)))
        asked = any(self.regions[number].weight > 0 for number, _ in weighing)
        around, smooth_means = None, None
        if asked and land.any():
            size = 4 * len(inputs.predictors) * land.size * wide.height * wide.width // (cells.height * cells.width)
            around = fine_predictors(inputs, month, wide.times(FACTOR)) if size <= AT_ONCE else None
            smooth_means = smoothed(blocks, _means(inputs, wide, blocks, month, around))
        for row, part in _strips(cells):
            rows = slice(row * FACTOR, (row + part.height) * FACTOR)
            if not land[rows].any():
                continue
            if smooth_means is not None:
                if around is None:
                    predictors = fine_predictors(inputs, month, part.times(FACTOR))
                else:
                    side, first = DETAIL_HALO * FACTOR, (DETAIL_HALO + row) * FACTOR
                    predictors = around[:, first : first + part.height * FACTOR, side:-side]
                asked_with = features(predictors, smooth_means[:, row : row + part.height + 2], FACTOR, month)
            for number, share in weighing:
                region = self.regions[number]
                own = interpolated(share[row : row + part.height + 2], FACTOR)
                where = land[rows] & (own > 0)
                if not where.any():
                    continue
                found.variance[rows][where] += own[where] * region.sigma**2
                if region.weight > 0:
                    values, beyond = self._answer(region, asked_with[where])
                    found.values[rows][where] += own[where] * region.weight * values
                    found.extrapolated[rows][where] |= beyond
        return found

    def _answer(self, region: Region, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        predictor = self.predictors[region.name]
        try:
            values = predictor.predict(rows)["gwsa"]
        except ModelError as error:
            raise ModelRefused(f"{region.name}: {error}") from error
        beyond: NDArray[np.bool_] = (count_outside(predictor.card.inputs[0], rows) > 0) | np.isnan(rows).any(axis=1)
        return values.astype(np.float64), beyond

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        """The models that are asked, by region.

        Raises:
            ModelRefused: if one is not what was planned with.
        """
        found: dict[str, Predictor] = {}
        for name, directory in self.directories.items():
            predictor = _opened(directory, self.engine)
            if predictor.card.digest != self.digests[name]:
                raise ModelRefused(f"the card of {name} is {predictor.card.digest}, planned with {self.digests[name]}")
            found[name.removeprefix("gwsa_")] = predictor
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _strips(cells: Reach) -> Iterator[tuple[int, Reach]]:
    """A rectangle in strips of STRIP rows, each with its first row in it."""
    for row in range(0, cells.height, STRIP):
        height = min(STRIP, cells.height - row)
        yield row, Reach(row=cells.row + row, column=cells.column, height=height, width=cells.width)


def _means(inputs: Inputs, cells: Reach, blocks: Blocks, month: int, predictors: Floats | None) -> NDArray[np.float64]:
    """Means of the predictors over the land of coarse cells, ``(predictor, Y, X)``; of those given, if they are."""
    if predictors is not None:
        return np.stack([blocks.means(one) for one in predictors])
    found = np.full((len(inputs.predictors), *cells.shape), np.nan)
    for row, part in _strips(cells):
        here = blocks.rows(row, part.height)
        if here.land.any():
            strip = fine_predictors(inputs, month, part.times(FACTOR))
            found[:, row : row + part.height] = [here.means(one) for one in strip]
    return found


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


def _check_features(whose: str, needed: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Refuse other features than the models learned from; names them.

    Args:
        whose: begins the sentence.
        needed: names in order, and units.
        given: the same.
    """
    lacking = ", ".join(name for name in needed if name not in given)
    further = ", ".join(name for name in given if name not in needed)
    other = [name for name in needed if given.get(name, needed[name]) != needed[name]]
    verb = "needs" if whose.endswith(" it") else "need"
    if lacking:
        raise ModelRefused(f"{whose} {verb} {lacking}, which the inputs have not")
    if further:
        raise ModelRefused(f"{whose} did not learn from {further}, which the inputs have")
    if other:
        name = other[0]
        raise ModelRefused(f"{whose} {verb} {name} in {needed[name]!r}, and the inputs give it in {given[name]!r}")
    if list(needed) != list(given):
        raise ModelRefused(f"{whose} {verb} predictors in the order {', '.join(needed)}, not {', '.join(given)}")


def _check(card: ModelCard, taken: Mapping[str, str]) -> None:
    found = {feature.name: feature.units for tensor in card.inputs for feature in tensor.features}
    _check_features(f"model {card.name}: it", found, taken)
    if [(tensor.name, tensor.units) for tensor in card.outputs] != [("gwsa", "cm")]:
        raise ModelRefused(f"model {card.name} gives {[tensor.name for tensor in card.outputs]}, not gwsa in cm")
