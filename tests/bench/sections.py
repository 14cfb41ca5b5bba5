"""What is measured: each section starts the servers it needs, and adds rows and notes to the report."""

import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import obstore
from obstore.store import S3Store

from tests.bench.claims import BARE_GET
from tests.bench.data import BUCKET, SERIES, Data, bucket_of
from tests.bench.floor import Floor
from tests.bench.lineup import OURS, Ours, Peer, Place, TitilerCore, TitilerXarray
from tests.bench.pictures import compare
from tests.bench.rounds import Entry, Request, Row, Taken, Turns, asked, get, interleaved, timed, warm
from tests.bench.servers import S3, Client, Failed, Proxy, Server, serving_asgi
from tests.bench.stacks import SEED, Stack

FLOOR = "floor"
TILES = 8
"""Hot tiles asked in turn at each zoom."""
COLD_TILES = 16
"""Cold tiles at each zoom, each of another month where there are so many."""
HELD_MS = 20.0
"""Added to each request of the object store in the sections that say so."""

CROWDED = (2, 4, 6, 8)
"""Zooms that eight clients ask for at once, too."""

AFRICA: list[tuple[float, float]] = [
    (-17, 15),
    (-10, 34),
    (10, 37),
    (33, 31),
    (51, 12),
    (40, -16),
    (28, -33),
    (18, -34),
    (9, 4),
    (-8, 4),
    (-17, 15),
]
"""A continental polygon, longitude and latitude."""

OF_THE_WAY = {"date", "connection"}
"""Headers that a server adds to every answer."""

BARE = 150
"""Bare GETs beside cold tiles."""

FIRST = 5
"""Bare GETs that are not counted."""

SERIES_AT_ONCE = 10
"""Places of a turn: few, as a slow moment of a shared machine is to hit all."""

SERIES_ROUNDS = 10
"""Turns of each for one round of other sections."""

ZONAL_MONTHS = 36
"""Those that the peer's copy of the maps has."""

NAMES = ("series", "cold", "again", "length", "zonal", "batch", "hot")


@dataclass(kw_only=True)
class Bench:
    """One run: what there is to measure with, and what was found."""

    data: Data
    folder: Path
    client: Client
    ours: Ours
    peers: list[Peer]
    stacks: tuple[Stack, ...]
    note: Callable[[str], None]
    deadline: float
    """Time of ``time.monotonic()`` at which nothing new is begun."""
    seconds: float = 0.35
    """Of one server's turn."""
    rounds: int = 3
    zooms: Sequence[int] = range(9)
    s3: S3 | None = None
    regions: tuple[Stack, ...] = ()
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def everyone(self) -> list[Peer]:
        """Ours and the peers."""
        return [self.ours, *self.peers]

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.deadline

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows, and say them while they come."""
        self.rows += rows
        for row in rows:
            shown = [f"{row.section} {row.case}", row.peer]
            shown += [] if row.cpu_ms is None else [f"{row.cpu_ms:.2f} ms CPU"]
            shown += [] if row.p50 is None else [f"p50 {row.p50:.2f} ms"]
            self.note("  ".join(shown))

    def left_out(self, what: str) -> None:
        """Something was not begun."""
        self.notes.append(f"{what}: left out, the time was over (--minutes)")

    def tiles(self, floor: Floor, zoom: int, count: int) -> list[tuple[int, int]]:
        """Tiles of a zoom that hold something, spread over the stack; the same ones in every run."""
        west, south, east, north = floor.stack.bounds
        dice = random.Random(f"{SEED} {floor.stack.id} {zoom}")  # noqa: S311  no secret
        found: dict[tuple[int, int], None] = {}
        for attempt in range(400):
            longitude, latitude = dice.uniform(west, east), dice.uniform(max(south, -60), min(north, 70))
            x = int((longitude + 180) / 360 * 2**zoom)
            y = int((1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2 * 2**zoom)
            # half of a tile must be drawn, unless there is no such tile (a world tile of a regional stack)
            if (x, y) not in found and ((floor.gather(zoom, x, y) > 0).mean() > 0.5 or attempt > 200):
                found[x, y] = None
            if len(found) == min(count, 4**zoom):
                break
        return list(found)


@contextlib.contextmanager
def started(bench: Bench, peers: Sequence[Peer], place: Place) -> Iterator[dict[str, Server]]:
    """Run peers together; one that does not start is told of and left out."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for peer in peers:
            try:
                servers[peer.name] = stack.enter_context(peer.start(place, folder))
            except Failed as reason:
                bench.notes.append(str(reason))
        yield servers


