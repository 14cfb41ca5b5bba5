"""The items of a version - a span of time each - and which of them a filter lets through, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass

import shapely
from fastapi import Request
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from services.core import stac
from services.core.errors import NotFound, QueryError, TimeOutsideAxis
from tiler import downloads
from tiler.catalogue import Served
from tiler.documents import GEOJSON, address_of, ends, link
from tiler.geometry import TURN, Box

MOST_ITEMS = 1000
"""Items on one page, however many are asked for."""

ITEMS_ON_PAGE = 10


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which items are wanted."""

    ids: frozenset[str] | None = None
    box: Box | None = None
    geometry: BaseGeometry | None = None
    datetime: str | None = None
    limit: int = ITEMS_ON_PAGE
    token: str | None = None
    """``collection:item`` of the last item on the page before."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some items, newest first within each collection."""

    items: list[stac.Document]
    matched: int
    next: str | None
    """Token of the next page."""


def find(request: Request, served: Sequence[Served], wanted: Filter) -> Page:
    """A page of the items that a filter lets through.

    Raises:
        QueryError: if datetime or token is malformed.
    """
    after = _position(served, wanted.token)
    limit = min(wanted.limit, MOST_ITEMS)
    found: list[stac.Document] = []
    matched = 0
    last: str | None = None
    for place, one in enumerate(served):
        source = items_of(one)
        numbers = _matching(one, source, wanted)
        matched += len(numbers)
        if after is not None and place < after[0]:
            continue
        for number in reversed(numbers):
            if after is not None and place == after[0] and number >= after[1]:
                continue
            if len(found) == limit:
                return Page(items=found, matched=matched + _rest(served, place, wanted), next=last)
            found.append(item_document(request, one, source, number))
            last = f"{one.id}:{source[number].id}"
    return Page(items=found, matched=matched, next=None)


def items_of(served: Served) -> stac.Items:
    """The items of a version, kept while it is open."""
    return served.dataset.items


def item_document(request: Request, served: Served, source: stac.Items, number: int) -> stac.Document:
    """An item with the addresses of this service."""
    address = address_of(request, served)
    span = source[number]
    links = [
        *ends(request, f"{address}/items/{span.id}", GEOJSON),
        link("parent", address),
        link("collection", address),
    ]
    if span.first == span.last:
        period = served.dataset.time.ids[span.first]
        tiles = f"{address}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.png?datetime={period}"
        links.append(link("xyz", tiles, "image/png", title=f"tiles of {period}"))
    return source.document(number, links=links, href=lambda key: downloads.asset_url(request, served, key))


def _matching(served: Served, source: stac.Items, wanted: Filter) -> Sequence[int]:
    """Numbers of the items of a collection that match, in the order of time."""
    grid = served.dataset.product.grid
    if wanted.box is not None and not _overlaps(wanted.box, stac.bbox(grid)):
        return ()
    if wanted.geometry is not None and not shapely.intersects(wanted.geometry, shape(stac.footprint(grid))):
        return ()
    numbers = range(len(source))
    if wanted.datetime is not None:
        try:
            numbers = source.touching(served.dataset.time.select(wanted.datetime))
        except TimeOutsideAxis:
            return ()
    if wanted.ids is None:
        return numbers
    chosen = []
    for name in wanted.ids:
        try:
            number = source.number(name)
        except NotFound:
            continue
        if number in numbers:
            chosen.append(number)
    return sorted(chosen)


def _rest(served: Sequence[Served], place: int, wanted: Filter) -> int:
    return sum(len(_matching(one, items_of(one), wanted)) for one in served[place + 1 :])


def _position(served: Sequence[Served], token: str | None) -> tuple[int, int] | None:
    """Place of the collection and number of the item that a token names."""
    if token is None:
        return None
    name, _, item_id = token.partition(":")
    for place, one in enumerate(served):
        if one.id == name:
            try:
                return place, items_of(one).number(item_id)
            except NotFound:
                break
    raise QueryError(f"token={token[:80]!r} is not one that a next link gave for this search")


def _overlaps(box: Box, other: Sequence[float]) -> bool:
    west, south, east, north = other
    if east < west:
        east += TURN
    if south > box[3] or north < box[1]:
        return False
    return any(west + turn <= box[2] and box[0] <= east + turn for turn in (-TURN, 0.0, TURN))
