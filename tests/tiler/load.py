"""Random requests of every kind against a running server, and what its process takes in memory meanwhile.

``make soak-memory`` runs it as a program; tests/tiler/test_memory.py runs a short part of it.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import numpy as np

from services.core.catalog import current_version, version_ids
from services.core.dataset import Dataset
from services.core.grid import Grid
from services.core.quantity import Quantity
from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from services.core.time_axis import TimeAxis
from tests.tiler.conftest import XCO2, XCO2_STD, Arrays, a_product, publish_arrays, xco2_values

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "infra" / "reports"

SERVE = """\
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyarrow", "rioxarray"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
from services.cli import main
main()
"""
"""The command as it is installed to serve: pandas and rio-tiler import these two where they find them, which is where
tests run and models are trained, and take 73 MiB more with them."""

SMALL_CACHES = {"CENOTE_CACHE_MB": "24", "CENOTE_TILE_CACHE_MB": "8"}
"""Far less than the data, so that most of what is read pushes something out."""

GROWTH_PERCENT = 5.0
"""After warm-up: what the mix of requests makes of itself."""

MATRICES = (
    *("WebMercatorQuad",) * 6,
    *("WorldCRS84Quad", "WGS1984Quad", "WorldMercatorWGS84Quad", "UPSArcticWGS84Quad", "UPSAntarcticWGS84Quad"),
    *("EuropeanETRS89_LAEAQuad", "CanadianNAD83_LCC", "NoSuchQuad"),
)
CODES = ("EPSG:3857", "EPSG:4326", "EPSG:3035", "EPSG:32633", "EPSG:3031", "EPSG:3413", "EPSG:54", "nonsense")
COLORMAPS = ("viridis", "plasma", "rdbu_r", "gray", "terrain", "magma", "nope")
FORMATS = ("png", "webp", "npy", "tif", "jpg", "jpeg", "pngraw", "jp2")
SERIES_FORMATS = ("CoverageJSON", "GeoJSON", "CSV", "NetCDF", "XML")
RESAMPLINGS = ("nearest", "bilinear", "cubic", "average", "lanczos", "mode", "what")
ALGORITHMS = ("hillshade", "contours", "normalizedIndex", "slope", "cast", "none")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A collection to be asked for."""

    id: str
    west: float
    south: float
    east: float
    north: float
    periods: tuple[str, ...]
    variables: tuple[str, ...]
    versions: tuple[str, ...]
    files: tuple[str, ...]
    """Paths of COG files in the segments of its last version."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    reads: int | None = None
    """Bytes of the answer after which the client hangs up; None reads it all."""


def publish_all(store: Store) -> None:
    """One product of each shape: global months, hours of a small grid, days of a region, across the seam, fine cells.

    The global one has several versions.
    """
    float_noise = Quantity(name="noise", units="1", long_name="Noise", dtype="float32")
    flag = Quantity(name="kind", units="1", long_name="Kind", dtype="uint8", fill_value=255, role="flag")
    rng = np.random.default_rng(4)
    globe = Grid.of(west=-180, north=90, step_x="1/4", width=1440, height=720)
    product = a_product("globe", globe, XCO2, XCO2_STD, cog_period="step", synthetic=True)
    for count in (3, 4, 5):
        values = xco2_values(globe, count, shift=count)
        made = {"xco2": XCO2.pack(values), "xco2_std": (values / 400).astype("float32")}
        axis = TimeAxis.regular("2019-11", "P1M", count)
        publish_arrays(store, Arrays(product=product, axis=axis, values=made, origin=f"{count}"))
    hourly = Grid.of(west="75", north="42", step_x="1/4", width=24, height=10)
    product = a_product("hours", hourly, float_noise, step="PT1H", map_block=168, synthetic=True)
    axis = TimeAxis.regular("2000-01-01T00", "PT1H", 10_000)
    made = {"noise": rng.normal(size=(len(axis), *hourly.shape)).astype("float32")}
    publish_arrays(store, Arrays(product=product, axis=axis, values=made))
    region = Grid.of(west="72.25", north="55", step_x="1/10", width=640, height=400)
    product = a_product("days", region, float_noise, flag, step="P1D", synthetic=True)
    axis = TimeAxis.regular("2015-01-16", "P1D", 20)
    made = {
        "noise": rng.normal(size=(len(axis), *region.shape)).astype("float32"),
        "kind": rng.integers(0, 4, (len(axis), *region.shape)).astype("uint8"),
    }
    publish_arrays(store, Arrays(product=product, axis=axis, values=made))
    seam = Grid.of(west=150, north=20, step_x="1/2", width=120, height=80)
    product = a_product("seam", seam, float_noise, synthetic=True)
    made = {"noise": rng.normal(size=(30, *seam.shape)).astype("float32")}
    publish_arrays(store, Arrays(product=product, axis=TimeAxis.regular("2002-04", "P1M", 30), values=made))
    fine = Grid.of(west=60, north=40, step_x="1/120", width=2400, height=1800)
    product = a_product("fine", fine, float_noise, synthetic=True)
    made = {"noise": rng.normal(size=(2, *fine.shape)).astype("float32")}
    publish_arrays(store, Arrays(product=product, axis=TimeAxis.regular("2002-04", "P1M", 2), values=made))


class Requests:
    """An endless seeded stream of requests, some of them wrong.

    Args:
        targets: what there is.
        seed: of the random numbers.
        plain: share of them that a web map with a site's series would ask, which take a tenth of the others' time.
    """

    def __init__(self, targets: Sequence[Target], seed: int, plain: float = 0.0) -> None:
        self._targets = targets
        self._plain = plain
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._kinds = {
            self._tile: 220,
            self._point: 50,
            self._position: 25,
            self._area: 4,
            self._cube: 4,
            self._points: 4,
            self._statistics: 3,
            self._part: 5,
            self._file: 8,
            self._document: 20,
            self._wrong: 12,
        }

    def next(self) -> Asked:
        """The next one."""
        if self._random.random() < self._plain:
            return self._of_a_map(self._random.choice(self._targets))
        (made,) = self._random.choices(list(self._kinds), weights=list(self._kinds.values()))
        asked: Asked = made(self._random.choice(self._targets))
        return asked

    def _of_a_map(self, target: Target) -> Asked:
        lon, lat = self._place(target)
        if self._random.random() < 0.1:
            path = f"/collections/{target.id}/position?coords=POINT({lon:.4f}%20{lat:.4f})&f=CoverageJSON"
            return Asked(method="GET", path=path, kind="site")
        z = self._random.randint(0, 9)
        x, y = _tile_of(lon, lat, z)
        style = self._random.choice(("", "&colormap_name=viridis", "&rescale=390,420&colormap_name=magma"))
        path = f"/collections/{target.id}/tiles/WebMercatorQuad/{z}/{x}/{y}.png"
        return Asked(method="GET", path=f"{path}?datetime={self._random.choice(target.periods)}{style}", kind="map")

    def _base(self, target: Target) -> str:
        base = f"/collections/{target.id}"
        return f"{base}/instances/{self._random.choice(target.versions)}" if self._random.random() < 0.2 else base

    def _map_query(self, target: Target) -> list[str]:
        chance, choice = self._random.random, self._random.choice
        query = [f"datetime={choice(target.periods)}"] if chance() < 0.8 else []
        if chance() < 0.4:
            query.append(f"variable={choice(target.variables)}")
        if chance() < 0.15:
            minus = choice((choice(target.periods), f"version:{choice(target.versions)}", "never"))
            query.append(f"minus={minus}")
        if chance() < 0.3:
            low = self._random.uniform(-5, 400)
            query.append(f"rescale={low:.3f},{low + self._random.uniform(0.1, 30):.3f}")
        if chance() < 0.3:
            query.append(f"colormap_name={choice(COLORMAPS)}")
        if chance() < 0.3:
            query.append(f"resampling={choice(RESAMPLINGS)}")
        if chance() < 0.06:
            query.append(f"algorithm={choice(ALGORITHMS)}")
        return query

    def _tile(self, target: Target) -> Asked:
        chance, choice, between = self._random.random, self._random.choice, self._random.randint
        matrix, z = choice(MATRICES), between(0, 9)
        if matrix == "WebMercatorQuad" and chance() < 0.9:
            # where the data are
            x, y = _tile_of(*self._place(target), z)
        else:
            x, y = between(0, 2**z), between(0, 2**z)
        query = self._map_query(target)
        if chance() < 0.3:
            query.append(f"tilesize={choice((256, 512, 512, 4096))}")
        suffix = f".{choice(FORMATS)}" if chance() < 0.3 else ""
        headers = (("If-None-Match", f'"{between(0, 9)}"'),) if chance() < 0.1 else ()
        path = f"{self._base(target)}/tiles/{matrix}/{z}/{x}/{y}{suffix}?{'&'.join(query)}"
        return Asked(method="GET", path=path, headers=headers, kind="tile")

    def _place(self, target: Target) -> tuple[float, float]:
        lon = self._random.uniform(target.west, target.east)
        return (lon - 360 if lon > 180 else lon), self._random.uniform(target.south, target.north)

    def _point(self, target: Target) -> Asked:
        lon, lat = self._place(target)
        path = f"{self._base(target)}/point/{lon},{lat}?{'&'.join(self._map_query(target)[:1])}"
        return Asked(method="GET", path=path, kind="point")

    def _interval(self, target: Target) -> str:
        if self._random.random() < 0.1:
            return ""
        first = self._random.randrange(len(target.periods))
        last = min(first + self._random.randint(0, 3), len(target.periods) - 1)
        return f"&datetime={target.periods[first]}/{target.periods[last]}"

    def _format(self) -> str:
        return f"&f={self._random.choice(SERIES_FORMATS)}"

    def _position(self, target: Target) -> Asked:
        if self._random.random() < 0.7:
            lon, lat = self._place(target)
            coords = f"POINT({lon} {lat})"
        else:
            places = [self._place(target) for _ in range(self._random.choice((2, 5, 50, 101)))]
            coords = f"MULTIPOINT({','.join(f'({lon} {lat})' for lon, lat in places)})"
        path = f"{self._base(target)}/position?coords={quote(coords)}{self._interval(target)}{self._format()}"
        return Asked(method="GET", path=path, kind="position", reads=self._patience())

    def _patience(self) -> int | None:
        return self._random.randint(0, 100_000) if self._random.random() < 0.03 else None

    def _box(self, target: Target, widest: float) -> tuple[float, float, float, float]:
        lon, lat = self._place(target)
        size = self._random.uniform(0.01, widest)
        return lon, max(lat - size / 2, -90.0), lon + size, min(lat + size / 2, 90.0)

    def _ring(self, target: Target) -> list[list[float]]:
        lon, lat = self._place(target)
        size, corners = self._random.uniform(0.1, 15), self._random.choice((3, 5, 24, 300))
        turns = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        far = size * np.array([self._random.uniform(0.5, 1) for _ in turns])
        ring = [
            [float(lon + r * np.cos(t)), float(np.clip(lat + r * np.sin(t), -90, 90))]
            for t, r in zip(turns, far, strict=True)
        ]
        return [*ring, ring[0]]

    def _area(self, target: Target) -> Asked:
        mean = "&aggregate=mean" if self._random.random() < 0.6 else ""
        query = f"{self._interval(target)}{self._format()}{mean}"[1:]
        ring = self._ring(target)
        if self._random.random() < 0.5:
            body = json.dumps({"type": "Polygon", "coordinates": [ring]}).encode()
            return Asked(method="POST", path=f"{self._base(target)}/area?{query}", body=body, kind="area")
        coords = f"POLYGON(({','.join(f'{x:.4f} {y:.4f}' for x, y in ring)}))"
        path = f"{self._base(target)}/area?{query}&coords={quote(coords)}"
        return Asked(method="GET", path=path, kind="area", reads=self._patience())

    def _cube(self, target: Target) -> Asked:
        box = ",".join(str(edge) for edge in self._box(target, self._random.choice((1, 10, 60))))
        path = f"{self._base(target)}/cube?bbox={box}{self._interval(target)}{self._format()}"
        return Asked(method="GET", path=path, kind="cube", reads=self._patience())

    def _points(self, target: Target) -> Asked:
        count = self._random.choice((1, 20, 500, 5000))
        body = json.dumps({"coords": [list(self._place(target)) for _ in range(count)]}).encode()
        path = f"{self._base(target)}/points?{self._interval(target)}{self._format()}".replace("?&", "?")
        return Asked(method="POST", path=path, body=body, kind="points", reads=self._patience())

    def _statistics(self, target: Target) -> Asked:
        query = "&".join(self._map_query(target)[:1])
        if self._random.random() < 0.5:
            size = self._random.choice((256, 1024, 4000))
            return Asked(
                method="GET", path=f"{self._base(target)}/statistics?{query}&max_size={size}", kind="statistics"
            )
        body = json.dumps({"type": "Polygon", "coordinates": [self._ring(target)]}).encode()
        headers = (("Content-Type", "application/json"),)
        path = f"{self._base(target)}/statistics?{query}"
        return Asked(method="POST", path=path, body=body, headers=headers, kind="statistics")

    def _part(self, target: Target) -> Asked:
        box = ",".join(str(edge) for edge in self._box(target, self._random.choice((2, 20, 80))))
        query = self._map_query(target)
        if self._random.random() < 0.4:
            query.append(f"dst_crs={self._random.choice(CODES)}")
        if self._random.random() < 0.7:
            query.append(f"max_size={self._random.choice((64, 512, 2048))}")
        suffix = self._random.choice(FORMATS)
        if self._random.random() < 0.3:
            path = f"{self._base(target)}/preview.{suffix}?{'&'.join(query)}"
        else:
            path = f"{self._base(target)}/bbox/{box}.{suffix}?{'&'.join(query)}"
        return Asked(method="GET", path=path, kind="image", reads=self._patience())

    def _file(self, target: Target) -> Asked:
        if not target.files:
            return self._document(target)
        path = f"/collections/{target.id}/instances/{target.versions[-1]}/assets/{self._random.choice(target.files)}"
        headers: tuple[tuple[str, str], ...] = ()
        if self._random.random() < 0.6:
            first = self._random.randint(0, 200_000)
            headers = (("Range", f"bytes={first}-{first + self._random.randint(0, 100_000)}"),)
        return Asked(method="GET", path=path, headers=headers, kind="file", reads=self._patience())

    def _document(self, target: Target) -> Asked:
        base, lon = self._base(target), self._random.uniform(-170, 170)
        path = self._random.choice(
            (
                "/",
                "/collections",
                "/api",
                "/metrics",
                "/readyz",
                base,
                f"{base}/queryables",
                f"{base}/legend.png?width={self._random.randint(200, 900)}",
                f"{base}/WMTSCapabilities.xml",
                f"{base}/WebMercatorQuad/tilejson.json",
                f"{base}/tiles",
                f"{base}/info",
                f"{base}/items?limit={self._random.choice((1, 10, 1000))}",
                f"/collections/{target.id}/instances",
                f"/search?bbox={lon},-10,{lon + 5},10&limit={self._random.choice((1, 100, 5000))}",
            )
        )
        return Asked(method=self._random.choice(("GET", "GET", "HEAD")), path=path, kind="document")

    def _wrong(self, target: Target) -> Asked:
        junk = "".join(
            self._random.choices("abcdefghijklmnopqrstuvwxyz0123456789%/&=?", k=self._random.randint(1, 900))
        )
        junk = quote(junk)
        method, path = self._random.choice(
            (
                ("GET", f"/collections/{junk[:60]}/tiles/WebMercatorQuad/0/0/0"),
                ("GET", f"/collections/{target.id}/tiles/WebMercatorQuad/0/0/0?{junk}"),
                ("GET", f"/collections/{target.id}/tiles/WebMercatorQuad/0/0/0?variable={junk}"),
                ("GET", f"/collections/{target.id}/position?coords={junk}"),
                ("GET", f"/collections/{target.id}/instances/{self._random.getrandbits(80):020x}/info"),
                ("GET", f"/collections/{target.id}/cube?bbox=-180,-90,180,90&f=NetCDF"),
                ("DELETE", f"/collections/{target.id}"),
                ("POST", f"/collections/{target.id}/points"),
                ("GET", f"/{junk}"),
            )
        )
        body = junk.encode() * self._random.choice((1, 100, 3000)) if method == "POST" else None
        return Asked(method=method, path=path, body=body, kind="wrong")


def _tile_of(lon: float, lat: float, z: int) -> tuple[int, int]:
    """Column and row of the Web Mercator tile around a place."""
    y = math.asinh(math.tan(math.radians(min(max(lat, -84.0), 84.0))))
    return int((lon + 180) / 360 * 2**z) % 2**z, int((1 - y / math.pi) / 2 * 2**z)


class Client(threading.Thread):
    """Asks one request after the other over one connection.

    Args:
        address: host and port.
        requests: what it asks.
        until: told before each request how many were asked; ends where it says so.
    """

    def __init__(self, address: str, requests: Requests, until: "Until") -> None:
        super().__init__(daemon=True)
        self._address, self._requests, self._until = address, requests, until
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while self._until.goes_on():
            asked = self._requests.next()
            try:
                connection.request(asked.method, asked.path, body=asked.body, headers=dict(asked.headers))
                answer = connection.getresponse()
                answer.read(asked.reads)
                self.statuses[f"{asked.kind} {answer.status}"] += 1
                if answer.status >= 500 and answer.status != 503:
                    self.faults.append(f"{answer.status} {asked.method} {asked.path[:300]}")
                if not answer.isclosed():
                    connection.close()  # hung up in the middle
            except http.client.RemoteDisconnected:
                connection.close()
                self.statuses[f"{asked.kind} cut off"] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.faults.append(f"{error!r} {asked.method} {asked.path[:300]}")
                if len(self.faults) > 20:
                    return
        connection.close()


class Until:
    """Counts requests up to a number, for so many seconds at most."""

    def __init__(self, count: int, seconds: float) -> None:
        self.asked = 0
        self._count, self._ends = count, time.monotonic() + seconds
        self._lock = threading.Lock()

    def goes_on(self) -> bool:
        """Whether another one is to be asked, which it counts."""
        with self._lock:
            if self.asked >= self._count or time.monotonic() >= self._ends:
                return False
            self.asked += 1
            return True


@dataclass(kw_only=True)
class Found:
    """What happened."""

    samples: list[tuple[float, int, float]] = field(default_factory=list)
    """Seconds since the start, requests so far, resident MiB."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    highest: float = 0.0
    """Most resident MiB at any time, as the kernel counted it."""


