"""The map routes, twice: below a collection (its current version) and below each of its versions."""

from fastapi import APIRouter
from titiler.core.factory import AlgorithmFactory, ColorMapFactory, TMSFactory

from tiler.factory import MapFactory
from tiler.options import ALGORITHMS
from tiler.request import COLLECTION, INSTANCE
from tiler.state import State


def router(state: State) -> APIRouter:  # noqa: ARG001 - every router of the app is made from the state
    """Titiler's routes for maps, tile matrix sets, colour maps and algorithms."""
    routes = APIRouter()
    for prefix, name in ((COLLECTION, "current"), (INSTANCE, "version")):
        factory = MapFactory(router_prefix=prefix, name=name)
        routes.include_router(factory.router, prefix=prefix, tags=[f"Maps ({name})"])
    routes.include_router(TMSFactory().router, tags=["Tile matrix sets"])
    routes.include_router(ColorMapFactory().router, tags=["Colour maps"])
    routes.include_router(AlgorithmFactory(supported_algorithm=ALGORITHMS).router, tags=["Algorithms"])
    return routes