def check(bench: Bench) -> None:
    """Every peer draws our map, or is told of and measured no further."""
    place = Place(data=bench.data)
    wrong: set[str] = set()
    with started(bench, bench.everyone, place) as servers:
        bench.peers = [peer for peer in bench.peers if peer.name in servers]
        for stack in bench.stacks:
            floor = Floor(bench.data.dataset(stack), stack, 1)
            worst: dict[str, list[float]] = {}
            for zoom in bench.zooms:
                (x, y), *_ = bench.tiles(floor, zoom, 1)
                pictures: dict[str, bytes] = {FLOOR: floor.draw(zoom, x, y)}
                for peer in bench.everyone:
                    server = servers[peer.name]
                    entry = Entry(peer=peer.name, server=server, requests=[get(peer.tile(place, stack, 1, zoom, x, y))])
                    try:
                        result = asked(bench.client, entry, limit=1, keep=True)
                    except Failed as reason:
                        bench.notes.append(str(reason))
                        wrong.add(peer.name)
                    else:
                        pictures[peer.name] = result.bodies[0].encode("latin-1")
                for name, picture in pictures.items():
                    if name == OURS or OURS not in pictures:
                        continue
                    agreement = compare(pictures[OURS], picture)
                    worst.setdefault(name, []).append(min(agreement.values, agreement.mask))
                    if not agreement.good:
                        bench.notes.append(
                            f"{name} draws another {stack.id} than ours at z{zoom}/{x}/{y}: {agreement.values:.0%} of "
                            f"the pixels have our colour, {agreement.mask:.0%} are drawn in both or neither"
                        )
                        wrong |= {name} if zoom > 1 else set()
            for name, shares in worst.items():
                bench.note(f"check {stack.id}: {name} agrees with ours in at least {min(shares):.1%} of the pixels")
                bench.add(
                    [
                        Row(
                            section="check",
                            case=stack.id,
                            peer=name,
                            facts={"least_agreement": round(min(shares), 4), "median": statistics.median(shares)},
                        )
                    ]
                )
        memory = {name: round(server.memory()) for name, server in servers.items()}
        bench.notes.append("resident MiB after the check: " + ", ".join(f"{n} {m}" for n, m in memory.items()))
    for name in sorted(wrong & {peer.name for peer in bench.peers}):
        bench.notes.append(f"{name} answered wrongly somewhere (above): read its numbers with care")


def hot(bench: Bench) -> None:
    """Tiles whose data was read before, drawn anew, one client, at every zoom; and eight clients at some."""
    place = Place(data=bench.data)
    floors = [Floor(bench.data.dataset(stack), stack, 1) for stack in bench.stacks]
    with started(bench, bench.everyone, place) as servers:
        # if the time ends early, odd zooms are the ones to miss
        for zoom in sorted(bench.zooms, key=lambda zoom: (zoom not in CROWDED, zoom)):
            for floor in floors:
                if bench.late:
                    bench.left_out(f"hot {floor.stack.id} z{zoom}")
                    continue
                _hot_zoom(bench, floor, zoom, place, servers)


def _hot_zoom(bench: Bench, floor: Floor, zoom: int, place: Place, servers: dict[str, Server]) -> None:
    chosen = bench.tiles(floor, zoom, TILES)
    entries = [
        Entry(
            peer=peer.name,
            server=servers[peer.name],
            requests=[get(peer.tile(place, floor.stack, 1, zoom, x, y)) for x, y in chosen],
        )
        for peer in bench.everyone
        if peer.name in servers
    ]
    entries = warm(bench.client, entries, bench.notes)
    turns = Turns(seconds=bench.seconds, rounds=bench.rounds, deadline=bench.deadline)
    case = f"{floor.stack.id} z{zoom}"
    rows = interleaved(bench.client, entries, turns, section="hot", case=case)
    bench.add([*rows, drawn(floor, zoom, chosen, bench.seconds * bench.rounds / 3)])
    if zoom in CROWDED and not bench.late:
        # of eight, the slowest peers answer each but a few times a second
        turns = replace(turns, clients=8, seconds=bench.seconds * 2.5)
        bench.add(interleaved(bench.client, entries, turns, section="crowd", case=case))