def resident(pid: int) -> tuple[float, float]:
    """MiB of a process in memory now, and at most so far."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Vm")
    )
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def soak(  # noqa: PLR0913 - all named at the call
    address: str,
    pid: int,
    targets: Sequence[Target],
    *,
    count: int,
    seconds: float,
    clients: int = 4,
    seed: int = 1,
    plain: float = 0.0,
    every: float = 0.25,
    note: Callable[[str], None] = lambda _: None,
) -> Found:
    """Ask until either number is reached.

    Args:
        address: of the server, host and port.
        pid: its process.
        targets: what it offers.
        count: most requests.
        seconds: longest time.
        clients: how many ask at once.
        seed: of the random numbers.
        plain: share of requests as a web map asks them.
        every: seconds from one look at the process to the next.
        note: told a line for a person about every ten seconds.
    """
    found, until = Found(), Until(count, seconds)
    crowd = [Client(address, Requests(targets, seed + number, plain), until) for number in range(clients)]
    began, said = time.monotonic(), 0.0
    for client in crowd:
        client.start()
    while any(client.is_alive() for client in crowd):
        time.sleep(every)
        now, found.highest = resident(pid)
        seconds_in = time.monotonic() - began
        if seconds_in >= said:
            said += 10
            note(f"{seconds_in:6.0f} s {until.asked:8} requests {now:6.0f} MiB, at most {found.highest:.0f}")
        found.samples.append((seconds_in, until.asked, now))
    for client in crowd:
        found.statuses += client.statuses
        found.faults += client.faults
    return found


def targets_of(address: str, store: Store) -> list[Target]:
    """What a server has to offer."""
    targets = []
    listing = json.loads(_get(address, "/collections"))
    for name in sorted(one["id"] for one in listing["collections"]):
        _, version = current_version(store, name)
        dataset = Dataset(store, version)
        ids = version.time.ids
        west, south, east, north = version.product.grid.bounds
        targets.append(
            Target(
                id=name,
                west=west,
                south=south,
                east=east,
                north=north,
                periods=(*ids[:: max(1, len(ids) // 40)], ids[-1]),
                variables=tuple(quantity.name for quantity in version.product.quantities),
                versions=(*sorted(set(version_ids(store, name)) - {version.id}), version.id),
                files=tuple(
                    f"segments/{segment}/{path}"
                    for segment in version.segments
                    for path in dataset.segment(segment).objects
                    if path.endswith(".tif")
                ),
            )
        )
    return targets


def _get(address: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(address, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read()


@contextlib.contextmanager
def serving(url: str, environment: dict[str, str], log: Path, workers: int = 1) -> Iterator[tuple[str, int]]:
    """A server process of its own; yields its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "--store", url, "serve"]
    command += ["--port", str(port), "--workers", str(workers)]
    # malloc as the service sets it: a LocalCluster of a test leaves what its workers get in the test process
    told = ("MALLOC_", "GLIBC_TUNABLES")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    with log.open("wb") as messages:
        process = subprocess.Popen(command, stdout=messages, stderr=messages, env=outside | environment)
    address = f"127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                _get(address, "/healthz")
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.1)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def growth(samples: Sequence[tuple[float, int, float]]) -> tuple[float, float]:
    """Resident MiB that is left between large requests, when caches are full and at the end.

    From two fifths to seven tenths of the requests, and from there on.
    """
    last = samples[-1][1]
    early = [mib for _, count, mib in samples if 0.4 * last <= count < 0.7 * last]
    return between_large(early), between_large([mib for _, count, mib in samples if count >= 0.7 * last])


