"""Publishes under load: every answer is wholly of the version that it names, and no server is more than 2 s behind."""

import io
import os
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from services.core.catalog import Version, current_version, read_pointer
from services.core.grid import Grid, Window
from services.core.product import Product
from services.core.quantity import Quantity
from services.core.settings import StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from services.pipeline.code import this_code
from services.pipeline.plan import plan
from services.pipeline.publish import compose, publish, rollback
from services.pipeline.recipe import Input
from services.pipeline.run import run

ANSWERS = 5_000
CHANGES = 24
LATE_SECONDS = 2.0
SLACK_SECONDS = 0.5
"""What a request takes on a busy machine, beside what a server may be late."""

LONGEST_SECONDS = 240.0

PRODUCT = Product(
    id="stamps",
    title="Stamps",
    description="Each period holds one number that says which publish computed it.",
    grid=Grid.of(west=-180, north=90, step_x="1", width=360, height=180),
    step="P1M",
    quantities=(Quantity(name="stamp", units="1", long_name="stamp", dtype="int32", fill_value=-1),),
    cog_period=None,
)


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """A recipe whose every value is one number."""

    number: int
    count: int
    product: Product = PRODUCT

    def periods(self) -> TimeAxis:
        return TimeAxis.regular("2001-01", "P1M", self.count)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(name=f"stamp-{self.number}", size=1, sha256=f"{self.number:064d}"),)

    def models(self) -> Mapping[str, str]:
        return {}

    def model_directories(self) -> Mapping[str, Path]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        return {}

    def compute(self, periods: TimeAxis, window: Window) -> dict[str, NDArray[Any]]:
        return {"stamp": np.full((len(periods), *window.shape), self.number, dtype="int32")}


