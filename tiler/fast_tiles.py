"""The tiles that are asked for most, without the way through routing, dependencies and rio-tiler.

A ``tiler.shortcut`` around those of ``tiler.factory``. Both give the same picture and the same headers
(tests/tiler/test_fast_tiles.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, override
from urllib.parse import parse_qsl

import numpy as np
from starlette.types import ASGIApp, Scope

from services.core.errors import CenoteError
from tiler import encode
from tiler.answer import IMMUTABLE, REVALIDATED, STALE, content_of, is_held, query_key, said_of, tag_of
from tiler.catalogue import Served
from tiler.drawing import Drawn, drawn_by_default
from tiler.envelope import Ready
from tiler.loading import LoadingCache
from tiler.matrices import matrix_set, zoom_of
from tiler.options import number_range
from tiler.palette import Painted, Painter, Palette, palette
from tiler.planes import Method, Plane, Planes, TilePlace
from tiler.request import COLLECTION, INSTANCE, Requested, parts_of, pick_map
from tiler.shortcut import Shortcut, WouldWait
from tiler.state import State

type Encoding = Literal["png", "webp"]
type RawHeaders = Sequence[tuple[bytes, bytes]]

CHOSEN = 256
"""Maps that were asked for and are kept resolved."""

PAINTERS_BYTES = 8 * 2**20
"""Memory for tables from stored values to colours, 64 KiB each."""

QUERIES = 512
"""Queries that are kept parsed: all tiles of a map have the same."""

ADDRESSES = 4096
"""Addresses that are kept parsed."""

ENTRY_BYTES = 700
"""Python's own memory for an encoded tile: key, tuple and headers."""

MOST_AT_ONCE = 512 * 512
"""Pixels that are drawn without a thread: about as long as handing them to one takes."""

_IMMUTABLE, _REVALIDATED = IMMUTABLE.encode(), REVALIDATED.encode()

_TILE = "/tiles/{tileMatrixSetId}/{z}/{x}/{y}"
_MAP_TILE = "/map/tiles/{tileMatrixSetId}/{tileMatrix}/{tileRow}/{tileCol}"

_PATH = re.compile(
    r"/collections/(?P<collection>[a-z0-9][a-z0-9_-]{0,127})(?:/instances/(?P<version>[0-9a-f]{1,64}))?"
    r"(?:/tiles/(?P<tms>[A-Za-z0-9_]{1,64})/(?P<z>[0-9]{1,3})/(?P<x>[0-9]{1,9})/(?P<y>[0-9]{1,9})"
    r"(?:\.(?P<suffix>png|webp))?"
    r"|/map/tiles/(?P<map_tms>[A-Za-z0-9_]{1,64})/(?P<matrix>[A-Za-z0-9_:-]{1,32})"
    r"/(?P<row>[0-9]{1,9})/(?P<col>[0-9]{1,9}))"
)

_SIZES = {"256": 256, "512": 512}
_METHODS: dict[str, Method] = {"nearest": "nearest", "bilinear": "bilinear", "average": "average"}
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_ENCODINGS: dict[str, Encoding] = {"png": "png", "webp": "webp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What the parameters of a tile's address ask for."""

    key: bytes
    """For the tag."""

    variable: str | None = None
    period: str | None = None
    minus: str | None = None
    ranged: tuple[float, float] | None = None
    colormap_name: str | None = None
    method: Method = "nearest"
    size: int | None = None
    is_masked: bool = True
    encoding: Encoding | None = None
    f: Encoding | None = None
    """The encoding as OGC API names it."""


class Asked(NamedTuple):
    """A tile that is asked for."""

    collection: str
    version: str | None
    """None asks for the current one."""

    place: TilePlace
    query: Query
    encoding: Encoding
    path: str
    """For the tag: without the version."""

    route: str
    """For the metrics."""

    address: tuple[str, bytes] | None
    """Path and query as they came; None where a proxy changed them."""


class _Given(NamedTuple):
    """What the answer to an address was."""

    collection: str
    version: str | None
    """That was current; None: the address names its version, and its answer never changes."""

    tag: str
    headers: RawHeaders
    route: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A map of a version, or the difference of two."""

    plane: Plane
    minus: Plane | None
    drawn: Drawn
    content: str
    """Digest of what its pictures are made of."""

    headers: RawHeaders
    """What its answers say of it."""


class Picture(NamedTuple):
    """An encoded tile."""

    body: bytes
    headers: RawHeaders


class TileCache(LoadingCache[str, Picture]):
    """Encoded tiles by their tags, which name every bit of them.

    Args:
        capacity: bytes; 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, lambda picture: len(picture.body) + ENTRY_BYTES)


