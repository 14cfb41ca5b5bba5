"""Learns the attention network from a table of sequences, stops on groups held back, and goes on where it was ended.

On one machine and device the same table, settings, seed, groups and threads give the same weights, ended and resumed or
not: every epoch draws from generators seeded with its number, and nothing else is drawn.
"""

import hashlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from models.card import Feature, Sha256
from models.errors import InputMismatch, ModelRefused, TableRefused, TrainingRefused
from models.rules import apply_rules
from models.writing import write_files
from models.xco2_global.net import SequenceNet, negative_log_likelihood
from models.xco2_global.scaling import Scaling, measure
from models.xco2_global.signature import ATTENTION, DEPARTURE, MONTHS, SPREAD, sequence_tensor
from models.xco2_global.table import SequenceTable

WEIGHTS_FILE, RECORD_FILE, CHECKPOINT_FILE = "weights.safetensors", "record.json", "checkpoint.safetensors"

LEAST_ROWS = 100
"""Fewer are no training set (our choice)."""

_ROWS_AT_ONCE = 4096
_NOTE = "state"

type Floats = NDArray[np.float32]
type Report = Callable[[str], None]
type Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The network's widths and how it learns: AdamW, cosine rate. README.md says what was measured.

    Raises:
        TrainingRefused: if nothing can be learned with them.
    """

    hidden: int = 64
    """Of an LSTM in one direction."""

    attention: int = 32
    """Width of the attention's layer."""

    dense: int = 64
    """Width of the layer before the outputs."""

    dropout: float = 0.2
    """Share dropped between the two LSTM layers."""

    epochs: int = 60
    """At most; the rate falls to 1 % of itself over them."""

    patience: int = 10
    """Epochs without a better validation loss before it stops."""

    batch: int = 512
    """Rows per step."""

    rate: float = 2e-3
    """Of AdamW, at the start."""

    weight_decay: float = 1e-4

    beta: float = 0.5
    """Weight of a row by its variance to this power, see ``negative_log_likelihood``."""

    first_epochs: int = 0
    """Epochs that learn the departure alone, with the targets' deviation for every spread."""

    longest_step: float = 1.0
    """Norm to which gradients are cut."""

    def __post_init__(self) -> None:
        whole = {"hidden": 1, "attention": 1, "dense": 1, "epochs": 1, "patience": 1, "batch": 1, "first_epochs": 0}
        for name, low in whole.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= 1_000_000:
                raise TrainingRefused(f"{name} must be a whole number from {low} to 1000000, not {value!r}")
        for name in ("dropout", "weight_decay", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingRefused(f"{name} must be from 0 to 1, not {getattr(self, name)!r}")
        if self.dropout == 1:
            raise TrainingRefused("dropout must leave something: below 1, not 1")
        for name in ("rate", "longest_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingRefused(f"{name} must be above 0, not {getattr(self, name)!r}")


class Epoch(BaseModel):
    """What one pass over the rows gave; losses are means over rows by weight, without the likelihood's constant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    number: int
    rate: float
    train_loss: float
    """Of the network as it was at each step, with dropout and ``beta``."""

    validation_loss: float
    """Negative log-likelihood."""

    validation_rmse_ppm: float
    """Of the departure against the targets, retrieval errors included."""

    wall_s: float
    cpu_s: float


class Record(BaseModel):
    """record.json beside weights.safetensors: how they came about."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    format: int = Field(default=1, ge=1, le=1)
    weights_sha256: Sha256
    features: list[Feature] = Field(min_length=1)
    settings: dict[str, Any]
    seed: int
    table: str
    table_sha256: Sha256
    synthetic: bool
    validation_groups: list[int]
    withheld_groups: list[int]
    rows: int = Field(ge=1)
    validation_rows: int = Field(ge=1)
    best_epoch: int
    epochs: list[Epoch]
    resumed: int
    """Times it was taken up again."""

    device: str
    threads: int
    versions: dict[str, str]
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network: everything that predicts, and how it came about."""

    weights: bytes
    """safetensors."""

    record: Record

    @property
    def settings(self) -> Settings:
        """Of the training."""
        return Settings(**self.record.settings)

    @property
    def features(self) -> list[Feature]:
        """In order, with the ranges that predictions are held to."""
        return self.record.features

    def network(self) -> SequenceNet:
        """The network on the processor, not training.

        Raises:
            ModelRefused: if the weights are not those of the settings.
        """
        network = _build(self.settings, len(self.features))
        try:
            network.load_state_dict(load_tensors(self.weights))
        except (SafetensorError, RuntimeError) as error:
            raise ModelRefused(f"the weights are not those of the record's network: {error}") from None
        return network.eval()

    def predict(self, sequences: ArrayLike) -> dict[str, Floats]:
        """Departure and spread, ppm, ``(row,)``, and attention, ``(row, 12)``; never missing.

        Args:
            sequences: ``(row, 12, feature)``, raw units; NaN is missing, and a value beyond a feature's range counts
                as the nearer end.

        Raises:
            InputMismatch: if the shape is another.
        """
        given = np.asarray(sequences)
        if given.ndim != 3 or given.shape[1:] != (MONTHS, len(self.features)):
            raise InputMismatch(f"sequences (row, {MONTHS}, {len(self.features)}) are needed, not {given.shape}")
        network, tensor = self.network(), sequence_tensor(self.features)
        found: dict[str, list[Floats]] = {DEPARTURE: [], SPREAD: [], ATTENTION: []}
        with torch.no_grad():
            for start in range(0, max(len(given), 1), _ROWS_AT_ONCE):
                part = np.array(given[start : start + _ROWS_AT_ONCE], dtype=np.float32)
                apply_rules(tensor, part)
                for values, answer in zip(found.values(), network(torch.from_numpy(part)), strict=True):
                    values.append(answer.numpy())
        return {name: np.concatenate(values) for name, values in found.items()}

    def write(self, directory: Path) -> None:
        """Write weights.safetensors and record.json.

        Args:
            directory: made if it is not there.
        """
        text = self.record.model_dump_json(indent=2) + "\n"
        write_files(directory, {WEIGHTS_FILE: self.weights, RECORD_FILE: text.encode()})

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            ModelRefused: if a file is absent, damaged or not of the other.
        """
        place = directory / RECORD_FILE
        try:
            record = Record.model_validate_json(place.read_bytes())
            Settings(**record.settings)
            weights = (directory / WEIGHTS_FILE).read_bytes()
        except OSError as error:
            raise ModelRefused(f"{error.filename} cannot be read: {error.strerror}") from None
        except (ValidationError, TypeError, TrainingRefused) as error:
            raise ModelRefused(f"{place} does not hold: {str(error).splitlines()[0]}") from None
        found = hashlib.sha256(weights).hexdigest()
        if found != record.weights_sha256:
            raise ModelRefused(
                f"{directory / WEIGHTS_FILE} has sha256 {found}, its record says {record.weights_sha256}"
            )
        return cls(weights=weights, record=record)


def train(  # noqa: PLR0913 - what a training is
    table: SequenceTable | Path,
    settings: Settings | None = None,
    seed: int = 0,
    validation_groups: Sequence[int] = (),
    out_dir: Path | str = ".",
    tell: Report | None = None,
    *,
    withheld_groups: Sequence[int] = (),
    progress: Progress | None = None,
    device: str = "auto",
    threads: int = 1,
) -> Trained:
    """Learn from a table; writes a checkpoint after every epoch, and at the end the best weights and their record.

    Where ``out_dir`` holds a checkpoint of the same table, settings, seed and groups, the training goes on from there
    and ends with the weights it would have had.

    Args:
        table: or the directory of one.
        settings: of network and learning; the defaults where None.
        seed: of the first weights, the order of the rows and the dropout.
        validation_groups: whole groups of rows that stop the training and are not learned from.
        out_dir: for checkpoint.safetensors, weights.safetensors and record.json; made if it is not there.
        tell: told a sentence now and then.
        withheld_groups: whole groups that are not looked at: for the caller's own scores.
        progress: told steps done and steps in all, at most, after every step.
        device: "cpu", "cuda", or "auto": a GPU where torch has one.
        threads: of torch on the processor; sums of another number of threads differ in the last digits.

    Raises:
        TableRefused: if the rows cannot be learned from.
        TrainingRefused: if settings, seed, groups, device or checkpoint do not hold.
    """
    chosen, said = settings or Settings(), tell or (lambda _: None)
    _check_seed(seed)
    held = table if isinstance(table, SequenceTable) else SequenceTable.read(table)
    parts = _split(held, validation_groups, withheld_groups)
    place = _device(device)
    features, scaling = measure(held, parts.train)
    begun = _Begun(
        settings=asdict(chosen),
        seed=seed,
        table_sha256=held.sha256,
        validation_groups=sorted(set(validation_groups)),
        withheld_groups=sorted(set(withheld_groups)),
        device=place.type,
        threads=threads,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            run = _Run(held, parts, features, scaling, chosen, begun, Path(out_dir), place)
            run.learn(said, progress)
    finally:
        torch.set_num_threads(before)
    trained = run.trained()
    trained.write(Path(out_dir))
    return trained


class _Begun(BaseModel):
    """What a checkpoint was begun with; all of it must be the same for the training to go on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    settings: dict[str, Any]
    seed: int
    table_sha256: Sha256
    validation_groups: list[int]
    withheld_groups: list[int]
    device: str
    threads: int


class _State(BaseModel):
    """Beside the tensors in a checkpoint."""

    model_config = ConfigDict(extra="forbid", strict=True)

    begun: _Begun
    epochs: list[Epoch] = []
    best_epoch: int = 0
    resumed: int = 0

    @property
    def best_loss(self) -> float:
        return min((epoch.validation_loss for epoch in self.epochs), default=math.inf)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


class _Run:
    """One training: the network, its optimizer, and where it stands."""

    def __init__(
        self,
        table: SequenceTable,
        parts: _Parts,
        features: list[Feature],
        scaling: Scaling,
        settings: Settings,
        begun: _Begun,
        out: Path,
        device: torch.device,
    ) -> None:
        self.table, self.parts, self.features, self.settings = table, parts, features, settings
        self.out, self.device = out, device
        self.tensor = sequence_tensor(features)
        weights = table.rows["weight"][parts.train].astype(np.float64)
        self.weight_scale = 1 / weights.mean()
        self.target_deviation = scaling.target_deviation
        torch.manual_seed(_drawn(begun.seed, 0))
        network = _build(settings, len(features))
        network.set_scaling(
            torch.from_numpy(scaling.mean),
            torch.from_numpy(scaling.deviation),
            scaling.target_mean,
            scaling.target_deviation,
        )
        self.network = network.to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
        )
        self.best = _copied(self.network.state_dict())
        self.state = _State(begun=begun)
        if (out / CHECKPOINT_FILE).exists():
            self._resume()

    @property
    def ended(self) -> bool:
        """Whether nothing is left to learn."""
        done = len(self.state.epochs)
        return done >= self.settings.epochs or done - self.state.best_epoch >= self.settings.patience

    def learn(self, tell: Report, progress: Progress | None) -> None:
        rows, asked = len(self.parts.train), len(self.parts.validation)
        tell(f"learning from {rows} rows of {len(self.features)} covariates on {self.device}, {asked} rows stop it")
        if self.state.epochs:
            tell(f"going on after epoch {len(self.state.epochs)}")
        while not self.ended:
            epoch = self._epoch(len(self.state.epochs) + 1, progress)
            if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
                raise TrainingRefused(
                    f"the loss is not finite in epoch {epoch.number}: a lower rate than {self.settings.rate:g} may help"
                )
            if epoch.validation_loss < self.state.best_loss:
                self.best = _copied(self.network.state_dict())
                self.state.best_epoch = epoch.number
            self.state.epochs.append(epoch)
            self._keep()
            tell(
                f"epoch {epoch.number} of {self.settings.epochs}: loss {epoch.validation_loss:.4f}, "
                f"error {epoch.validation_rmse_ppm:.3f} ppm in the validation groups; {epoch.wall_s:.0f} s"
            )
        tell(f"stopped after epoch {len(self.state.epochs)}; the best was {self.state.best_epoch}")

    def trained(self) -> Trained:
        weights = save_tensors(self.best)
        begun = self.state.begun
        record = Record(
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            features=self.features,
            settings=begun.settings,
            seed=begun.seed,
            table=self.table.description,
            table_sha256=begun.table_sha256,
            synthetic=self.table.synthetic,
            validation_groups=begun.validation_groups,
            withheld_groups=begun.withheld_groups,
            rows=len(self.parts.train),
            validation_rows=len(self.parts.validation),
            best_epoch=self.state.best_epoch,
            epochs=self.state.epochs,
            resumed=self.state.resumed,
            device=torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type,
            threads=begun.threads,
            versions={
                "cenote": installed_version("cenote"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            wall_s=sum(epoch.wall_s for epoch in self.state.epochs),
            cpu_s=sum(epoch.cpu_s for epoch in self.state.epochs),
        )
        return Trained(weights=weights, record=record)

    def _epoch(self, number: int, progress: Progress | None) -> Epoch:
        wall, cpu = time.perf_counter(), time.process_time()
        settings = self.settings
        # the rate is a function of the epoch, so that a resumed training needs no state of a schedule
        share = 0.5 * (1 + math.cos(math.pi * (number - 1) / settings.epochs))
        rate = settings.rate * (0.01 + 0.99 * share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_drawn(self.state.begun.seed, number))
        order = np.random.default_rng([self.state.begun.seed, number]).permutation(self.parts.train)
        self.network.train()
        steps, total, seen = math.ceil(len(order) / settings.batch), torch.zeros((), dtype=torch.float64), 0.0
        for step in range(steps):
            at = order[step * settings.batch : (step + 1) * settings.batch]
            sequences, target, error, weight = self._batch(at)
            self.optimizer.zero_grad()
            departure, spread, _ = self.network(sequences)
            if number <= settings.first_epochs:
                spread = torch.full_like(spread, self.target_deviation)
            each = weight * negative_log_likelihood(departure, spread, target, error, beta=settings.beta)
            loss = each.mean() * self.weight_scale
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.longest_step)
            self.optimizer.step()
            total += each.detach().sum().to("cpu", torch.float64)
            seen += float(weight.sum())
            if progress is not None:
                progress((number - 1) * steps + step + 1, settings.epochs * steps)
        loss_here, rmse = self._validate()
        return Epoch(
            number=number,
            rate=rate,
            train_loss=float(total) / seen,
            validation_loss=loss_here,
            validation_rmse_ppm=rmse,
            wall_s=round(time.perf_counter() - wall, 3),
            cpu_s=round(time.process_time() - cpu, 3),
        )

    def _validate(self) -> tuple[float, float]:
        self.network.eval()
        loss = squares = seen = 0.0
        with torch.no_grad():
            for start in range(0, len(self.parts.validation), _ROWS_AT_ONCE):
                sequences, target, error, weight = self._batch(self.parts.validation[start : start + _ROWS_AT_ONCE])
                departure, spread, _ = self.network(sequences)
                each = negative_log_likelihood(departure, spread, target, error)
                loss += float((weight * each).double().sum())
                squares += float((weight * (departure - target) ** 2).double().sum())
                seen += float(weight.double().sum())
        return loss / seen, math.sqrt(squares / seen)

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sequences = self.table.sequences(rows)
        apply_rules(self.tensor, sequences)
        at = self.table.rows[rows]
        columns = (np.ascontiguousarray(at[name]) for name in ("target", "error", "weight"))
        target, error, weight = (torch.from_numpy(column).to(self.device) for column in columns)
        return torch.from_numpy(sequences).to(self.device), target, error, weight

    def _keep(self) -> None:
        tensors = {f"network.{name}": value for name, value in _copied(self.network.state_dict()).items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value.cpu().clone() for name, value in moments.items()}
        content = save_tensors(tensors, metadata={_NOTE: self.state.model_dump_json()})
        write_files(self.out, {CHECKPOINT_FILE: content})

    def _resume(self) -> None:
        place = self.out / CHECKPOINT_FILE
        try:
            with safe_open(place, framework="pt") as file:
                state = _State.model_validate_json(file.metadata()[_NOTE])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, KeyError, TypeError, ValidationError) as error:
            raise TrainingRefused(
                f"{place} is no checkpoint of this training: {error}; remove it to begin anew"
            ) from None
        mine, theirs = self.state.begun.model_dump(), state.begun.model_dump()
        other = [name for name, value in mine.items() if theirs[name] != value]
        if other:
            raise TrainingRefused(
                f"{place} was begun with other {', '.join(other)}: remove it to begin anew, or choose another directory"
            )
        self.network.load_state_dict(_under("network.", tensors))
        self.best = _under("best.", tensors)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            number, key = name.split(".", 1)
            moments.setdefault(int(number), {})[key] = value
        known = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": known["param_groups"]})
        self.state = state
        self.state.resumed += 0 if self.ended else 1


def _build(settings: Settings, features: int) -> SequenceNet:
    return SequenceNet(
        features,
        hidden=settings.hidden,
        attention=settings.attention,
        dense=settings.dense,
        dropout=settings.dropout,
    )


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _drawn(seed: int, epoch: int) -> int:
    """A seed of its own for every epoch; 0 is the first weights'."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _check_seed(seed: int) -> None:
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise TrainingRefused(f"a seed is a whole number from 0 to 2147483647, not {seed!r}")


def _device(name: str) -> torch.device:
    if name not in {"auto", "cpu", "cuda"}:
        raise TrainingRefused(f"a device is auto, cpu or cuda, not {name!r}")
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise TrainingRefused("torch finds no GPU here: use device 'auto' or 'cpu'")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def _split(table: SequenceTable, validation: Sequence[int], withheld: Sequence[int]) -> _Parts:
    both = sorted(set(validation) & set(withheld))
    if both:
        raise TrainingRefused(f"groups {both} are named for validation and withheld")
    group, used = table.rows["group"], table.rows["weight"] > 0
    for kind, named in (("validation", validation), ("withheld", withheld)):
        absent = sorted(set(named) - set(group.tolist()))
        if absent:
            raise TrainingRefused(f"{table.where} has no rows of the {kind} groups {absent}")
    stops = np.isin(group, list(validation)) & used
    learned = ~np.isin(group, [*validation, *withheld]) & used
    if not stops.any():
        raise TrainingRefused(
            f"{table.where}: the validation groups {sorted(validation)} hold no row with a weight above 0"
        )
    if learned.sum() < LEAST_ROWS:
        raise TableRefused(f"{table.where}: {learned.sum()} rows are too few to learn from; {LEAST_ROWS} are the least")
    return _Parts(train=np.flatnonzero(learned), validation=np.flatnonzero(stops))
