"""What the sweep found: tables for a person, JSON for a machine, and a picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table as RichTable

type Cell = str | float | int


@dataclass(frozen=True, kw_only=True)
class Table:
    """One question and its answers."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_detail: bool = False
    """Kept in the JSON and not printed."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.id}: {row} has not the {len(self.columns)} columns {self.columns}")


def show(tables: Sequence[Table], console: Console) -> None:
    """Print the tables that are no details."""
    for table in tables:
        if table.is_detail:
            continue
        printed = RichTable(title=f"{table.id}: {table.title}", title_justify="left")
        for number, column in enumerate(table.columns):
            printed.add_column(column, justify="left" if isinstance(table.rows[0][number], str) else "right")
        for row in table.rows:
            printed.add_row(*(_shown(cell) for cell in row))
        console.print(printed)


def _shown(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1000:
        return f"{cell:,.0f}".replace(",", " ")
    return f"{cell:.3g}"


def document(tables: Sequence[Table], facts: dict[str, Any], notes: Sequence[str]) -> str:
    """The run as JSON: a line for each row, floats with four digits."""
    head = json.dumps({**facts, "notes": list(notes)}, indent=2, ensure_ascii=False)
    parts = []
    for table in tables:
        rows = ",\n".join("        " + json.dumps([_kept(cell) for cell in row]) for row in table.rows)
        parts.append(
            f'    {{\n      "id": {json.dumps(table.id)},\n      "title": {json.dumps(table.title)},\n'
            f'      "columns": {json.dumps(table.columns)},\n      "rows": [\n{rows}\n      ]\n    }}'
        )
    return f'{head[:-2]},\n  "tables": [\n' + ",\n".join(parts) + "\n  ]\n}\n"


def _kept(cell: Cell) -> Cell:
    return float(f"{cell:.4g}") if isinstance(cell, float) else cell


def write(folder: Path, text: str, picture: str) -> None:
    """``layouts.json`` and ``layouts.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layouts.json").write_text(text, encoding="utf-8")
    if picture:
        (folder / "layouts.svg").write_text(picture, encoding="utf-8")


WIDTH, BAR, LEFT, GAP = 860, 13, 210, 28
PANEL = (WIDTH - LEFT) / 2 - 60

COLUMNS = ("stored share", "decode ms")
"""What the picture shows of a table."""


def svg(groups: Sequence[Table], about: str, today: str) -> str:
    """Bars for each codec: stored share of the decoded bytes, and decoding time; those of today's codec are dark.

    Args:
        groups: tables with the columns ``codec``, ``stored share`` and ``decode ms``.
        about: a line on what was measured with.
        today: name of the codec in use.
    """
    if not groups:
        return ""
    parts: list[str] = []
    top = 62
    for group in groups:
        parts.append(f'<text x="20" y="{top}" style="font-weight:bold">{escape(f"{group.id}: {group.title}")}</text>')
        top += 8
        shares, times = ([float(row[group.columns.index(name)]) for row in group.rows] for name in COLUMNS)
        for row, share, time in zip(group.rows, shares, times, strict=True):
            name = str(row[group.columns.index("codec")])
            colour = "#1b6ca8" if name == today else "#9dbdd6"
            parts.append(f'<text x="{LEFT - 8}" y="{top + BAR - 3}" text-anchor="end" class="n">{escape(name)}</text>')
            for x, value, most, text in (
                (LEFT, share, max(shares), f"{share:.0%}"),
                (LEFT + PANEL + 60, time, max(times), f"{time:.2f}"),
            ):
                length = max(1.0, PANEL * value / most)
                parts.append(
                    f'<rect x="{x:.0f}" y="{top}" width="{length:.1f}" height="{BAR - 2}" fill="{colour}"/>'
                    f'<text x="{x + length + 4:.1f}" y="{top + BAR - 3}" class="n">{text}</text>'
                )
            top += BAR
        top += GAP
    heads = "".join(
        f'<text x="{x:.0f}" y="44" class="n">{text}</text>'
        for x, text in (
            (LEFT, "stored share of the decoded bytes (shorter is better)"),
            (LEFT + PANEL + 60, "CPU ms to decode 262 144 values"),
        )
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 16}" width="{WIDTH}" height="{top + 16}">'
        "<style>text{font:12px sans-serif;fill:#222}.n{font-size:10.5px;fill:#555}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
        '<text x="20" y="26" style="font-size:15px;font-weight:bold">Codecs on a map chunk and on a series chunk</text>'
        + heads
        + "".join(parts)
        + f'<text x="20" y="{top + 4}" class="n">{escape(about)}</text></svg>\n'
    )