def between_large(resident_mib: Sequence[float]) -> float:
    """The lower fifth of samples of resident MiB: what large requests hold for a moment is chance."""
    return float(np.percentile(resident_mib, 20))


def report(found: Found, settings: Settings, *, seed: int, clients: int, plain: float) -> dict[str, Any]:
    """What ``infra/reports/memory.json`` holds."""
    early, late = growth(found.samples)
    step = max(1, len(found.samples) // 120)
    kinds: Counter[str] = Counter()
    for name, count in found.statuses.items():
        kinds[name.partition(" ")[0]] += count
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    return {
        "commit": subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(),
        "seed": seed,
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "bound_mib": settings.memory_mb,
        "cache_mib": settings.cache_mb,
        "tile_cache_mib": settings.tile_cache_mb,
        "clients": clients,
        "plain_share": plain,
        "requests": found.samples[-1][1],
        "minutes": round(found.samples[-1][0] / 60, 1),
        "highest_mib": round(found.highest, 1),
        "left_mib_after_warm_up": round(early, 1),
        "left_mib_at_end": round(late, 1),
        "growth_percent": round(100 * (late / early - 1), 2),
        "by_kind": dict(sorted(kinds.items())),
        "by_status": dict(sorted(_by_status(found).items())),
        "faults": found.faults[:20],
        "samples": [[round(seconds), count, round(mib, 1)] for seconds, count, mib in found.samples[::step]],
    }


def _by_status(found: Found) -> Counter[str]:
    statuses: Counter[str] = Counter()
    for name, count in found.statuses.items():
        statuses[name.partition(" ")[2]] += count
    return statuses


WIDTH, HEIGHT, EDGE = 720, 260, 48


def picture(content: dict[str, Any]) -> str:
    """Resident memory over requests, and the bound, as SVG."""
    samples, bound = content["samples"], content["bound_mib"]
    across, down = WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE

    def at(count: float, mib: float) -> str:
        return f"{EDGE + across * count / content['requests']:.1f},{EDGE + down * (1 - mib / bound):.1f}"

    line = " ".join(at(count, mib) for _, count, mib in samples)
    said = (
        f"{content['requests']:,} random requests in {content['minutes']} minutes, {content['clients']} clients: "
        f"at most {content['highest_mib']:.0f} of {bound} MiB, {content['growth_percent']:+.1f} % after "
        "warm-up"
    )
    marks = "".join(
        f'<text x="{EDGE - 6}" y="{EDGE + down * (1 - part / 4) + 4:.0f}" text-anchor="end">{bound * part // 4}</text>'
        f'<path d="M{at(0, bound * part / 4)} {at(content["requests"], bound * part / 4)}" stroke="#ddd"/>'
        for part in range(5)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{EDGE}" y="24" font-size="13">Resident memory of one server process, MiB</text>{marks}'
        f'<path d="M{at(0, bound)} {at(content["requests"], bound)}" stroke="#c33" stroke-width="2"/>'
        f'<polyline points="{line}" fill="none" stroke="#27a" stroke-width="1.5"/>'
        f'<text x="{EDGE}" y="{HEIGHT - 16}">{escape(said)}</text></svg>\n'
    )


def main() -> int:
    """``make soak-memory``: exit 1 where the bound was passed, memory grew, or an answer was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="most requests")
    parser.add_argument("--minutes", type=float, default=90.0, help="longest time")
    parser.add_argument(
        "--plain",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="of requests that are a web map's, so that a million of them end: of every kind are the others",
    )
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", help="a store that is published already; else one is made")
    given = parser.parse_args()

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is a program

    with tempfile.TemporaryDirectory(prefix="cenote-soak-") as folder:
        url = given.store or f"{folder}/store"
        store = Store.open(url, StoreSettings())
        if given.store is None:
            note("publishing")
            publish_all(store)
        with serving(url, {}, Path(folder) / "log") as (address, pid):
            found = soak(
                address,
                pid,
                targets_of(address, store),
                count=given.requests,
                seconds=60 * given.minutes,
                clients=given.clients,
                seed=given.seed,
                plain=given.plain,
                every=1.0,
                note=note,
            )
            log = (Path(folder) / "log").read_text(errors="replace")
    settings = Settings()
    content = report(found, settings, seed=given.seed, clients=given.clients, plain=given.plain)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "memory.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (REPORTS / "memory.svg").write_text(picture(content), encoding="utf-8")
    note(json.dumps({name: value for name, value in content.items() if name != "samples"}, indent=1))
    note("written: infra/reports/memory.json, infra/reports/memory.svg")
    if found.faults:
        note(log[-5000:])
    return int(bool(found.faults) or found.highest > settings.memory_mb or content["growth_percent"] > GROWTH_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
