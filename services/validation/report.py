"""A report in parts: numbers as JSON, tables as CSV, pictures; what cannot be computed stands there with its reason."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from services.core.catalog import Version
from services.core.errors import InputRefused
from services.core.made_from import other_files, other_settings

type Note = Callable[[str], None]
type Rows = list[dict[str, Any]]

REPORT = "report.json"


class NotComputed(Exception):
    """A part of the report cannot be computed; the message says why."""


@dataclass(kw_only=True)
class Report:
    """What there is so far.

    Raises:
        InputRefused: if its directory cannot be made.
    """

    out: Path
    """For report.json, tables and pictures; made if it is not there."""

    note: Note
    parts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputRefused(f"{self.out} cannot be written: {error.strerror}") from None

    def part[T](self, name: str, compute: Callable[[], tuple[dict[str, Any], Rows, *tuple[T, ...]]]) -> tuple[T, ...]:
        """Compute a part and write its table; where it cannot be, its reason stands there, and is told.

        A file that does not hold is such a reason: it must not take what the other parts say away.
        """
        self.note(f"{name.replace('_', ' ')} ...")
        # what an earlier report left must not pass for this one's
        (self.out / f"{name}.csv").unlink(missing_ok=True)
        try:
            told, rows, *more = compute()
        except (NotComputed, InputRefused) as reason:
            self.parts[name] = {"not_computed": str(reason)}
            self.note(f"{name.replace('_', ' ')}: not computed: {reason}")
            return ()
        self.parts[name] = told
        if rows:  # a table of nothing is an empty line
            write_table(self.out / f"{name}.csv", rows)
            self.tables[name] = f"{name}.csv"
        return tuple(more)

    def picture(self, name: str, draw: Callable[[Path], None]) -> None:
        """Draw; where there is nothing to draw, that is told."""
        (self.out / f"{name}.png").unlink(missing_ok=True)
        try:
            draw(self.out / f"{name}.png")
        except NotComputed as reason:
            self.pictures[name] = f"not drawn: {reason}"
            self.note(f"picture {name}: not drawn: {reason}")
            return
        self.pictures[name] = f"{name}.png"

    def write(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Write report.json.

        Args:
            told: all of it.

        Returns:
            The same as plain JSON data, and where it lies.
        """
        plain: dict[str, Any] = numbers(told)
        (self.out / REPORT).write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return {**plain, "out": str(self.out)}


def numbers(value: Any) -> Any:
    """JSON data of plain numbers: None where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(key): numbers(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as a CSV file."""
    path.write_text(as_csv(rows), encoding="utf-8")


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, columns in the order in which they first occur; empty where there is no number."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = numbers(row)
        writer.writerow({name: "" if value is None else value for name, value in plain.items()})
    return text.getvalue()


def check_made_from(
    version: Version, mine: Mapping[str, str], settings: Mapping[str, Any], where: str, *, unknown: str | None = None
) -> None:
    """Scores of a version against inputs that it was not made from would be scores of nothing.

    Args:
        version: with what each of its segments was made from.
        mine: digest of each file that there is, by name.
        settings: those that values follow from, as JSON data.
        where: they lie.
        unknown: a file that cannot be told here, such as a part of the model.

    Raises:
        InputRefused: if files or settings differ; names the first, and what to do.
    """
    name = version.product.id
    for segment, origin in version.provenance.items():
        files = [one for one in other_files(origin, mine) if one != unknown]
        entries = other_settings(origin, settings)
        if not files and not entries:
            continue
        facts = origin.get("facts", {})
        part = facts.get("part_of")
        words = f"cenote render {part or name} --inputs {where}"
        if part is not None:
            box = ",".join(f"{edge:g}" for edge in facts["bbox"])
            words += f" --bbox {box} --name {name.removeprefix(f'{part}_')}"
        words += f" --periods {version.time.ids[0]}/{version.time.ids[-1]}"
        told = []
        if files:
            told.append(f"{len(files)} of {len(mine)} files differ, first {files[0]}")
        if entries:
            told.append(f"its settings say something else in {', '.join(entries)}")
        raise InputRefused(
            f"{name} (segment {segment}) was made from other inputs than {where} holds: {' and '.join(told)}; name the "
            f"folder that it was made from (--inputs), or render it anew from this one, with the --models you have: "
            f"`{words}`"
        )
