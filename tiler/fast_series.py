"""The series of one place, without the way through routing and dependencies.

A ``tiler.shortcut`` around ``position`` of ``tiler.edr``, made of the same parts; both give the same bodies and headers
(tests/tiler/queries/test_fast_series.py).
"""

import asyncio
import itertools
import logging
import math
import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, override
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from services.core import layout
from services.core.dataset import Run
from services.core.errors import CenoteError, QueryError
from services.core.quantity import Quantity
from services.core.segment import ChunkKey, Extent, StoredArray
from tiler.answer import IMMUTABLE, REVALIDATED, STALE, content_of, is_held, query_key, said_of, tag_of
from tiler.catalogue import Served
from tiler.cells import source_of
from tiler.coverage import Contents, Points, Source, Spot, points_csv
from tiler.edr import DataQuery, contents_of, file_name, spots_of
from tiler.envelope import Coming, Ready
from tiler.formats import EDR_FORMATS, Format, chosen_format, headers_of
from tiler.geometry import Place, check_place
from tiler.loading import LoadingCache
from tiler.request import COLLECTION, INSTANCE, pick_periods, pick_quantities
from tiler.series_body import SeriesBody
from tiler.shortcut import NotMine, Shortcut, WouldWait, header_of
from tiler.state import State

_LOG = logging.getLogger(__name__)

PREPARED_BYTES = 16 * 2**20
"""Memory for spans of periods of collections that are kept resolved."""

PERIOD_BYTES = 500
"""Of them, for a period: instants, bounds and their text, in JSON of two encodings too, and where its values lie."""

QUANTITY_BYTES = 3_000
"""And for a quantity: what bodies of two encodings say of it."""

MOST_VALUES = 4096
"""Values of an answer; longer ones are made by the routes, which is not felt then."""

MOST_AT_ONCE = 512
"""Of an answer that is made on the event loop: about a quarter of a millisecond."""

MOST_DECODED = 8 * 2**20
"""Bytes of the chunks that an answer is taken from; what needs more is read by the routes, some at a time."""

MOST_FETCHED = 3 * 2**17
"""Bytes of chunks that the event loop waits for and decodes itself: half a millisecond or so. All quantities of a place
of our products are less (tests/products/test_declarations.py)."""

MOST_GETS = 8
"""Of them, that one answer waits for; a grid with a chunk for each period has hundreds."""

LONGEST_HOST = 255
"""Characters of a host that is looked at (RFC 1035, 2.3.4)."""

PARSED = 512
"""Addresses that are kept parsed, but for the place."""

_PATH = re.compile(
    r"/collections/(?P<collection>[a-z0-9][a-z0-9_-]{0,127})(?:/instances/(?P<version>[0-9a-f]{1,64}))?/position"
)
_NUMBER = r"-?[0-9]{1,3}(?:\.[0-9]{1,20})?"
_COORDS = b"coords="
_POINT = re.compile(rf"POINT ?\( ?({_NUMBER}) ({_NUMBER}) ?\)", re.IGNORECASE)


type Items = tuple[tuple[str, str], ...]
"""Parameters of a query, in its order."""


class Asked(NamedTuple):
    """A series that is asked for."""

    collection: str
    version: str | None
    """None asks for the current one."""

    place: Place
    names: str | None
    interval: str | None
    f: str | None
    query: Items
    path: str
    """Without the version."""

    accept: str
    base: str
    """Address of the service, as seen from outside."""


type Header = tuple[bytes, bytes]