class FastTiles(Shortcut[Asked]):
    """The layer.

    Args:
        app: what answers everything else.
        state: what the routes share.
        tiles: where encoded tiles are kept.
    """

    def __init__(self, app: ASGIApp, state: State, tiles: TileCache) -> None:
        super().__init__(app)
        self._catalogue = state.catalogue
        self._planes = Planes(state.settings, state.chunks)
        self._tiles = tiles
        self._chosen: LoadingCache[tuple[str, str, str | None, str | None, str | None], Chosen] = LoadingCache(CHOSEN)
        # they hold versions and segments, which were closed to make room
        state.catalogue.closed.append(self._chosen.clear)
        self._painters: LoadingCache[tuple[object, ...], Painter] = LoadingCache(
            PAINTERS_BYTES, lambda painter: painter.bytes
        )
        self._given: dict[tuple[str, bytes], _Given] = {}

    def again(self, scope: Scope) -> Ready | None:
        """What the address of a GET was answered before, if its version is still current and its tile in memory.

        The request must not name what it holds, nor have come by a proxy that adds a prefix.
        """
        given = self._given.get((scope["path"], scope["query_string"]))
        if given is None:
            return None
        try:
            if given.version is not None and self._catalogue.current(given.collection) != given.version:
                return None
        except CenoteError:  # whoever may wait meets it again, and tells it
            return None
        picture = self._tiles.use(given.tag)
        return None if picture is None else Ready(200, given.headers, picture.body, given.route)

    @override
    def asked(self, scope: Scope) -> Asked | None:
        return asked_of(scope["path"], scope["query_string"], scope.get("root_path", ""))

    @override
    def answer(self, asked: Asked, held: str, *, may_wait: bool) -> Ready:
        served = self._served(asked, may_wait)
        chosen = self._choose(asked, served, may_wait)
        tag = _tag(chosen.content, asked.path, asked.query.key)
        headers = [
            *chosen.headers,
            (b"etag", tag.encode()),
            (b"cache-control", _REVALIDATED if asked.version is None else _IMMUTABLE),
        ]
        if served.is_stale:
            headers.append((STALE.lower().encode(), b"1"))
        if held and is_held(tag, held):
            return Ready(304, headers, b"", asked.route)
        picture = self._tiles.use(tag)
        if picture is None:
            picture = self._picture(asked, chosen, may_wait)
            self._tiles.put(tag, picture)
        headers = [*picture.headers, *headers]
        if asked.address is not None and not served.is_stale:
            if len(self._given) >= ADDRESSES:
                self._given.clear()
            version = served.version if asked.version is None else None
            self._given[asked.address] = _Given(asked.collection, version, tag, headers, asked.route)
        return Ready(200, headers, picture.body, asked.route)

    def _served(self, asked: Asked, may_wait: bool) -> Served:  # noqa: FBT001
        if may_wait:
            return self._catalogue.dataset(asked.collection, asked.version)
        served = self._catalogue.at_once(asked.collection, asked.version)
        if served is None:
            raise WouldWait
        return served

    def _choose(self, asked: Asked, served: Served, may_wait: bool) -> Chosen:  # noqa: FBT001
        query = asked.query
        key = (asked.collection, served.version, query.variable, query.period, query.minus)
        known = self._chosen.use(key)
        if known is not None:
            return known
        if not may_wait:
            raise WouldWait
        found = pick_map(
            served,
            query.variable,
            query.period,
            query.minus,
            lambda version: self._catalogue.dataset(asked.collection, version),
        )
        chosen = _chosen(found)
        if self._catalogue.holds(served):
            self._chosen.put(key, chosen)
        return chosen

    def _picture(self, asked: Asked, chosen: Chosen, may_wait: bool) -> Picture:  # noqa: FBT001
        query, place, plane = asked.query, asked.place, chosen.plane
        if not may_wait and (query.method != "nearest" or asked.encoding != "png"):
            raise WouldWait
        located = self._planes.nearest(plane, place, may_wait=may_wait)
        target = located.target
        if not may_wait and target.width * target.height > MOST_AT_ONCE:
            raise WouldWait
        painter = self._painter(query, chosen)
        if query.method != "nearest" or chosen.minus is not None:
            values = self._planes.values(plane, place, query.method, may_wait=may_wait)
            if chosen.minus is not None:
                values = values - self._planes.values(chosen.minus, place, query.method, may_wait=may_wait)
            painted = painter.decoded(values)
        else:
            taken = self._planes.taken(plane, located, may_wait=may_wait)
            painted = painter.stored(taken) if painter.has_table else painter.decoded(plane.quantity.decode(taken))
            painted = painted.through(located.cells.spread)
        body = _encoded(painted, painter.palette, asked.encoding, is_masked=query.is_masked)
        length = str(len(body)).encode()
        kind = (b"content-type", b"image/" + asked.encoding.encode())
        return Picture(body=body, headers=(*located.headers, (b"content-length", length), kind))

    def _painter(self, query: Query, chosen: Chosen) -> Painter:
        drawn, quantity = chosen.drawn, chosen.plane.quantity
        ranged = query.ranged or (drawn.minimum, drawn.maximum)
        name = query.colormap_name or drawn.colormap_name
        stored = (
            (quantity.dtype, quantity.scale_factor, quantity.add_offset, quantity.fill_value)
            if chosen.minus is None
            else None
        )
        key = (stored, ranged, name, query.is_masked)
        known = self._painters.use(key)
        if known is not None:
            return known
        painter = Painter(None if stored is None else quantity, ranged, palette(name), is_masked=query.is_masked)
        self._painters.put(key, painter)
        return painter


