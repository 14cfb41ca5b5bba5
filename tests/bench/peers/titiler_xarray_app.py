"""Stock titiler.xarray on Zarr: its factory and its reader, which keeps datasets open."""

from functools import partial
from typing import Any

import attr
from fastapi import FastAPI
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.xarray.factory import TilerFactory
from titiler.xarray.io import Reader, open_zarr


@attr.s
class RegionGiven(Reader):  # type: ignore[misc]
    """Without the question for a bucket's region, which goes to the public cloud whatever the endpoint."""

    opener: Any = attr.ib(default=partial(open_zarr, infer_region=False))


app = FastAPI()
app.include_router(TilerFactory(reader=RegionGiven).router)
add_exception_handlers(app, DEFAULT_STATUS_CODES)
