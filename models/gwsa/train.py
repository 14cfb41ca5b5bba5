"""Learns a region's trees: rows of predictors and groundwater storage anomalies in, a booster and its record out."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.card import Feature, InputTensor, Sha256
from models.errors import InputMismatch, ModelRefused, PredictionFailed, TableRefused, TrainingRefused
from models.gwsa.signature import BOOSTER_FILE, features_tensor
from models.rules import apply_rules
from models.writing import numbers, write_files

RECORD_FILE = "record.json"

LEAST_ROWS = 30
"""Fewer are no training set (our choice: a model of depth 5 has as many leaves)."""

_TOLD_EVERY = 25

_DIGESTED = 65536
"""Rows that are digested at a time."""

type Floats = NDArray[np.float32]
type Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How trees are grown: XGBoost's ``hist`` method on squared errors. README.md says where the numbers come from.

    Raises:
        TrainingRefused: if nothing can be learned with them.
    """

    trees: int = 500
    depth: int = 10
    """Splits between root and leaf, at most."""

    learning_rate: float = 0.05
    subsample: float = 0.85
    """Share of the rows that a tree sees."""

    colsample: float = 0.8
    """Share of the predictors that a tree sees."""

    alpha: float = 0.1
    """L1 penalty on a leaf, cm (of the gradient's sum)."""

    lambda_: float = 0.1
    """L2 penalty on a leaf."""

    bins: int = 256
    """Steps into which a predictor's values are sorted; a threshold lies between two."""

    def __post_init__(self) -> None:
        whole = {"trees": (1, 100_000), "depth": (1, 20), "bins": (2, 65_536)}
        for name, (low, high) in whole.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise TrainingRefused(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        for name in ("learning_rate", "subsample", "colsample"):
            if not 0 < getattr(self, name) <= 1:
                raise TrainingRefused(f"{name} must be above 0 and at most 1, not {getattr(self, name)!r}")
        for name in ("alpha", "lambda_"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingRefused(f"{name} must be 0 or above, not {getattr(self, name)!r}")

    def parameters(self, seed: int) -> dict[str, Any]:
        """The same by XGBoost's names."""
        return {
            "objective": "reg:squarederror",
            "tree_method": "hist",
            "max_depth": self.depth,
            "learning_rate": self.learning_rate,
            "subsample": self.subsample,
            "colsample_bytree": self.colsample,
            "reg_alpha": self.alpha,
            "reg_lambda": self.lambda_,
            "max_bin": self.bins,
            "seed": seed,
        }


class _Record(BaseModel):
    """record.json beside booster.ubj."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    format: int = Field(default=1, ge=1, le=1)
    booster_sha256: Sha256
    features: list[Feature] = Field(min_length=1)
    settings: dict[str, Any]
    seed: int
    rows: int = Field(ge=1)
    spread_cm: float = Field(gt=0)
    table_sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Trained trees: everything that predicts, and how it came about."""

    features: tuple[Feature, ...]
    """In the order of the columns; the ranges are those of the training rows."""

    booster: bytes
    """XGBoost's UBJSON."""

    settings: Settings
    seed: int

    rows: int
    """Learned from."""

    spread: float
    """Standard deviation of the target in these rows, cm."""

    table_sha256: str
    """Of names, units, features, target and weights."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "model"}  # the bytes say it already

    @cached_property
    def model(self) -> xgboost.Booster:
        """The booster, on one thread; more give the same numbers.

        Raises:
            ModelRefused: if the bytes are none.
        """
        return open_booster(self.booster, "the booster")

    @cached_property
    def tensor(self) -> InputTensor:
        """The rows as a card describes them."""
        return features_tensor(self.features)

    def predict(self, rows: ArrayLike) -> Floats:
        """Groundwater storage anomaly, cm, ``(row,)``; never missing.

        Args:
            rows: ``(row, feature)``; NaN is missing and goes where the trees learned to send it; a value outside
                the training rows' range counts as the nearer end.

        Raises:
            InputMismatch: if the shape is another.
            PredictionFailed: if a value is not finite.
        """
        values = np.array(rows, dtype=np.float32, order="C")
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise InputMismatch(f"rows of {len(self.features)} features are needed, not an array of {values.shape}")
        apply_rules(self.tensor, values)
        if not len(values):
            return np.empty(0, dtype=np.float32)
        answer: Floats = self.model.inplace_predict(values)
        if not np.isfinite(answer).all():
            raise PredictionFailed("the trees give no finite value for a row")
        return answer

    def write(self, directory: Path) -> None:
        """Write booster.ubj and record.json.

        Args:
            directory: made if it is not there.
        """
        record = _Record(
            booster_sha256=hashlib.sha256(self.booster).hexdigest(),
            features=list(self.features),
            settings=asdict(self.settings),
            seed=self.seed,
            rows=self.rows,
            spread_cm=self.spread,
            table_sha256=self.table_sha256,
        )
        text = record.model_dump_json(indent=2) + "\n"
        write_files(directory, {BOOSTER_FILE: self.booster, RECORD_FILE: text.encode()})

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            ModelRefused: if a file is absent, damaged or not of the other.
        """
        place = directory / RECORD_FILE
        try:
            record = _Record.model_validate_json(place.read_bytes())
            settings = Settings(**record.settings)
            booster = (directory / BOOSTER_FILE).read_bytes()
        except OSError as error:
            raise ModelRefused(f"{error.filename} cannot be read: {error.strerror}") from None
        except (ValidationError, TypeError, TrainingRefused) as error:
            raise ModelRefused(f"{place} does not hold: {_first(error)}") from None
        found = hashlib.sha256(booster).hexdigest()
        if found != record.booster_sha256:
            raise ModelRefused(
                f"{directory / BOOSTER_FILE} has sha256 {found}, its record says {record.booster_sha256}"
            )
        return cls(
            features=tuple(record.features),
            booster=booster,
            settings=settings,
            seed=record.seed,
            rows=record.rows,
            spread=record.spread_cm,
            table_sha256=record.table_sha256,
        )


def fit(  # noqa: PLR0913 - what a training is
    features: ArrayLike,
    target: ArrayLike,
    *,
    names: Sequence[str],
    units: Sequence[str],
    long_names: Sequence[str] | None = None,
    weights: ArrayLike | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    threads: int = 1,
    client: Any = None,
    report: Report | None = None,
) -> Trees:
    """Learn trees from rows.

    On one machine the same rows, weights, settings and seed give the same bytes, whatever the number of threads
    (measured with 1 to 8). On a cluster they are not bit-identical to it: each worker draws its own share of rows for a
    tree, so the trees depend on how many workers there are. They are of equal quality: the errors of held-out rows
    differ by a few per cent either way. The same number of workers gives the same trees.

    Args:
        features: ``(row, feature)``, any float type, learned from as float32; NaN is missing. Nothing is clipped; the
            least and the greatest value of each column become its range.
        target: ``(row,)``, groundwater storage anomaly, cm; finite.
        names: of the columns.
        units: of the columns, UDUNITS.
        long_names: of the columns, for people; the names where None.
        weights: of the rows, ``(row,)``, 0 or above; equal where None.
        settings: how trees are grown; the defaults where None.
        seed: of the choice of rows and columns.
        threads: of this machine; a cluster's workers use theirs.
        client: a ``distributed.Client``; its workers learn together, each on a part of the rows. A worker that dies
            ends the training with dask's error.
        report: told now and then.

    Raises:
        TableRefused: if the rows cannot be learned from: shapes that do not fit, too few, a target that is not finite
            or does not vary, infinite features, a feature without any number, bad weights or names.
        TrainingRefused: if the settings or the cluster do not hold.
    """
    chosen = settings or Settings()
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise TrainingRefused(f"a seed is a whole number from 0 to 2147483647, not {seed!r}")
    rows, wanted, shares = _checked(features, target, weights)
    described = _describe(rows, names, units, long_names or names)
    tell = report or (lambda _: None)
    tell(f"learning {chosen.trees} trees of depth {chosen.depth} from {len(rows)} rows of {rows.shape[1]} features")
    if client is None:
        booster = _fit_here(rows, wanted, shares, chosen, seed, threads, tell)
    else:
        booster = _fit_on_cluster(client, rows, wanted, shares, chosen, seed)
    tell(f"learned {chosen.trees} trees")
    return Trees(
        features=described,
        booster=bytes(booster.save_raw("ubj")),
        settings=chosen,
        seed=seed,
        rows=len(rows),
        spread=float(wanted.std(dtype=np.float64)),
        table_sha256=_digest(described, rows, wanted, shares),
    )


def open_booster(content: bytes, where: str) -> xgboost.Booster:
    """A booster from its bytes, on one thread.

    Raises:
        ModelRefused: if they are none.
    """
    booster = xgboost.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(content))
    except xgboost.core.XGBoostError as error:
        raise ModelRefused(f"{where} is no booster: {str(error).splitlines()[0]}") from None
    booster.set_param({"nthread": 1})
    return booster


def _checked(features: ArrayLike, target: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats | None]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused for it
        # a table is large: what is float32 already is not copied, and nothing is written into it
        rows = np.asarray(features, dtype=np.float32, order="C")
        wanted = np.array(target, dtype=np.float32)
        shares = None if weights is None else np.array(weights, dtype=np.float32)
    if rows.ndim != 2 or wanted.shape != rows.shape[:1] or (shares is not None and shares.shape != wanted.shape):
        given = [array.shape for array in (rows, wanted, shares) if array is not None]
        raise TableRefused(f"features (row, feature), target (row) and weights (row) do not fit: {given}")
    if len(rows) < LEAST_ROWS:
        raise TableRefused(f"{len(rows)} rows are too few to learn from; {LEAST_ROWS} are the least")
    strange = int((~np.isfinite(wanted)).sum())
    if strange:
        raise TableRefused(f"the target is not finite in {strange} of {len(rows)} rows")
    if wanted.min() == wanted.max():
        raise TableRefused(f"the target is {wanted[0]:g} in each of {len(rows)} rows: there is nothing to learn")
    if shares is not None and not ((shares >= 0) & np.isfinite(shares)).all():
        raise TableRefused("a row's weight is negative or not finite")
    if shares is not None and np.count_nonzero(shares) < LEAST_ROWS:
        raise TableRefused(f"only {np.count_nonzero(shares)} rows have a weight above 0; {LEAST_ROWS} are the least")
    return rows, wanted, shares


def _describe(
    rows: Floats, names: Sequence[str], units: Sequence[str], long_names: Sequence[str]
) -> tuple[Feature, ...]:
    """The columns with their ranges."""
    if not len(names) == len(units) == len(long_names) == rows.shape[1]:
        raise TableRefused(
            f"{rows.shape[1]} columns have {len(names)} names, {len(units)} units and {len(long_names)} long names"
        )
    found = []
    for name, unit, long_name, column in zip(names, units, long_names, rows.T, strict=True):
        held = column[~np.isnan(column)]
        if not held.size:
            raise TableRefused(f"{name} has no number in any of {len(rows)} rows: leave it out")
        if np.isinf(held).any():
            raise TableRefused(f"{name} is infinite in {int(np.isinf(held).sum())} of {len(rows)} rows")
        low, high = held.min(), held.max()
        if low == high:
            # A column of one value can still split present from missing; `hist` sets that threshold well above it, so
            # that every value clipped into this range goes where the one went.
            high = np.nextafter(high, np.float32(np.inf))
        ends = numbers(np.array([low, high]))
        try:
            feature = Feature.model_validate(
                {"name": name, "units": unit, "long_name": long_name, "valid_min": ends[0], "valid_max": ends[1]}
                | {"out_of_range": "clip", "missing": "pass"}
            )
        except ValidationError as error:
            raise TableRefused(f"the feature {name!r} does not hold: {_first(error)}") from None
        found.append(feature)
    try:
        features_tensor(found)
    except ValidationError as error:
        raise TableRefused(f"the features do not hold: {_first(error)}") from None
    return tuple(found)


def _fit_here(
    rows: Floats, target: Floats, weights: Floats | None, settings: Settings, seed: int, threads: int, tell: Report
) -> xgboost.Booster:
    table = xgboost.QuantileDMatrix(rows, target, weight=weights, max_bin=settings.bins, nthread=threads)
    return xgboost.train(
        settings.parameters(seed) | {"nthread": threads},
        table,
        num_boost_round=settings.trees,
        callbacks=[_Progress(tell, settings.trees)],
    )


class _Progress(xgboost.callback.TrainingCallback):
    def __init__(self, tell: Report, trees: int) -> None:
        self.tell, self.trees = tell, trees

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002 - XGBoost's names
        if (epoch + 1) % _TOLD_EVERY == 0:
            self.tell(f"{epoch + 1} of {self.trees} trees")
        return False


def _fit_on_cluster(
    client: Any, rows: Floats, target: Floats, weights: Floats | None, settings: Settings, seed: int
) -> xgboost.Booster:
    # loaded by who trains on a cluster: pandas and pyarrow come with them
    import dask.array  # noqa: PLC0415
    from xgboost import dask as on_dask  # noqa: PLC0415

    workers = sorted(client.nthreads())
    if not workers:
        raise TrainingRefused("the cluster has no worker to train on")
    bounds = np.linspace(0, len(rows), min(len(workers), len(rows) // LEAST_ROWS) + 1).astype(int)

    def spread(values: Floats) -> Any:
        parts = [values[start:end] for start, end in itertools.pairwise(bounds)]
        # part by part to its worker: rows travel once, and the same workers get the same rows each time
        held = [client.scatter(part, workers=[worker]) for part, worker in zip(parts, workers, strict=False)]
        arrays = [
            dask.array.from_delayed(future, part.shape, part.dtype)  # type: ignore[no-untyped-call]
            for future, part in zip(held, parts, strict=True)
        ]
        return dask.array.concatenate(arrays)  # type: ignore[no-untyped-call]

    table = on_dask.DaskQuantileDMatrix(
        client,
        spread(rows),
        spread(target),
        weight=None if weights is None else spread(weights),
        max_bin=settings.bins,
    )
    learned = on_dask.train(client, settings.parameters(seed), table, num_boost_round=settings.trees)
    booster: xgboost.Booster = learned["booster"]
    return booster


def _digest(features: Sequence[Feature], rows: Floats, target: Floats, weights: Floats | None) -> str:
    columns = [[feature.name, feature.units] for feature in features]
    found = hashlib.sha256(json.dumps([columns, rows.shape, weights is not None]).encode())
    for array in (rows, target, *(() if weights is None else (weights,))):
        for start in range(0, len(array), _DIGESTED):
            part = np.array(array[start : start + _DIGESTED], dtype="<f4", order="C")
            part[np.isnan(part)] = np.nan  # one NaN, so that equal rows have one digest
            found.update(part)
    return found.hexdigest()


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place + ': ' if place else ''}{first['msg']}"
    return str(error)