def _chosen(found: Requested) -> Chosen:
    drawn = drawn_by_default(found.served.dataset.version, found.quantity)
    said = said_of(found.served, "maps", found.positions)
    said.pop(STALE, None)  # of the request, not of the version
    return Chosen(
        plane=Plane(found),
        minus=None if found.minus is None else Plane(found.minus),
        drawn=drawn if found.minus is None else drawn.difference,
        content=content_of(found.served, "maps", [found.quantity], found.positions, parts_of(found)),
        headers=tuple((name.lower().encode(), value.encode("latin-1")) for name, value in said.items()),
    )


def _encoded(painted: Painted, colours: Palette, encoding: Encoding, *, is_masked: bool) -> bytes:
    if encoding == "png" and painted.missing is None:
        if painted.transparent is not None:
            table = colours.transparent(painted.transparent)
        else:
            table = colours.opaque if is_masked else colours.solid
        return encode.palette_png(painted.numbers, *table)
    pixels = painted.pixels(colours)
    if not is_masked:
        pixels = np.ascontiguousarray(pixels[..., :3])
    return encode.rgba_png(pixels) if encoding == "png" else encode.webp(pixels)


@lru_cache(maxsize=ADDRESSES)
def _tag(content: str, path: str, query: bytes) -> str:
    return tag_of(content, path, query)


@lru_cache(maxsize=ADDRESSES)
def asked_of(path: str, text: bytes, root: str) -> Asked | None:
    """The tile that an address asks for; None if it asks for something else, or in a way that the routes must judge.

    Args:
        path: of the request.
        text: its query.
        root: what the path begins with behind a proxy.
    """
    match = _PATH.fullmatch(path[len(root) :] if root and path.startswith(root) else path)
    if match is None:
        return None
    query = query_of(text)
    if query is None:
        return None
    collection, version, tms, z, x, y, suffix, map_tms, matrix, row, column = match.groups()
    if map_tms is not None:
        try:
            z = zoom_of(matrix_set(map_tms), matrix)
        except Exception:  # noqa: BLE001 - there is none, which the routes tell
            return None
        place = TilePlace(map_tms, z, int(column), int(row), query.size)
        encoding, route = query.encoding or query.f, _MAP_TILE
    else:
        if query.f is not None or (suffix is not None and query.encoding is not None):
            return None
        place = TilePlace(tms, int(z), int(x), int(y), query.size)
        encoding = query.encoding if suffix is None else _ENCODINGS[suffix]
        route = _TILE if suffix is None else _TILE + ".{format}"
    return Asked(
        collection=collection,
        version=version,
        place=place,
        query=query,
        encoding=encoding or "png",
        path=path if version is None else path.replace(f"/instances/{version}", "", 1),
        route=(COLLECTION if version is None else INSTANCE) + route,
        address=None if root else (path, text),
    )


@lru_cache(maxsize=QUERIES)
def query_of(text: bytes) -> Query | None:
    """The parameters of a query; None if one is unknown, given twice, or not of the plainest form."""
    items = parse_qsl(text.decode("latin-1"), keep_blank_values=True)
    given = dict(items)
    if len(given) != len(items) or not all(given.values()):
        return None
    try:
        query = Query(
            key=query_key(items),
            variable=given.pop("variable", None),
            period=given.pop("datetime", None),
            minus=given.pop("minus", None),
            ranged=number_range("rescale", given.pop("rescale")) if "rescale" in given else None,
            colormap_name=given.pop("colormap_name", None),
            method=_METHODS[given.pop("resampling", "nearest")],
            size=_SIZES[given.pop("tilesize")] if "tilesize" in given else None,
            is_masked=_SWITCHES[given.pop("return_mask", "true")],
            encoding=_ENCODINGS[given.pop("format")] if "format" in given else None,
            f="png" if given.get("f") == "png" else None,
        )
    except Exception:  # noqa: BLE001 - the routes tell what is wrong
        return None
    if query.f is not None:
        del given["f"]
    return None if given else query