class Silent:
    def start(self, stage: str, total: int, done: int) -> None: ...

    def advance(self, stage: str, task: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Truth:
    """What each version holds, noted before it can be seen, and when it became current."""

    stamps: dict[str, dict[str, int]] = field(default_factory=dict)
    """Version -> period id -> stamp."""

    flips: list[tuple[float, str]] = field(default_factory=list)
    """When a version's flip had ended, and the version, in order."""

    def allowed(self, asked: float, answered: float) -> set[str]:
        """Versions that an answer may be of: current at some time from 2 s before the request to its answer."""
        oldest = asked - LATE_SECONDS - SLACK_SECONDS
        names = {name for when, name in self.flips if when >= oldest}
        before = [name for when, name in self.flips if when < oldest]
        return names | set(before[-1:]) | {self.coming} if answered else names

    coming: str = ""
    """A version whose flip is under way."""


class Publisher:
    """Publishes, appends, corrects and rolls back."""

    def __init__(self, store: Store, truth: Truth) -> None:
        self.store, self.truth, self.number = store, truth, 0

    def change(self, step: int) -> None:
        current = None if read_pointer(self.store, PRODUCT.id) is None else current_version(self.store, PRODUCT.id)[1]
        if current is None or step % 8 == 0:
            self._make(current, count=12, keep=False, periods=None)
        elif step % 4 == 3:
            older = next(name for when, name in reversed(self.truth.flips) if name != current.id)
            self.truth.coming = older
            rollback(self.store, PRODUCT.id, older)
            self.truth.flips.append((time.monotonic(), older))
        elif step % 2:
            self._make(current, count=len(current.time) + 1, keep=True, periods=None)
        else:
            self._make(current, count=len(current.time), keep=True, periods=current.time.ids[3])

    def _make(self, current: Version | None, *, count: int, keep: bool, periods: str | None) -> None:
        self.number += 1
        recipe = Stamp(number=self.number, count=count)
        made = plan(
            product=PRODUCT,
            available=recipe.periods(),
            current=current,
            code=this_code(),
            inputs=recipe.inputs(),
            periods=periods,
            keep=keep,
        )
        version = compose(made, run(self.store, made, recipe, None, Silent()), current)
        stamps = dict(self.truth.stamps[current.id]) if current is not None and keep else {}
        stamps.update(dict.fromkeys(made.fresh.ids, self.number))
        self.truth.stamps[version.id] = stamps
        self.truth.coming = version.id
        publish(self.store, version)
        self.truth.flips.append((time.monotonic(), version.id))


@contextmanager
def server(url: str, environment: dict[str, str], log: Path) -> Iterator[tuple[str, int]]:
    """A `cenote serve` of its own process; yields its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sysconfig.get_path("scripts")) / "cenote"), "--store", url, "serve", "--port", str(port)]
    with log.open("wb") as messages:
        process = subprocess.Popen(command, stdout=messages, stderr=messages, env=os.environ | environment)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield address, process.pid
        assert process.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
    finally:
        process.terminate()
        process.wait(timeout=30)


class Reader(threading.Thread):
    """Asks one server for tiles and series in a loop and holds each answer against the truth."""

    def __init__(self, address: str, truth: Truth, stop: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self.address, self.truth, self.stop, self.seed = address, truth, stop, seed
        self.answers = 0
        self.faults: list[str] = []
        self.versions: set[str] = set()

    def run(self) -> None:
        rng = np.random.default_rng(self.seed)
        with httpx.Client(base_url=self.address, timeout=30) as client:
            while not self.stop.is_set() and len(self.faults) < 5:
                try:
                    self._tile(client, rng) if rng.random() < 0.5 else self._series(client, rng)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test must show it
                    self.faults.append(repr(error))

    def _tile(self, client: httpx.Client, rng: np.random.Generator) -> None:
        z = int(rng.integers(0, 4))
        x, y = (int(n) for n in rng.integers(0, 2**z, 2))
        asked = time.monotonic()
        answer = client.get(
            f"/collections/stamps/tiles/WebMercatorQuad/{z}/{x}/{y}.npy", params={"datetime": "2001-04"}
        )
        if self._sound(answer, asked):
            values = np.load(io.BytesIO(answer.content))[0]
            expected = self.truth.stamps[answer.headers["Cenote-Version"]]["2001-04"]
            if not (values == expected).all():
                self.faults.append(f"tile {z}/{x}/{y} of {answer.headers['Cenote-Version']} holds {np.unique(values)}")

    def _series(self, client: httpx.Client, rng: np.random.Generator) -> None:
        lon, lat = float(rng.uniform(-180, 180)), float(rng.uniform(-90, 90))
        asked = time.monotonic()
        answer = client.get(
            "/collections/stamps/position", params={"coords": f"POINT({lon} {lat})", "f": "CoverageJSON"}
        )
        if self._sound(answer, asked):
            document = answer.json()
            periods = [text[:7] for text in document["domain"]["axes"]["t"]["values"]]
            found = dict(zip(periods, document["ranges"]["stamp"]["values"], strict=True))
            if found != self.truth.stamps[answer.headers["Cenote-Version"]]:
                self.faults.append(f"series of {answer.headers['Cenote-Version']} is {found}")

    def _sound(self, answer: httpx.Response, asked: float) -> bool:
        answered = time.monotonic()
        if answer.status_code != 200:
            self.faults.append(f"{answer.status_code} {answer.text[:300]}")
            return False
        version = answer.headers["Cenote-Version"]
        self.answers += 1
        self.versions.add(version)
        if version not in self.truth.allowed(asked, answered):
            self.faults.append(f"{version} was answered {answered - asked:.2f} s after it was asked for and is too old")
            return False
        return True


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["directory", pytest.param("minio", marks=pytest.mark.s3)])
def test_no_answer_is_torn_wrong_or_late(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment: dict[str, str] = {}
    url, settings = str(tmp_path / "store"), StoreSettings()
    if kind == "minio":
        there = request.getfixturevalue("minio")
        url, environment = f"s3://{there.new_bucket()}/soak", there.environment()
        settings = StoreSettings(
            endpoint=there.endpoint,
            region=there.region,
            access_key_id=there.access_key,
            secret_access_key=there.secret_key,
        )
    truth = Truth()
    publisher = Publisher(Store.open(url, settings), truth)
    publisher.change(0)
    stop = threading.Event()
    with ExitStack() as stack:
        servers = [stack.enter_context(server(url, environment, tmp_path / f"log-{n}")) for n in range(2)]
        readers = [Reader(servers[n % 2][0], truth, stop, n) for n in range(4)]
        for reader in readers:
            reader.start()
        started = time.monotonic()
        step = 0
        while time.monotonic() - started < LONGEST_SECONDS and not any(reader.faults for reader in readers):
            if step >= CHANGES and sum(reader.answers for reader in readers) >= ANSWERS:
                break
            step += 1
            publisher.change(step)
            time.sleep(0.5 if step % 3 else LATE_SECONDS + 1)
        stop.set()
        for reader in readers:
            reader.join(timeout=60)
    assert [fault for reader in readers for fault in reader.faults] == []
    assert sum(reader.answers for reader in readers) >= ANSWERS
    assert step >= CHANGES
    assert len(set.union(*(reader.versions for reader in readers))) >= CHANGES // 3, "too few versions were seen"
