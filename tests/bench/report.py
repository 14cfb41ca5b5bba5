"""What was found: a table for a person, JSON for a machine, and a picture."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from tests.bench.claims import Claim, claims
from tests.bench.lineup import OURS
from tests.bench.rounds import Row
from tests.bench.sections import FLOOR, HELD_MS

TITLES = {
    "hot": "Hot tiles over HTTP, drawn anew, 1 client: CPU ms of the server per tile (times ours)",
    "crowd": "The same with 8 clients, one process: tiles/s (ours is so many times faster)",
    "latency": "The same with 8 clients: p50 / p99 ms",
    "again": "The same tile again, our cache on, against the same bytes from memory: answers/s",
    "cold": f"Cold tiles from MinIO, {HELD_MS:g} ms added per request: p50 / p95 ms, requests median / most",
    "series": "Series of a place from MinIO: p50 ms (times ours)",
    "zonal": "Means over a continental polygon, directory: p50 ms (times ours)",
    "length": "A hot tile of a short and of a long series, 1 client: p50 ms",
    "batch": "10 000 places: ms in all (times one POST)",
}
WITH_EMPTY = "floor + empty answer"


def with_floor(rows: Sequence[Row]) -> list[Row]:
    """The rows, and the floor of each hot tile with the CPU of an empty answer added."""
    empty = [row.cpu_ms for row in rows if row.peer == "empty answer" and row.section == "again" and row.clients == 1]
    added = []
    if empty and empty[0] is not None:
        added = [
            Row(section=row.section, case=row.case, peer=WITH_EMPTY, cpu_ms=row.cpu_ms + empty[0])
            for row in rows
            if row.peer == FLOOR and row.section == "hot" and row.cpu_ms is not None
        ]
    tiles = [row for row in (*rows, *added) if row.section in {"hot", "crowd"}]
    # they are not measured in the order of their zooms
    return [*(row for row in rows if row not in tiles), *sorted(tiles, key=lambda row: row.case)]


def tables(rows: Sequence[Row], console: Console) -> None:
    """Print a table for each section, one column per server."""
    for section, title in TITLES.items():
        shown = "crowd" if section == "latency" else section
        chosen = [row for row in rows if row.section == shown]
        if not chosen:
            continue
        peers = list(dict.fromkeys(row.peer for row in chosen))
        table = Table(title=title, title_justify="left")
        table.add_column("case")
        for peer in peers:
            table.add_column(peer, justify="right")
        for case in dict.fromkeys((row.case, row.clients) for row in chosen):
            members = {row.peer: row for row in chosen if (row.case, row.clients) == case}
            label = case[0] if shown != "again" else f"{case[0]}, {case[1]} clients"
            table.add_row(label, *(_cell(section, members, peer) for peer in peers))
        console.print(table)


def promised(found: Sequence[Claim], console: Console) -> None:
    """Print what issue 4 promises, and what was found."""
    table = Table(title="Promises of issue 4, the worst case of each", title_justify="left")
    for name in ("promise", "wanted", "found", ""):
        table.add_column(name, justify="left" if name == "promise" else "right")
    for claim in found:
        wanted = f"{'>=' if claim.at_least else '<='} {claim.wanted:g}"
        table.add_row(claim.text, wanted, _number(claim.found), "holds" if claim.holds else "does not hold")
    console.print(table)


def ratios(members: dict[str, Row]) -> dict[str, float]:
    """How many times ours each server needs: CPU or time; for rates how many times ours is faster."""
    first = members.get(OURS) or members.get("one POST")
    if first is None:
        return {}
    out = {}
    for peer, row in members.items():
        own, other = _measure(first), _measure(row)
        if row is not first and own and other:
            out[peer] = own / other if row.section in {"crowd", "again"} else other / own
    return out


def _measure(row: Row) -> float | None:
    if row.section in {"crowd", "again"}:
        return row.rate
    return row.cpu_ms if row.section == "hot" else row.p50


def _cell(section: str, members: dict[str, Row], peer: str) -> str:
    row = members.get(peer)
    if row is None:
        return "-"
    if section == "latency":
        return f"{_number(row.p50)} / {_number(row.p99)}"
    if section == "cold":
        counted = row.facts.get("gets_median")
        asked = f", {counted:g} / {row.facts['gets_most']}" if counted is not None else ""
        return f"{_number(row.p50)} / {_number(row.p95)}{asked}"
    value = _measure(row)
    ratio = ratios(members).get(peer)
    return _number(value) + (f" ({_number(ratio)}x)" if ratio is not None else "")


def _number(value: float | None) -> str:
    """Three digits are all that a shared machine can tell."""
    if value is None:
        return "-"
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.2g}"
    )


def document(rows: Sequence[Row], facts: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The run as JSON: medians, ratios, and what they were measured with."""
    cases: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row.section, row.case, row.clients), {})[row.peer] = row
    promises = [
        {"claim": claim.text, "wanted": claim.wanted, "found": float(f"{claim.found:.3g}"), "holds": claim.holds}
        for claim in claims(rows, WITH_EMPTY)
    ]
    measured = []
    for (section, case, clients), members in cases.items():
        found = ratios(members)
        for peer, row in members.items():
            numbers = {
                "cpu_ms": row.cpu_ms,
                "p50_ms": row.p50,
                "p95_ms": row.p95,
                "p99_ms": row.p99,
                "rate": row.rate,
                "times_ours": found.get(peer),
            }
            measured.append(
                {"section": section, "case": case, "clients": clients, "peer": peer, "answers": row.answers}
                | {name: float(f"{value:.4g}") for name, value in numbers.items() if value is not None}
                | row.facts
            )
    return {**facts, "notes": list(notes), "promises": promises, "measured": measured}