def drawn(floor: Floor, zoom: int, tiles: Sequence[tuple[int, int]], seconds: float) -> Row:
    """The floor of a zoom, in this process: CPU of gather, table and PNG."""
    for x, y in tiles:
        floor.draw(zoom, x, y)
    times: list[float] = []
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        for x, y in tiles:
            before = time.thread_time()
            floor.draw(zoom, x, y)
            times.append((time.thread_time() - before) * 1000)
    # each tile alike, however often it came
    mean = sum(statistics.median(times[number :: len(tiles)]) for number in range(len(tiles))) / len(tiles)
    return Row(section="hot", case=f"{floor.stack.id} z{zoom}", peer=FLOOR, cpu_ms=mean, answers=len(times), facts={})


def again(bench: Bench) -> None:
    """The same tile once more (our cache on), against the same bytes from memory behind the same server."""
    stack = bench.stacks[0]
    place = Place(data=bench.data)
    floor = Floor(bench.data.dataset(stack), stack, 1)
    folder = bench.folder / "tiles"
    folder.mkdir(exist_ok=True)
    keeping = Ours(bench.ours.version, {})
    with started(bench, [keeping], place) as servers:
        x, y = bench.tiles(floor, 4, 1)[0]
        requests = [get(keeping.tile(place, stack, 1, 4, x, y))]
        entry = Entry(peer=OURS, server=servers[OURS], requests=requests)
        with urllib.request.urlopen(f"http://127.0.0.1:{servers[OURS].address}{requests[0][1]}") as answer:
            picture = answer.read()
            headers = [
                (name.lower(), value)
                for name, value in answer.headers.items()
                if name.lower() not in {"date", "connection"}
            ]
        (folder / "tile.png").write_bytes(picture)
        (folder / "tile.json").write_text(json.dumps(headers))
        with serving_floor(bench, folder) as memory:
            entries = [
                entry,
                Entry(peer="bytes from memory", server=memory, requests=[get("/tile")]),
                Entry(peer="empty answer", server=memory, requests=[get("/empty")]),
            ]
            for clients in (1, 8):
                bench.add(
                    interleaved(
                        bench.client,
                        entries,
                        Turns(seconds=bench.seconds * 2, rounds=bench.rounds, clients=clients),
                        section="again",
                        case=f"{stack.id} z4, {len(picture)} bytes",
                    )
                )


def length(bench: Bench) -> None:
    """A hot tile of the shortest and of the longest series: how long an archive is must not be felt."""
    if len(bench.regions) < 2:
        return
    place = Place(data=bench.data)
    with started(bench, [bench.ours], place) as servers:
        entries = []
        for stack in (bench.regions[0], bench.regions[-1]):
            requests = [get(bench.ours.tile(place, stack, month, 6, 34, 20)) for month in range(8)]
            entries.append(Entry(peer=f"{stack.months} months", server=servers[OURS], requests=requests))
        entries = warm(bench.client, entries, bench.notes)
        turns = Turns(seconds=bench.seconds, rounds=bench.rounds + 2)
        bench.add(interleaved(bench.client, entries, turns, section="length", case="region z6"))


@contextlib.contextmanager
def serving_floor(bench: Bench, folder: Path) -> Iterator[Server]:
    """The plain ASGI app, with our own Python, uvicorn, uvloop and httptools."""
    with serving_asgi(
        "memory",
        sys.executable,
        "floor_app:app",
        bench.folder,
        app_folder=Path(__file__).parent,
        environment={"BENCH_TILES": str(folder)},
        path="/empty",
    ) as server:
        yield server


