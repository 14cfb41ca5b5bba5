"""The bench itself keeps working: tiny data, our server and the floor, a fraction of a second each."""

import contextlib
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.bench import data as making
from tests.bench import report, sections, stacks
from tests.bench.client import fastcgi_message
from tests.bench.floor import Floor
from tests.bench.lineup import OURS, Ours
from tests.bench.pictures import compare
from tests.bench.servers import Client


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> making.Data:
    made = making.Data(folder=tmp_path_factory.mktemp("bench"))
    making.publish(made, [stacks.TINY], lambda _: None)
    return made


@pytest.mark.slow
def test_ours_and_the_floor_are_measured_and_reported(data: making.Data, tmp_path: Path) -> None:
    with contextlib.closing(Client()) as client:
        bench = sections.Bench(
            data=data,
            folder=tmp_path,
            client=client,
            ours=Ours("test"),
            peers=[],
            stacks=(stacks.TINY,),
            note=lambda _: None,
            deadline=time.monotonic() + 60,
            seconds=0.1,
            rounds=1,
            zooms=(0, 2),
        )
        sections.run(bench, ["hot", "again", "zonal"])
    faults = [note for note in bench.notes if not note.startswith("resident MiB")]
    assert not faults
    rows = report.with_floor(bench.rows)
    hot = {(row.case, row.peer) for row in rows if row.section == "hot"}
    assert hot == {(f"tiny z{zoom}", peer) for zoom in (0, 2) for peer in (OURS, sections.FLOOR, report.WITH_EMPTY)}
    assert {row.section for row in rows} == {"check", "hot", "crowd", "again", "zonal"}
    for row in rows:
        if row.peer == sections.FLOOR and row.section == "hot":
            assert row.cpu_ms is not None
            assert 0 < row.cpu_ms < 50
    machine = {"cores": 1, "cpu": "a & b"}
    report.write(tmp_path / "reports", report.document(rows, {"machine": machine, "commit": "x"}, []), rows)
    written = json.loads((tmp_path / "reports" / "bench.json").read_text())
    assert len(written["measured"]) == len(rows)
    assert "a &amp; b" in (tmp_path / "reports" / "bench.svg").read_text()
    assert str(tmp_path) not in json.dumps(written)
    report.tables(rows, Console(quiet=True))


def test_a_stack_is_the_same_every_time_and_its_part_is_smooth() -> None:
    small = stacks.TINY
    first, again = (next(stacks.stored(small)) for _ in range(2))
    assert np.array_equal(first, again)
    values = first * small.scale + small.offset
    assert small.ranges[0] < values.min() < values.max() < small.ranges[1]
    # smooth across the antimeridian too
    assert np.abs(values[:, 0] - values[:, -1]).max() < 3


@pytest.mark.slow
def test_another_month_is_noticed(data: making.Data) -> None:
    floors = [Floor(data.dataset(stacks.TINY), stacks.TINY, month) for month in (0, 2)]
    same, other = (compare(floors[0].draw(2, 1, 1), floor.draw(2, 1, 1)) for floor in floors)
    assert same.good
    assert not other.good


def test_a_fastcgi_request_has_its_records_in_order() -> None:
    message = fastcgi_message("GET", "/?a=b")
    kinds, at = [], 0
    while at < len(message):
        kinds.append(message[at + 1])
        at += 8 + int.from_bytes(message[at + 4 : at + 6])
    assert kinds == [1, 4, 4, 5]
    assert b"QUERY_STRING" in message
    assert at == len(message)


def test_peers_are_pinned_and_named_without_addresses() -> None:
    for path in (Path(__file__).parent / "peers").glob("*.txt"):
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in path.read_text().split())
