"""Stock xpublish-tiles on GeoZarr levels; ``BENCH_ZARRS`` is a JSON object of ids and paths."""

import json
import os

import xarray
import xpublish
from xpublish_tiles.multiscale import assign_leaf_xpublish_ids
from xpublish_tiles.xpublish.tiles import TilesPlugin


def opened(name: str, path: str) -> xarray.DataTree:
    """The levels of a pyramid; each needs an id of its own, or its grid is made again for every tile."""
    tree = xarray.open_datatree(path, engine="zarr", zarr_format=3, chunks=None, decode_coords="all")
    tree.attrs["_xpublish_id"] = name
    assign_leaf_xpublish_ids(tree)
    return tree


datasets = {name: opened(name, path) for name, path in json.loads(os.environ["BENCH_ZARRS"]).items()}
app = xpublish.Rest(datasets, plugins={"tiles": TilesPlugin()}).app