def cold(bench: Bench) -> None:
    """Tiles nothing of whose data was read before, from MinIO with 20 ms added to each request, counted."""
    assert bench.s3 is not None
    stack = bench.stacks[0]
    floor = Floor(bench.data.dataset(stack), stack, 1)
    peers = [peer for peer in bench.everyone if isinstance(peer, Ours | TitilerCore | TitilerXarray)]
    with contextlib.closing(Proxy(bench.s3.port)) as proxy:
        place = Place(data=bench.data, s3=bench.s3.through(proxy.port))
        with started(bench, peers, place) as servers:
            # the version, its objects.json and the peer's first imports are not what is measured
            first = [
                Entry(
                    peer=peer.name,
                    server=servers[peer.name],
                    requests=[get(peer.tile(place, stack, COLD_TILES, 5, 16, 12))],
                )
                for peer in peers
                if peer.name in servers
            ]
            able = {entry.peer for entry in warm(bench.client, first, bench.notes)}
            proxy.hold(HELD_MS)
            bare = BareGets.of(bench, place, stack, BARE)
            case = f"{stack.id} z{max(bench.zooms)}"
            bench.add(interleaved(bench.client, [bare], Turns(seconds=60.0, rounds=1), section="cold", case=case))
            for zoom in sorted(bench.zooms, reverse=True):
                if bench.late:
                    bench.left_out(f"cold z{zoom}")
                    continue
                chosen = bench.tiles(floor, zoom, COLD_TILES)
                for peer in [peer for peer in peers if peer.name in able]:
                    requests = [
                        get(peer.tile(place, stack, month, zoom, *chosen[month % len(chosen)]))
                        for month in range(COLD_TILES)
                    ]
                    entry = Entry(peer=peer.name, server=servers[peer.name], requests=requests)
                    bench.add([counted(bench, proxy, entry, f"{stack.id} z{zoom}")])
            proxy.hold(0)


def counted(bench: Bench, proxy: Proxy, entry: Entry, case: str, section: str = "cold") -> Row:
    """Ask for everything once, one by one, and count what the server asks the store."""
    gets: list[int] = []
    latencies: list[float] = []
    before_cpu = entry.server.cpu()
    for request in entry.requests:
        before = proxy.requests
        single = Entry(peer=entry.peer, server=entry.server, requests=[request])
        latencies += asked(bench.client, single, limit=1).latencies
        gets.append(proxy.requests - before)
    found = Row(
        section=section,
        case=case,
        peer=entry.peer,
        cpu_ms=(entry.server.cpu() - before_cpu) * 1000 / len(gets),
        answers=len(gets),
        facts={"gets_median": statistics.median(gets), "gets_most": max(gets)},
    )
    return timed(found, latencies)


def places(stack: Stack, count: int, name: str) -> list[tuple[float, float]]:
    """Random places of a stack."""
    west, south, east, north = stack.bounds
    dice = random.Random(f"{SEED} {name}")  # noqa: S311  no secret
    return [(dice.uniform(west, east), dice.uniform(south, north)) for _ in range(count)]


def series(bench: Bench) -> None:
    """A place's series from MinIO: ours, the COGs one by one, titiler.xarray with all months in a chunk, a bare GET."""
    assert bench.s3 is not None
    place = Place(data=bench.data, s3=bench.s3)
    peers = [peer for peer in bench.everyone if isinstance(peer, Ours | TitilerCore | TitilerXarray)]
    folder = bench.folder / "tiles"
    folder.mkdir(exist_ok=True)
    with started(bench, peers, place) as servers, serving_floor(bench, folder) as memory:
        for stack in (bench.stacks[0], *bench.regions):
            if bench.late:
                bench.left_out(f"series {stack.id}")
                continue
            case = f"{stack.id}, {stack.months} months"
            _read_ahead(bench, place, stack)
            # each is asked for once, so that each is read from the store
            rounds = SERIES_ROUNDS * bench.rounds
            where = places(stack, SERIES_AT_ONCE * rounds + 1, stack.id)
            entries = [
                Entry(peer=peer.name, server=servers[peer.name], requests=_series_requests(peer, place, stack, where))
                for peer in peers
                if peer.name in servers and not isinstance(peer, TitilerCore)
            ]
            entries.append(Entry(peer="empty answer", server=memory, requests=[get("/empty")] * len(where)))
            entries = [entry for entry in entries if warm(bench.client, [replace_some(entry)], bench.notes)]
            rows = interleaved(
                bench.client,
                [*entries, BareGets.of(bench, place, stack, len(where))],
                Turns(seconds=60.0, rounds=rounds, limit=SERIES_AT_ONCE, is_fresh=True),
                section="series",
                case=case,
            )
            bench.add(rows)
            core = next((peer for peer in peers if isinstance(peer, TitilerCore)), None)
            if core is not None and core.name in servers:
                bench.add([_over_cogs(bench, core, servers[core.name], place, stack, where[:3])])
            _agree(bench, servers, peers, place, stack, where[0])


