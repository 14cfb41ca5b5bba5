"""Training tables of sequences: each cell's covariates stored once, and rows that point into them.

A row is a window of 12 months on its cell's series; neighbours share 11 of them, so windows are never stored.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.card import Name
from models.errors import TableRefused
from models.writing import write_files
from models.xco2_global.signature import MONTHS

HEAD_FILE, COVARIATES_FILE, ROWS_FILE = "table.json", "covariates.npy", "rows.npy"

ROW = np.dtype(
    [("cell", "<i4"), ("month", "<i4"), ("target", "<f4"), ("error", "<f4"), ("weight", "<f4"), ("group", "<i4")]
)
"""One row of rows.npy; README.md says what each is."""

_CELLS_AT_ONCE = 4096

type Floats = NDArray[np.float32]
type Number = Annotated[float, Field(allow_inf_nan=False)]


class Covariate(BaseModel):
    """A column of the sequences."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    units: str = Field(min_length=1)
    """UDUNITS string; ``1`` where there is none."""

    long_name: str = Field(min_length=1)

    valid_min: Number | None = None
    """A value below counts as this one; the least of the training rows where None."""

    valid_max: Number | None = None

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.valid_min is not None and self.valid_max is not None and not self.valid_min < self.valid_max:
            raise ValueError(f"{self.name}: valid_min {self.valid_min} is not below valid_max {self.valid_max}")
        return self


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = Field(default=1, ge=1, le=1)
    description: str = Field(min_length=1)
    synthetic: bool
    first_month: int
    covariates: list[Covariate] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class SequenceTable:
    """Covariates of cells over months, and rows with what was seen there.

    Raises:
        TableRefused: when made, if shapes, months, cells, targets, errors or weights do not hold.
    """

    description: str
    """What the rows are, for people."""

    synthetic: bool
    """Whether they were made up."""

    covariates: tuple[Covariate, ...]
    """Of the last axis of ``values``, in order."""

    first_month: int
    """Of the month axis, months since 1970-01."""

    values: Floats
    """``(cell, month, covariate)`` float32, raw units; NaN is missing. May be memory-mapped."""

    rows: NDArray[Any]
    """``(row,)`` of dtype ``ROW``."""

    where: str = "the table"
    """What a refusal calls it."""

    def __post_init__(self) -> None:
        names = [covariate.name for covariate in self.covariates]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TableRefused(f"{self.where}: {', '.join(twice)} stands twice among the covariates")
        if self.values.dtype != np.float32 or self.values.ndim != 3 or self.values.shape[2] != len(names):
            raise TableRefused(
                f"{self.where}: covariates are {self.values.dtype} of shape {self.values.shape}, "
                f"not float32 (cell, month, {len(names)})"
            )
        if self.rows.dtype != ROW or self.rows.ndim != 1:
            raise TableRefused(f"{self.where}: rows hold {self.rows.dtype.names or self.rows.dtype}, not {ROW.names}")
        if not len(self.rows):
            raise TableRefused(f"{self.where} holds no rows")
        self._check_places()
        self._check_numbers()

    def _check_places(self) -> None:
        cells, months = self.values.shape[:2]
        outside = int(((self.rows["cell"] < 0) | (self.rows["cell"] >= cells)).sum())
        if outside:
            raise TableRefused(f"{self.where}: {outside} of {len(self)} rows name a cell outside of its {cells}")
        month = self.rows["month"].astype(np.int64) - self.first_month
        early = int(((month < MONTHS - 1) | (month >= months)).sum())
        if early:
            raise TableRefused(
                f"{self.where}: {early} of {len(self)} rows lack {MONTHS} months of covariates up to theirs; "
                f"it holds months {self.first_month} to {self.first_month + months - 1} since 1970-01"
            )

    def _check_numbers(self) -> None:
        strange = int((~np.isfinite(self.rows["target"])).sum())
        if strange:
            raise TableRefused(f"{self.where}: the target is not finite in {strange} of {len(self)} rows")
        for name in ("error", "weight"):
            held = self.rows[name]
            strange = int((~(np.isfinite(held) & (held >= 0))).sum())
            if strange:
                raise TableRefused(
                    f"{self.where}: the {name} is negative or not finite in {strange} of {len(self)} rows"
                )

    def __len__(self) -> int:
        return len(self.rows)

    def sequences(self, rows: NDArray[np.integer[Any]]) -> Floats:
        """Sequences of rows, ``(row, 12, covariate)``, oldest month first, raw units; NaN is missing.

        Args:
            rows: numbers of rows.
        """
        at = self.rows[rows]
        months = (at["month"] - self.first_month - (MONTHS - 1))[:, None] + np.arange(MONTHS)
        return np.asarray(self.values[at["cell"][:, None], months])

    @cached_property
    def sha256(self) -> str:
        """Of the head, the covariates and the rows; the same contents give the same, in memory or on disk."""
        digest = hashlib.sha256(self._head)
        for start in range(0, len(self.values), _CELLS_AT_ONCE):
            digest.update(np.ascontiguousarray(self.values[start : start + _CELLS_AT_ONCE]))
        digest.update(np.ascontiguousarray(self.rows))
        return digest.hexdigest()

    @property
    def _head(self) -> bytes:
        head = _Head(
            description=self.description,
            synthetic=self.synthetic,
            first_month=self.first_month,
            covariates=list(self.covariates),
        )
        return (head.model_dump_json(indent=2) + "\n").encode()

    def write(self, directory: Path) -> None:
        """Write the table; covariates that were made there by ``create_values`` stay as they are.

        Args:
            directory: made if it is not there.
        """
        directory.mkdir(parents=True, exist_ok=True)
        place = (directory / COVARIATES_FILE).resolve()
        if isinstance(self.values, np.memmap) and Path(str(self.values.filename)).resolve() == place:
            self.values.flush()
        else:
            created = create_values(directory, *self.values.shape)
            for start in range(0, len(self.values), _CELLS_AT_ONCE):
                created[start : start + _CELLS_AT_ONCE] = self.values[start : start + _CELLS_AT_ONCE]
            created.flush()
        part = directory / f".{ROWS_FILE}.part.npy"
        np.save(part, self.rows)
        part.replace(directory / ROWS_FILE)
        write_files(directory, {HEAD_FILE: self._head})

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Open a table; the covariates are mapped, not read.

        Raises:
            TableRefused: if a file is absent or the table does not hold.
        """
        try:
            head = _Head.model_validate_json((directory / HEAD_FILE).read_bytes())
            values = np.load(directory / COVARIATES_FILE, mmap_mode="r")
            rows = np.load(directory / ROWS_FILE)
        except OSError as error:
            raise TableRefused(f"{error.filename} cannot be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise TableRefused(f"{directory / HEAD_FILE} does not hold: {first['loc']} {first['msg']}") from None
        except ValueError as error:
            raise TableRefused(f"{directory} holds no table: {error}") from None
        return cls(
            description=head.description,
            synthetic=head.synthetic,
            covariates=tuple(head.covariates),
            first_month=head.first_month,
            values=values,
            rows=rows,
            where=str(directory),
        )


def create_values(directory: Path, cells: int, months: int, covariates: int) -> np.memmap[Any, np.dtype[np.float32]]:
    """Covariates to fill, mapped into memory, all missing; by blocks of cells it is fastest, by months it works too.

    Args:
        directory: of the table; made if it is not there.
        cells: that any row names.
        months: from 11 before the first row's to the last row's.
        covariates: of a month.

    Returns:
        ``(cell, month, covariate)`` float32, NaN.
    """
    directory.mkdir(parents=True, exist_ok=True)
    place = (directory / COVARIATES_FILE).resolve()
    values = np.lib.format.open_memmap(place, mode="w+", dtype=np.float32, shape=(cells, months, covariates))
    for start in range(0, cells, _CELLS_AT_ONCE):
        values[start : start + _CELLS_AT_ONCE] = np.nan
    return values


def make_rows(columns: dict[str, Sequence[float] | NDArray[Any]]) -> NDArray[Any]:
    """Rows from columns by name; error 0 and weight 1 where there is no such column.

    Raises:
        TableRefused: if a column is unknown, absent or of another length.
    """
    absent = sorted({"cell", "month", "target", "group"} - columns.keys())
    unknown = sorted(columns.keys() - set(ROW.names or ()))
    if absent or unknown:
        raise TableRefused(f"columns {absent} are missing and {unknown} are unknown; a row has {ROW.names}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise TableRefused(f"the columns have several lengths: {lengths}")
    rows = np.zeros(lengths["cell"], dtype=ROW)
    rows["weight"] = 1
    for name, column in columns.items():
        rows[name] = column
    return rows
