"""From path and query to what all data routes need: the version that answers, the quantity, the periods."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from services.core.errors import QueryError
from services.core.quantity import Quantity
from tiler.answer import describe
from tiler.catalogue import Served
from tiler.drawing import drawn_by_default
from tiler.state import state_of

COLLECTION = "/collections/{collection_id}"
"""Routes of the current version."""

INSTANCE = COLLECTION + "/instances/{version}"
"""The same routes of a named version; what they answer never changes."""

PREFIXES = (COLLECTION, INSTANCE)

type CollectionId = Annotated[str, Path(description="Id of a collection; /collections lists them.")]
type Variable = Annotated[
    str | None, Query(description="Variable of the collection; its first one where none is named.")
]
type Datetime = Annotated[
    str | None,
    Query(
        alias="datetime",
        description="ISO 8601 instant in UTC, which picks the period that contains it, or `latest`.",
        openapi_examples={"month": {"value": "2020-01"}, "latest": {"value": "latest"}},
    ),
]
type Interval = Annotated[
    str | None,
    Query(
        alias="datetime",
        description="ISO 8601 instant or interval in UTC: `2020-01`, `2019/2020`, `../2020`, `2019/..`, `latest`; "
        "all periods where none is named.",
    ),
]
type Minus = Annotated[
    str | None,
    Query(
        description="What to subtract: a period (`2019-01`), the same period of another version (`version:ID`), "
        "or both (`version:ID@2019-01`)."
    ),
]


def served(request: Request, collection_id: CollectionId) -> Served:
    """The version that a path names: the current one, or that of ``/instances/{version}``."""
    return state_of(request).catalogue.dataset(collection_id, request.path_params.get("version"))


type FromPath = Annotated[Served, Depends(served)]


@dataclass(frozen=True, kw_only=True)
class Requested:
    """One quantity in some periods of one version."""

    served: Served
    quantity: Quantity
    positions: range
    """Places of the periods in the version's time axis, at least one."""

    minus: "Requested | None" = None
    """What is to be subtracted; one period of the same quantity."""

    @property
    def position(self) -> int:
        """Place of the only period."""
        return self.positions[0]

    @property
    def period(self) -> str:
        """Id of the only period."""
        return self.served.dataset.time.ids[self.position]


def pick_quantities(served: Served, names: str | None) -> tuple[Quantity, ...]:
    """The quantities of a comma-separated list such as EDR's ``parameter-name``; all of them where there is none.

    Raises:
        QuantityNotFound: if the collection lacks one; the message names those it has.
    """
    product = served.dataset.product
    if names is None:
        return product.quantities
    return tuple(product.quantity(name) for name in dict.fromkeys(part.strip() for part in names.split(",")))


def pick_periods(served: Served, expression: str | None) -> range:
    """Places of the periods that a ``datetime=`` names; all of them where there is none.

    Raises:
        QueryError: if it is malformed.
        TimeOutsideAxis: if there is none; the message names the nearest.
    """
    return served.dataset.time.select(expression)


def pick_map(
    served: Served, variable: str | None, expression: str | None, minus: str | None, other: Callable[[str], Served]
) -> Requested:
    """One period of one quantity, and what to subtract from it.

    Args:
        served: the version that answers.
        variable: a ``variable=``.
        expression: a ``datetime=``; the latest period where there is none.
        minus: a ``minus=``.
        other: opens another version of the collection by its id.

    Raises:
        QueryError: if something is malformed, or more than one period is named.
        NotFound: if quantity, period or version does not exist.
    """
    quantity = served.dataset.product.quantity(variable)
    chosen = Requested(served=served, quantity=quantity, positions=_one(served, "datetime", expression or "latest"))
    if minus is None:
        return chosen
    base, expression = served, minus
    if minus.startswith("version:"):
        version, _, period = minus.removeprefix("version:").partition("@")
        base, expression = other(version), period or chosen.period
    subtracted = base.dataset.product.quantity(quantity.name)
    if subtracted.units != quantity.units:
        raise QueryError(
            f"{quantity.name} is in {quantity.units} and in {subtracted.units} in version {base.version}: "
            "the two cannot be subtracted"
        )
    return replace(chosen, minus=Requested(served=base, quantity=subtracted, positions=_one(base, "minus", expression)))


def requested_map(
    request: Request,
    collection_id: CollectionId,
    variable: Variable = None,
    datetime: Datetime = None,
    minus: Minus = None,
) -> Requested:
    """The map that a request names; the headers of its answer are set, and a client that holds it gets a 304."""
    found = map_of(request, served(request, collection_id), variable, datetime, minus)
    describe_map(request, found)
    return found


type FromMapQuery = Annotated[Requested, Depends(requested_map)]


def map_of(
    request: Request, served: Served, variable: str | None, datetime: str | None, minus: str | None
) -> Requested:
    """The map that a request names."""
    catalogue = state_of(request).catalogue
    return pick_map(served, variable, datetime, minus, lambda version: catalogue.dataset(served.id, version))


def describe_map(request: Request, found: Requested, *, names_version: bool = False) -> None:
    """Set the headers of an answer made of one map, or of the difference of two.

    Raises:
        NotModified: if the client holds it.
    """
    describe(
        request,
        found.served,
        source="maps",
        quantities=[found.quantity],
        positions=found.positions,
        names_version=names_version,
        parts=parts_of(found),
    )


def parts_of(found: Requested) -> list[str]:
    """What a picture of a map depends on beside its own values: how it is drawn, and what is subtracted."""
    parts = [drawn_by_default(found.served.dataset.version, found.quantity).key]
    if found.minus is not None:
        base = found.minus
        digest = base.served.dataset.version.segments[base.served.dataset.map_segment(base.position)]
        parts.append(f"{digest} {base.period} {base.quantity} {base.served.dataset.product.grid}")
    return parts


def _one(served: Served, parameter: str, expression: str) -> range:
    """The only period of an expression."""
    positions = served.dataset.time.select(expression)
    if len(positions) != 1:
        ids = served.dataset.time.ids
        raise QueryError(
            f"a map shows one period and {parameter}={expression} names {len(positions)}: "
            f"choose one, such as {ids[positions[-1]]}"
        )
    return positions