def _read_ahead(bench: Bench, place: Place, stack: Stack) -> None:
    """Have the system read all of a stack's series, and MinIO answer for each object once.

    Its first answer for an object takes three or four times as long as the next, and a global stack has so many that
    whoever has the first turn would wait for most of them.
    """
    assert place.s3 is not None
    stored, bucket = bench.data.minio / BUCKET, bucket_of(place.s3)
    for folder in (stored / bench.data.store.name / stack.id, stored / bench.data.zarrs.name / f"{stack.id}{SERIES}"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "series.zarr" in str(path):
                with path.open("rb", buffering=0) as file:
                    while file.read(2**24):
                        pass
        for listed in obstore.list(bucket, str(folder.relative_to(stored))):
            for one in listed:
                if ("series.zarr" in one["path"] or one["path"].endswith(".tif")) and one["size"]:
                    obstore.get_range(bucket, one["path"], start=0, length=1)


def replace_some(entry: Entry) -> Entry:
    """An entry with its last request only: it opens what is opened once, and reads another place's chunk."""
    return replace(entry, requests=entry.requests[-1:])


def _series_requests(peer: Peer, place: Place, stack: Stack, where: Sequence[tuple[float, float]]) -> list[Request]:
    if isinstance(peer, Ours):
        return [get(peer.position(stack, *spot)) for spot in where]
    assert isinstance(peer, TitilerXarray)
    return [get(peer.point(place, stack, *spot)) for spot in where]


def _over_cogs(
    bench: Bench, peer: TitilerCore, server: Server, place: Place, stack: Stack, where: Sequence[tuple[float, float]]
) -> Row:
    """A series as a client of the COG application gets it: one request a month over one connection."""
    totals: list[float] = []
    before = server.cpu()
    for spot in where:
        requests = [get(peer.point(place, stack, month, *spot)) for month in range(stack.months)]
        entry = Entry(peer=peer.name, server=server, requests=requests)
        totals.append(sum(asked(bench.client, entry, limit=len(requests)).latencies))
    found = Row(
        section="series",
        case=f"{stack.id}, {stack.months} months",
        peer="titiler.core, COG by COG",
        cpu_ms=(server.cpu() - before) * 1000 / len(totals),
        answers=len(totals),
    )
    return timed(found, totals)


@dataclass(frozen=True, kw_only=True)
class BareGets:
    """One GET by obstore of as many bytes as the series of a place lies in, from where its first chunk lies."""

    bucket: S3Store
    ranges: Sequence[tuple[str, int, int]]
    """Key, start and length."""
    peer: str = BARE_GET

    @classmethod
    def of(cls, bench: Bench, place: Place, stack: Stack, count: int) -> "BareGets":
        """Of so many places of a stack, from where peers read; what is opened once is open."""
        assert place.s3 is not None
        dataset = bench.data.dataset(stack)
        (quantity,) = dataset.product.quantities
        runs = list(dataset.runs(quantity, range(stack.months), "series"))
        _, height, width = runs[0].array.layout.chunk
        ranges = []
        for spot in places(stack, count + FIRST, "bare"):
            row, column = dataset.product.grid.locate(*spot)
            extents = [run.array.extent((run.block, row // height, column // width)) for run in runs]
            key, start, _ = extents[0]
            length = sum(size for _, _, size in extents)
            start = max(0, min(start, (bench.data.store / key).stat().st_size - length))
            ranges.append((str((bench.data.store / key).relative_to(bench.data.folder)), start, length))
        found = cls(bucket=bucket_of(place.s3), ranges=ranges[:count])
        for one in ranges[count:]:
            found.get(one)
        return found

    def get(self, one: tuple[str, int, int]) -> int:
        """Bytes that came."""
        key, start, length = one
        return len(obstore.get_range(self.bucket, key, start=start, length=length))

    def turn(self, client: Client, turns: Turns, number: int) -> Taken:  # noqa: ARG002 - asks the store by itself
        """As a server's turn."""
        first = number * turns.limit if turns.is_fresh else 0
        latencies, received = [], 0
        begun = time.perf_counter()
        for one in self.ranges[first : first + turns.limit]:
            before = time.perf_counter()
            received += self.get(one)
            latencies.append((time.perf_counter() - before) * 1000)
        return Taken(latencies=latencies, wall=time.perf_counter() - begun, received=received, cpu=None)


def _agree(
    bench: Bench,
    servers: dict[str, Server],
    peers: Sequence[Peer],
    place: Place,
    stack: Stack,
    spot: tuple[float, float],
) -> None:
    """Ours and titiler.xarray answer the same numbers."""
    found: dict[str, list[float]] = {}
    for peer in peers:
        if peer.name not in servers or isinstance(peer, TitilerCore):
            continue
        entry = Entry(peer=peer.name, server=servers[peer.name], requests=_series_requests(peer, place, stack, [spot]))
        document = json.loads(asked(bench.client, entry, limit=1, keep=True).bodies[0])
        found[peer.name] = (
            document["values"] if isinstance(peer, TitilerXarray) else document["ranges"][stack.variable]["values"]
        )
    if len(found) == 2:
        one, other = (np.array(values, dtype=np.float64) for values in found.values())
        if one.shape != other.shape or not np.allclose(one, other, atol=stack.scale / 10):
            bench.notes.append(f"series of {stack.id} at {spot}: ours and titiler.xarray answer different numbers")


def zonal(bench: Bench) -> None:
    """Means over a continental polygon, from the directory; the peer answers plain pixel means of the months it has."""
    stack = bench.stacks[0]
    place = Place(data=bench.data)
    months = min(ZONAL_MONTHS, stack.months)
    case = f"{stack.id}, Africa, {months} months"
    peers = [bench.ours, *(peer for peer in bench.peers if isinstance(peer, TitilerXarray))]
    with started(bench, peers, place) as servers:
        if OURS in servers:
            entry = Entry(peer=OURS, server=servers[OURS], requests=[get(bench.ours.mean(stack, AFRICA, months))])
            if warm(bench.client, [entry], bench.notes):
                bench.add(
                    interleaved(
                        bench.client,
                        [entry],
                        Turns(seconds=2.0, rounds=bench.rounds, limit=5),
                        section="zonal",
                        case=case,
                    )
                )
        for peer in peers:
            if not isinstance(peer, TitilerXarray) or peer.name not in servers or bench.late:
                continue
            feature = {
                "type": "Feature",
                "properties": {},
                "geometry": {"type": "Polygon", "coordinates": [AFRICA]},
            }
            request = ("POST", peer.statistics(place, stack), json.dumps(feature))
            entry = Entry(peer=peer.name, server=servers[peer.name], requests=[request])
            try:
                bench.add(
                    interleaved(
                        bench.client, [entry], Turns(seconds=1.0, rounds=1, limit=1), section="zonal", case=case
                    )
                )
            except Failed as reason:
                bench.notes.append(str(reason))


def batch(bench: Bench) -> None:
    """10 000 places in one POST, spread evenly and in clusters, against one by one; from MinIO if there is one."""
    stack = bench.stacks[0]
    dice = random.Random(SEED)  # noqa: S311  no secret
    centres = places(replace(stack, north=60, height=round(120 / stack.step)), 20, "clusters")
    spread = places(stack, 10_000, "spread")
    clusters = [
        (longitude + dice.uniform(-1, 1), latitude + dice.uniform(-1, 1))
        for longitude, latitude in centres
        for _ in range(500)
    ]
    with ExitStack() as held:
        proxy = None if bench.s3 is None else held.enter_context(contextlib.closing(Proxy(bench.s3.port)))
        through = None if bench.s3 is None or proxy is None else bench.s3.through(proxy.port)
        counting, direct = Place(data=bench.data, s3=through), Place(data=bench.data, s3=bench.s3)
        for name, where in (("spread evenly", spread), ("20 clusters", clusters)):
            if bench.late:
                bench.left_out(f"batch {name}")
                continue
            case = f"{stack.id}, {len(where)} places {name}, {stack.months} months"
            body = json.dumps({"coords": [[round(longitude, 4), round(latitude, 4)] for longitude, latitude in where]})
            together: list[Request] = [("POST", f"/collections/{stack.id}/points?f=JSON", body)]
            singles = [get(bench.ours.position(stack, *spot)) for spot in where[:: len(where) // 100]]
            try:
                _batch(bench, direct, case, together, singles, len(where))
                if proxy is not None:
                    _fetched(bench, counting, proxy, case, together, singles[:1])
            except Failed as reason:
                bench.notes.append(str(reason))


def _batch(bench: Bench, place: Place, case: str, together: list[Request], singles: list[Request], count: int) -> None:
    """The time of a batch, and of some of its places one by one, each with a server of its own."""
    with started(bench, [bench.ours], place) as servers:
        if OURS not in servers:
            return
        single = Entry(peer=OURS, server=servers[OURS], requests=singles)
        # the version and its objects.json are not what is measured
        asked(bench.client, replace(single, requests=singles[:1]), limit=1)
        alone = asked(bench.client, single, limit=len(singles))
    with started(bench, [bench.ours], place) as servers:
        if OURS not in servers:
            return
        one = Entry(peer="one POST", server=servers[OURS], requests=together)
        asked(bench.client, replace(one, requests=singles[:1]), limit=1)
        turns = Turns(seconds=1.0, rounds=2, limit=1)
        bench.add(interleaved(bench.client, [one], turns, section="batch", case=case))
    each = statistics.mean(alone.latencies)
    bench.add(
        [
            Row(
                section="batch",
                case=case,
                peer="one by one (100 asked)",
                p50=each * count,
                answers=len(singles),
                facts={"ms_each": round(each, 3)},
            )
        ]
    )


def _fetched(
    bench: Bench, place: Place, proxy: Proxy, case: str, together: list[Request], first: list[Request]
) -> None:
    """What a batch asks the store for, by a server that has read nothing else."""
    with started(bench, [bench.ours], place) as servers:
        if OURS not in servers:
            return
        entry = Entry(peer="fetched", server=servers[OURS], requests=together)
        asked(bench.client, replace(entry, requests=first), limit=1)
        proxy.ranges()
        before = proxy.requests
        asked(bench.client, entry, limit=1)
        count, twice = proxy.ranges()
        facts = {"gets": proxy.requests - before, "mib": round(count / 2**20, 1), "bytes_twice": twice}
        bench.add([Row(section="batch", case=case, peer="fetched", answers=1, facts=facts)])


def run(bench: Bench, wanted: Sequence[str] = NAMES) -> None:
    """All sections, the most telling first; each is left out when the time is over."""
    check(bench)
    plan: list[tuple[str, Callable[[Bench], None], bool]] = [
        ("series", series, True),
        ("cold", cold, True),
        ("again", again, False),
        ("length", length, False),
        ("zonal", zonal, False),
        ("batch", batch, False),
        ("hot", hot, False),
    ]
    for name, section, needs_s3 in plan:
        if name not in wanted:
            continue
        if needs_s3 and bench.s3 is None:
            bench.notes.append(f"{name}: left out, there is no object store")
            continue
        if bench.late:
            bench.left_out(name)
            continue
        bench.note(f"== {name}")
        try:
            section(bench)
        except Failed as reason:
            bench.notes.append(f"{name} ended early: {reason}")