def write(folder: Path, content: dict[str, Any], rows: Sequence[Row]) -> None:
    """``bench.json`` and ``bench.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join("    " + json.dumps(one, ensure_ascii=False) for one in content["measured"])
    head = json.dumps({name: value for name, value in content.items() if name != "measured"}, indent=2)
    (folder / "bench.json").write_text(f'{head[:-2]},\n  "measured": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
    picture = svg(rows, content)
    if picture:
        (folder / "bench.svg").write_text(picture, encoding="utf-8")


COLOURS = ("#1b6ca8", "#e08e45", "#b5486b", "#7a8b3c", "#6b5b95", "#999999", "#cccccc")
WIDTH, BAR, LEFT, GAP = 860, 16, 190, 14


def svg(rows: Sequence[Row], content: dict[str, Any]) -> str:
    """Bars on a logarithmic axis: CPU per hot tile of each server, a group for each stack and zoom."""
    chosen = [
        row
        for row in rows
        if row.section == "hot" and row.cpu_ms and row.peer != FLOOR and row.case.split(" z")[1] in {"2", "4", "6", "8"}
    ]
    if not chosen:
        return ""
    peers = list(dict.fromkeys(row.peer for row in chosen))
    cases = list(dict.fromkeys(row.case for row in chosen))
    decades = (0.1, 1.0, 10.0, 100.0)
    low = min(decades[0], *(row.cpu_ms or 1 for row in chosen))
    high = max(decades[-1], *(row.cpu_ms or 1 for row in chosen))
    parts = []
    top = 78
    for case in cases:
        members = {row.peer: row for row in chosen if row.case == case}
        parts.append(
            f'<text x="{LEFT - 10}" y="{top + BAR * len(members) / 2 + 4:.0f}" text-anchor="end">{case}</text>'
        )
        for peer in [peer for peer in peers if peer in members]:
            value = members[peer].cpu_ms or low
            length = _place(value, low, high)
            parts.append(
                f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR - 2}" '
                f'fill="{COLOURS[peers.index(peer) % len(COLOURS)]}"/>'
                f'<text x="{LEFT + length + 4:.1f}" y="{top + BAR - 5}" class="n">{_number(value)}</text>'
            )
            top += BAR
        top += GAP
    for value in decades:
        x = LEFT + _place(value, low, high)
        parts.insert(0, f'<line x1="{x:.1f}" x2="{x:.1f}" y1="72" y2="{top}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + 14}" text-anchor="middle" class="n">{value:g} ms</text>')
    for number, peer in enumerate(peers):
        x = 20 + 138 * number
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="42" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="52">{escape(peer)}</text>')
    title = "CPU of the server per hot map tile, drawn anew (logarithmic; shorter is better)"
    about = (
        f"{content['machine']['cores']} cores, {content['machine']['cpu']}; cenote {content['commit']}; synthetic data"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 46}" width="{WIDTH}" height="{top + 46}">'
        "<style>text{font:12px sans-serif;fill:#222}.n{font-size:10.5px;fill:#555}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="20" y="26" style="font-size:15px;font-weight:bold">{title}</text>'
        + "".join(parts)
        + f'<text x="20" y="{top + 36}" class="n">{escape(about)}</text></svg>\n'
    )


def _place(value: float, low: float, high: float) -> float:
    return max(2.0, (WIDTH - LEFT - 70) * math.log(value / low * 1.3) / math.log(high / low * 1.3))
