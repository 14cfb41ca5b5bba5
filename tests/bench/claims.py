"""What issue 4 promises, held against a run: each promise with the number that was found."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.lineup import OURS
from tests.bench.rounds import Row

STOCK = ("titiler.core", "titiler.xarray")
MIN_ZOOM = 2
"""Lower zooms are a handful of tiles."""
LONG = 84
"""Months of the series that promises speak of."""
BARE_GET = "bare GET"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A promise and what was found; the worst of all cases."""

    text: str
    found: float
    wanted: float
    at_least: bool
    """Whether ``found`` may not be smaller; else it may not be larger."""

    @property
    def holds(self) -> bool:
        """Whether it is so."""
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted


def claims(rows: Sequence[Row], with_empty: str) -> list[Claim]:
    """All promises that this run has numbers for."""
    cases: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row.section, row.case, row.clients), {})[row.peer] = row
    held = next((row.p50 for row in rows if row.section == "cold" and row.peer == BARE_GET and row.p50), 20.0)
    found: dict[tuple[str, float, bool], list[float]] = {}
    for (section, case, _), members in cases.items():
        for text, value, wanted, at_least in _of_case(section, case, members, with_empty, held):
            found.setdefault((text, wanted, at_least), []).append(value)
    return [
        Claim(text=text, found=min(values) if at_least else max(values), wanted=wanted, at_least=at_least)
        for (text, wanted, at_least), values in found.items()
    ]


type _Found = Iterator[tuple[str, float, float, bool]]


def _of_case(section: str, case: str, members: dict[str, Row], with_empty: str, held: float) -> _Found:
    ours = members.get(OURS)
    if section in {"hot", "crowd"} and ours is not None and int(case.split(" z")[1]) >= MIN_ZOOM:
        yield from _hot(members, ours, with_empty) if section == "hot" else _crowd(members, ours)
    elif section == "again" and ours is not None and ours.rate and "bytes from memory" in members:
        rate = members["bytes from memory"].rate or 1.0
        yield "a tile asked for again: share of the rate of the same bytes from memory", ours.rate / rate, 0.7, True
    elif section == "cold" and ours is not None and ours.p95 is not None:
        yield "cold tile from a store at 20 ms: p95 in GET times", ours.p95 / held, 3, False
        yield "cold tile: most GETs", float(ours.facts["gets_most"]), 4, False
    elif section == "series" and ours is not None and ours.p50:
        if int(re.findall(r"(\d+) months", case)[0]) >= LONG:
            yield from _series(members, ours.p50)
    elif section == "zonal" and ours is not None and ours.p50:
        yield "means over a continent, 36 months: seconds", ours.p50 / 1000, 0.35, False
    elif section == "batch" and "one POST" in members:
        one, apart = members["one POST"].p50, members["one by one (100 asked)"].p50
        if one and apart:
            clustered = "clusters" in case
            text = f"10 000 places in one POST, {'clustered' if clustered else 'spread'}: times faster than one by one"
            yield text, apart / one, 50 if clustered else 4, True
        if "fetched" in members:
            yield (
                "10 000 places: bytes fetched more than once",
                float(members["fetched"].facts["bytes_twice"]),
                0,
                False,
            )
    elif section == "length":
        times = [row.p50 for row in members.values() if row.p50]
        if len(times) == 2:
            yield "tile latency at 225 months, of that at 12", times[1] / times[0], 1.2, False


def _hot(members: dict[str, Row], ours: Row, with_empty: str) -> _Found:
    own = ours.cpu_ms or 1e-9
    stock = [row.cpu_ms for peer in STOCK if (row := members.get(peer)) and row.cpu_ms]
    if stock:
        yield "hot tile: times less CPU than the faster stock titiler", min(stock) / own, 30, True
    if (mapserver := members.get("MapServer")) and mapserver.cpu_ms:
        yield "hot tile: times less CPU than MapServer", mapserver.cpu_ms / own, 6, True
    if (floor := members.get(with_empty)) and floor.cpu_ms:
        yield "hot tile: CPU, times the floor", own / floor.cpu_ms, 2, False


def _crowd(members: dict[str, Row], ours: Row) -> _Found:
    if (mapserver := members.get("MapServer")) and mapserver.rate and ours.rate:
        yield "8 clients: times MapServer's tiles/s", ours.rate / mapserver.rate, 6, True
    if ours.p99 and ours.p50:
        yield "8 clients: p99, times p50", ours.p99 / ours.p50, 5, False


def _series(members: dict[str, Row], p50: float) -> _Found:
    bare, empty = members.get("bare GET"), members.get("empty answer")
    if bare and empty and bare.p50 and empty.p50:
        yield "series: p50, times one bare GET and an empty answer", p50 / (bare.p50 + empty.p50), 1.5, False
    for peer, wanted in (("titiler.core, COG by COG", 50), ("titiler.xarray", 3)):
        if (row := members.get(peer)) and row.p50:
            yield f"series: times faster than {peer}", row.p50 / p50, wanted, True