class _Form(NamedTuple):
    """An encoding of what is prepared."""

    kind: Format
    headers: Sequence[Header]
    body: SeriesBody | None
    """None: it is no JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """What all places of a span of periods have in common."""

    contents: Contents
    positions: range
    quantities: tuple[Quantity, ...]
    runs: tuple[tuple[Run, ...], ...]
    """Of each quantity."""

    digest: str
    headers: Sequence[Header]
    forms: dict[Format, _Form] = field(default_factory=dict)
    """Those that were asked for."""


type Wanted = tuple[StoredArray, tuple[int, int, int]]
"""A chunk: of which array, and which one."""


class _Begun(NamedTuple):
    """An answer that lacks its values."""

    asked: Asked
    served: Served
    prepared: _Prepared
    form: _Form
    row: int
    column: int
    wanted: Sequence[Wanted]
    """Of each run of each quantity the chunk that holds the cell."""

    keys: Sequence[ChunkKey]
    """In a cache, of each."""


class _Around(NamedTuple):
    """All of an answer but its values."""

    headers: list[Header]
    spot: Spot
    body: dict[str, bytes]
    """What surrounds them, where it is JSON."""


class FastSeries(Shortcut[Asked]):
    """The layer.

    Args:
        app: what answers everything else.
        state: what the routes share.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        super().__init__(app)
        self._settings = state.settings
        self._catalogue = state.catalogue
        self._chunks = state.chunks
        self._prepared: LoadingCache[tuple[str, str, str | None, str | None], _Prepared] = LoadingCache(
            PREPARED_BYTES,
            lambda found: 10_000 + QUANTITY_BYTES * len(found.quantities) + PERIOD_BYTES * len(found.positions),
        )
        state.catalogue.closed.append(self._prepared.clear)

    @override
    def asked(self, scope: Scope) -> Asked | None:
        path, root = scope["path"], scope.get("root_path", "")
        if not path.endswith("/position"):
            return None
        parsed = parsed_of(path[len(root) :] if root and path.startswith(root) else path, scope["query_string"])
        if parsed is None:
            return None
        shown = path if parsed.version is None else path.replace(f"/instances/{parsed.version}", "", 1)
        host, accept = header_of(scope, b"host"), header_of(scope, b"accept").decode("latin-1")
        if len(host) > LONGEST_HOST:
            return None  # addresses are kept by it
        base = _base_of(scope["scheme"], host, tuple(scope.get("server") or ()), scope.get("app_root_path", root))
        return parsed._replace(path=shown, accept=accept, base=base)

    @override
    def answer(self, asked: Asked, held: str, *, may_wait: bool) -> Ready:
        if not may_wait:
            raise WouldWait  # ``coming`` sees to that
        begun = self._begin(asked, held, may_wait=True)
        return begun if isinstance(begun, Ready) else self._end(begun, _chunks_of(begun.wanted), _around(begun))

    @override
    def coming(self, asked: Asked, held: str) -> Ready | Coming | None:
        begun = self._begin(asked, held, may_wait=False)
        if isinstance(begun, Ready):
            return begun
        missing: dict[ChunkKey, tuple[StoredArray, Extent]] = {}
        there: dict[ChunkKey, NDArray[Any]] = {}
        decoded = 0
        for key, (array, at) in zip(begun.keys, begun.wanted, strict=True):
            chunk = self._chunks.use(key)
            if chunk is not None:
                there[key] = chunk
                continue
            extent = array.known_extent(at) if array.store.fetches else None
            decoded += math.prod(array.layout.chunk) * array.dtype.itemsize
            if extent is None or decoded > MOST_FETCHED or len(missing) == MOST_GETS:
                return None
            missing[key] = array, extent
        if not missing:
            return self._end(begun, [there[key] for key in begun.keys], _around(begun))

        async def fetched() -> Ready | None:
            meanwhile: list[_Around] = []
            # runs as soon as this waits for the store
            handle = asyncio.get_running_loop().call_soon(lambda: meanwhile.append(_around(begun)))
            try:
                found = await self._fetched(missing)
                if found is None:
                    return None
                around = meanwhile[0] if meanwhile else _around(begun)
                return self._end(begun, [(there | found)[key] for key in begun.keys], around)
            except Exception:  # noqa: BLE001 - the routes answer, so nobody would notice but by its slowness
                _LOG.exception("%s was left to threads", asked.path)
                return None
            finally:
                handle.cancel()

        return fetched

    async def _fetched(
        self, missing: Mapping[ChunkKey, tuple[StoredArray, Extent]]
    ) -> dict[ChunkKey, NDArray[Any]] | None:
        """Chunks that are missing, by the event loop; None where threads are to see to it."""
        claimed = self._chunks.claim(list(missing))
        if claimed is None:
            return None  # another request loads one of them, or has done so
        try:
            reads = [array.fetch(extent) for array, extent in missing.values()]
            chunks = [await reads[0]] if len(reads) == 1 else await asyncio.gather(*map(_at_once, reads))
        except BaseException as fault:
            self._chunks.abandon(claimed)
            if isinstance(fault, CenoteError):
                return None  # a thread tries again with patience, and tells what is wrong
            raise
        return self._chunks.fulfil(claimed, lambda _: chunks)

    def _begin(self, asked: Asked, held: str, *, may_wait: bool) -> Ready | _Begun:
        """All that can be told before values are read; the answer, where the client holds it."""
        served = self._served(asked, may_wait=may_wait)
        kind = chosen_format(asked.f, asked.accept, EDR_FORMATS)
        if kind is Format.NETCDF:
            raise NotMine  # it is made by a library that takes its time
        prepared = self._prepare(asked, served, may_wait=may_wait)
        form = prepared.forms.get(kind) or self._form(served, prepared, kind, may_wait=may_wait)
        row, column = served.dataset.product.grid.locate(*asked.place)
        wanted: list[Wanted] = []
        for runs in prepared.runs:
            for run in runs:
                _, height, width = run.array.layout.chunk
                wanted.append((run.array, (run.block, row // height, column // width)))
        begun = _Begun(
            asked=asked,
            served=served,
            prepared=prepared,
            form=form,
            row=row,
            column=column,
            wanted=wanted,
            keys=[(array.prefix, *at) for array, at in wanted],
        )
        if held:
            tag, headers = _headers(begun)
            if is_held(tag, held):
                return Ready(304, headers, b"", _route(asked), is_text=True)
        return begun

    def _form(self, served: Served, prepared: _Prepared, kind: Format, *, may_wait: bool) -> _Form:
        """An encoding of what is prepared.

        Raises:
            RequestTooLarge: if its answers would pass a cap.
        """
        if not may_wait:
            raise WouldWait
        query = DataQuery(
            served=served,
            quantities=prepared.quantities,
            positions=prepared.positions,
            kind=kind,
            settings=self._settings,
            query={},
        )
        query.check_values(1, "places", self._settings.max_values)
        query.check_bytes(query.bytes_each)
        named = headers_of(kind, file_name(query, "position"))
        found = _Form(
            kind=kind,
            headers=[(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()],
            body=None if kind is Format.CSV else SeriesBody(prepared.contents, is_features=kind is Format.GEOJSON),
        )
        prepared.forms[kind] = found
        return found

    def _end(self, begun: _Begun, chunks: Sequence[NDArray[Any]], around: _Around) -> Ready:
        """The answer from the chunks that were wanted."""
        prepared, form = begun.prepared, begun.form
        values: list[NDArray[Any]] = []
        left = iter(chunks)
        for quantity, runs in zip(prepared.quantities, prepared.runs, strict=True):
            parts = [(run, _cell_of(run, chunk, begun)) for run, chunk in zip(runs, left, strict=False)]
            if len(parts) == 1 and parts[0][0].is_whole:
                values.append(parts[0][1])
                continue
            out = np.empty(len(prepared.positions), dtype=np.dtype(quantity.dtype))
            for run, part in parts:
                out[run.asked] = part
            values.append(out)
        if form.body is not None:
            body = form.body.filled(around.body, values)
        else:
            rows = {one.name: stored[np.newaxis] for one, stored in zip(prepared.quantities, values, strict=True)}
            source = Source(contents=prepared.contents, query=dict(begun.asked.query))
            body = b"".join(points_csv(Points(source=source, spots=(around.spot,), values=rows, several=False)))
        around.headers.append((b"content-length", b"%d" % len(body)))
        return Ready(200, around.headers, body, _route(begun.asked), is_text=True)

    def _served(self, asked: Asked, *, may_wait: bool) -> Served:
        if may_wait:
            return self._catalogue.dataset(asked.collection, asked.version)
        served = self._catalogue.at_once(asked.collection, asked.version)
        if served is None:
            raise WouldWait
        return served

    def _prepare(self, asked: Asked, served: Served, *, may_wait: bool) -> _Prepared:
        key = (asked.collection, served.version, asked.names, asked.interval)
        known = self._prepared.use(key)
        if known is not None:
            if not may_wait and len(known.positions) * len(known.quantities) > MOST_AT_ONCE:
                raise WouldWait
            return known
        if not may_wait:
            raise WouldWait
        quantities, positions = pick_quantities(served, asked.names), pick_periods(served, asked.interval)
        if len(quantities) * len(positions) > MOST_VALUES:
            raise NotMine
        dataset = served.dataset
        anywhere = np.zeros(1, dtype=np.intp)
        source = source_of(dataset.product, len(positions), anywhere, anywhere)
        said = said_of(replace(served, is_stale=False), "series", positions)
        runs = tuple(tuple(dataset.runs(quantity, positions, source)) for quantity in quantities)
        decoded = [math.prod(run.array.layout.chunk) * run.array.dtype.itemsize for each in runs for run in each]
        if sum(decoded) > MOST_DECODED:
            raise NotMine
        found = _Prepared(
            contents=contents_of(served, quantities, positions),
            positions=positions,
            quantities=quantities,
            runs=runs,
            digest=content_of(served, "series", quantities, positions, ()),
            headers=tuple((name.lower().encode(), value.encode("latin-1")) for name, value in said.items()),
        )
        if self._catalogue.holds(served):
            self._prepared.put(key, found)
        return found


def _at_once[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has begun: what is to be asked of a store is asked before anything else is done."""
    return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)


def _route(asked: Asked) -> str:
    return (COLLECTION if asked.version is None else INSTANCE) + "/position"


def _headers(begun: _Begun) -> tuple[str, Sequence[tuple[bytes, bytes]]]:
    """The tag of an answer, and its headers but for those that its body decides."""
    asked, served = begun.asked, begun.served
    tag = tag_of(
        begun.prepared.digest,
        asked.path,
        query_key(asked.query),
        layout.canonical([served.version, asked.base, asked.accept]),
    )
    headers = [
        *begun.prepared.headers,
        (b"etag", tag.encode()),
        (b"cache-control", (REVALIDATED if asked.version is None else IMMUTABLE).encode()),
    ]
    if served.is_stale:
        headers.append((STALE.lower().encode(), b"1"))
    return tag, headers


def _chunks_of(wanted: Sequence[Wanted]) -> list[NDArray[Any]]:
    """Chunks, those of an array in one call, which reads their shards side by side."""
    found: list[NDArray[Any]] = []
    for _, members in itertools.groupby(wanted, key=lambda one: one[0].prefix):
        own = list(members)
        found += own[0][0].chunks([at for _, at in own])
    return found


def _cell_of(run: Run, chunk: NDArray[Any], begun: _Begun) -> NDArray[Any]:
    """The periods of a run in the cell that is asked for."""
    _, height, width = chunk.shape
    return run.of(chunk)[:, begun.row % height, begun.column % width]


def _around(begun: _Begun) -> _Around:
    """All of an answer but its values."""
    asked, form = begun.asked, begun.form
    ((spot,), _) = spots_of(begun.served.dataset.product.grid, [asked.place])
    return _Around(
        headers=[*_headers(begun)[1], *form.headers],
        spot=spot,
        body={} if form.body is None else form.body.around(spot, dict(asked.query)),
    )


@lru_cache(maxsize=PARSED)
def _base_of(scheme: str, host: bytes, server: tuple[Any, ...], root: str) -> str:
    """The address of the service, as Starlette tells it to the routes."""
    headers = [(b"host", host)] if host else []
    scope = {"type": "http", "scheme": scheme, "headers": headers, "server": server or None, "root_path": root}
    return str(Request(scope).base_url)


def parsed_of(path: str, text: bytes) -> Asked | None:
    """The series that an address asks for; None if it asks for something else, or in a way that the routes must judge.

    All but the place is looked up: a map asks for one place after the other.

    Args:
        path: without what it begins with behind a proxy.
        text: the query.
    """
    first = 0 if text.startswith(_COORDS) else text.find(b"&" + _COORDS) + 1
    if first == 0 and not text.startswith(_COORDS):
        return None
    end = text.find(b"&", first)
    known = _but_the_place(path, text[:first], text[end:] if end >= 0 else b"")
    if known is None:
        return None
    ((_, coords),) = _items(text[first : end if end >= 0 else None].decode("latin-1"))
    point = _POINT.fullmatch(coords)
    if point is None:
        return None
    try:
        place = check_place(float(point[1]), float(point[2]))
    except QueryError:  # the routes tell what is wrong with it
        return None
    asked, before, after = known
    return asked._replace(place=place, query=(*before, ("coords", coords), *after))


@lru_cache(maxsize=PARSED)
def _but_the_place(path: str, before: bytes, after: bytes) -> tuple[Asked, Items, Items] | None:
    """What an address asks for at any place, and the parameters before and behind the place."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    parts = _items(before.decode("latin-1")), _items(after.decode("latin-1"))
    items = parts[0] + parts[1]
    given = dict(items)
    if len(given) != len(items) or not all(given.values()):
        return None
    interval, names, f = (given.pop(name, None) for name in ("datetime", "parameter-name", "f"))
    if given:
        return None
    asked = Asked(
        collection=match["collection"],
        version=match["version"],
        place=(0.0, 0.0),
        names=names,
        interval=interval,
        f=f,
        query=(),
        path="",
        accept="",
        base="",
    )
    return asked, *parts


def _items(text: str) -> Items:
    """The parameters of a query, as the routes read them; ``parse_qsl`` takes three times as long."""
    named = (part.replace("+", " ").replace("%20", " ").partition("=") for part in text.split("&") if part)
    return tuple((unquote(name), unquote(value)) for name, _, value in named)
