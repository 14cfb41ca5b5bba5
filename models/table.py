"""Training tables: CSV with a header, comment lines that start with #, empty cells where a number is missing."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import TableRefused


@dataclass(frozen=True, kw_only=True)
class Table:
    """The columns of a training table as text.

    Raises:
        TableRefused: from ``read`` and ``numbers``, naming file and fact.
    """

    path: Path
    sha256: str
    columns: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read a table whole."""
        try:
            content = path.read_bytes()
            lines = [line for line in content.decode().splitlines() if line and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise TableRefused(f"{path} cannot be read: {error}") from None
        rows = list(csv.reader(lines))
        if len(rows) < 2:
            raise TableRefused(f"{path} holds no rows")
        for number, row in enumerate(rows[1:], start=1):
            if len(row) != len(rows[0]):
                raise TableRefused(f"{path}, row {number}: {len(row)} cells under {len(rows[0])} names")
        columns = dict(zip(rows[0], (list(column) for column in zip(*rows[1:], strict=True)), strict=True))
        return cls(path=path, sha256=hashlib.sha256(content).hexdigest(), columns=columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def text(self, name: str) -> list[str]:
        """A column as it stands."""
        if name not in self.columns:
            raise TableRefused(f"{self.path} has no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as numbers, ``(row,)``; NaN where a cell is empty."""
        column = self.text(name)
        try:
            return np.array([np.nan if cell == "" else float(cell) for cell in column], dtype=np.float64)
        except ValueError as error:
            raise TableRefused(f"{self.path}, column {name}: {error}") from None
