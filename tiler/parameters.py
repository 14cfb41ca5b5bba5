"""A query parameter that no route knows is a mistake and is told so: a typo would silently give another answer."""

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from services.core.errors import QueryError

OPEN = {"x-any-parameters": True}
"""``openapi_extra`` of a route to which clients of a standard add parameters of their own."""


async def refuse_unknown(request: Request) -> None:
    """Refuse query parameters that the route does not have (OGC API Common, /req/core/query-param-unknown).

    Raises:
        QueryError: naming them and those that it has.
    """
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = _known(request.app.state.__dict__.setdefault("parameters", {}), route)
    if known is None:
        return
    unknown = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    if unknown:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise QueryError(f"this address has no parameter {', '.join(repr(name) for name in unknown)}; {has}")


def _known(cache: dict[int, frozenset[str] | None], route: APIRoute) -> frozenset[str] | None:
    """Query parameters of a route and its dependencies; None where any may be given."""
    if id(route) not in cache:  # routes live as long as the app, and cannot be hashed
        cache[id(route)] = (
            None
            if (route.openapi_extra or {}).items() >= OPEN.items()
            else frozenset(
                field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, params.Query)
            )
        )
    return cache[id(route)]
