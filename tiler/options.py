"""Query parameters of the map routes: titiler's names, with bounds that are checked before anything is read."""

import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from fastapi import Depends, Query
from pydantic import BeforeValidator, Field, ValidationError
from rasterio.crs import CRS
from rio_tiler.colormap import cmap
from rio_tiler.constants import WGS84_CRS
from rio_tiler.types import ColorMapType
from titiler.core.algorithm import Algorithms
from titiler.core.algorithm import algorithms as every_algorithm
from titiler.core.algorithm.base import BaseAlgorithm
from titiler.core.dependencies import DefaultDependency
from titiler.core.resources.enums import ImageType

from services.core.errors import QueryError

ALGORITHMS = Algorithms(
    {name: every_algorithm.get(name) for name in ("hillshade", "slope", "contours", "terrarium", "terrainrgb")}
)
"""Those of titiler's that make sense of one band of physical values; the others need several, or cast to bytes."""

type AlgorithmName = Literal["hillshade", "slope", "contours", "terrarium", "terrainrgb"]

_METADATA = frozenset({*BaseAlgorithm.model_fields, "title", "description"})
"""Fields of an algorithm that describe it and cannot be chosen."""

OVERVIEW_SIZE = 1024
"""Longest side of a preview that names no size."""

LEAST_NUMBERS = 2**16
"""64-bit floating point numbers between the ends of a range, so that its colours, ticks and bins differ."""

MOST_BANDS = 3
"""Bands that an algorithm may bring out, each with a range of its own."""

_CRS = re.compile(
    r"(?:http://www\.opengis\.net/def/crs/(?P<uri>EPSG|OGC)/[0-9.]+/|urn:ogc:def:crs:(?P<urn>EPSG|OGC):[0-9.]*:"
    r"|(?P<name>EPSG|OGC):)(?P<code>[A-Za-z0-9]{1,16})",
    re.IGNORECASE,
)

type ResamplingName = Literal[
    "nearest",
    "bilinear",
    "cubic",
    "cubic_spline",
    "lanczos",
    "average",
    "mode",
    "max",
    "min",
    "med",
    "q1",
    "q3",
    "sum",
    "rms",
]
type TileSize = Annotated[
    Literal[256, 512], BeforeValidator(lambda text: int(text) if str(text).isdecimal() and len(str(text)) < 9 else text)
]
"""Query parameters are text, and a literal number takes none."""


@dataclass
class ResamplingParams(DefaultDependency):
    """How pixels are made of cells."""

    resampling_method: Annotated[
        ResamplingName,
        Query(
            alias="resampling", description="How pixels are made of cells; all but `nearest` leave out missing cells."
        ),
    ] = "nearest"


@dataclass
class SizeParams(DefaultDependency):
    """Size of an image; width and height may stand in the path."""

    max_size: Annotated[int | None, Field(gt=0, description="Longest side in pixels.")] = None
    height: Annotated[int | None, Field(gt=0, description="Height in pixels.")] = None
    width: Annotated[int | None, Field(gt=0, description="Width in pixels.")] = None


@dataclass
class PreviewSizeParams(SizeParams):
    """Size of an image of the whole map."""

    max_size: Annotated[int, Field(gt=0, description="Longest side in pixels.")] = OVERVIEW_SIZE


@dataclass
class RenderParams(DefaultDependency):
    """How values become a picture."""

    rescale: Annotated[
        list[str] | None,
        Query(description="`min,max` of the colour scale, in the variable's unit; its own style where none is given."),
    ] = None
    colormap_name: Annotated[str | None, Query(description="Name of a colour map; `/colorMaps` lists them.")] = None
    return_mask: Annotated[
        bool | None,
        Query(
            description="Whether missing pixels are told by a mask; by default pictures do, `npy` and `tif` hold NaN."
        ),
    ] = None

    @property
    def ranges(self) -> list[tuple[float, float]] | None:
        """The ranges of ``rescale``.

        Raises:
            QueryError: if one is not two finite numbers, the smaller first.
        """
        if not self.rescale:
            return None
        if len(self.rescale) > MOST_BANDS:
            raise QueryError(
                f"rescale is given {len(self.rescale)} times, and no picture has more than {MOST_BANDS} bands"
            )
        return [number_range("rescale", text) for text in self.rescale]

    @property
    def colormap(self) -> ColorMapType | None:
        """The colour map that is named.

        Raises:
            QueryError: if there is none of that name.
        """
        return None if self.colormap_name is None else named_colormap(self.colormap_name)


@dataclass
class StatisticsParams(DefaultDependency):
    """Which statistics."""

    p: Annotated[list[float] | None, Query(description="Percentiles, 0 to 100; 2 and 98 where none is given.")] = None
    histogram_bins: Annotated[int, Query(ge=1, le=1000, description="Number of bins of the histogram.")] = 10
    histogram_range: Annotated[
        str | None, Query(description="`min,max` of the histogram; the smallest and largest value where none is given.")
    ] = None

    @property
    def percentiles(self) -> list[float]:
        """Percentiles, as numbers.

        Raises:
            QueryError: if one does not lie in 0..100, or there are too many.
        """
        chosen = self.p or [2.0, 98.0]
        if len(chosen) > 100 or not all(0 <= percentile <= 100 for percentile in chosen):
            raise QueryError("p must be up to 100 numbers in 0..100")
        return list(dict.fromkeys(chosen))

    @property
    def limits(self) -> tuple[float, float] | None:
        """Range of the histogram.

        Raises:
            QueryError: if it is not two finite numbers, the smaller first.
        """
        return None if self.histogram_range is None else number_range("histogram_range", self.histogram_range)


def named_colormap(name: str) -> ColorMapType:
    """A colour map by its name, 256 colours.

    Raises:
        QueryError: if there is none of that name.
    """
    known = name.lower()
    if known not in cmap.list():
        raise QueryError(f"there is no colour map {name[:60]!r}; /colorMaps lists them")
    return cmap.get(known)


def number_range(parameter: str, text: str) -> tuple[float, float]:
    """Two finite numbers ``min,max`` whose distance is finite too, with ``LEAST_NUMBERS`` between them.

    Raises:
        QueryError: if they are not.
    """
    try:
        minimum, maximum = (float(part) for part in text.strip("[]").split(","))
    except ValueError:
        minimum, maximum = math.nan, math.nan
    if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum < maximum):
        raise QueryError(f"{parameter}={text[:60]} must be two finite numbers min,max, the smaller one first")
    if not math.isfinite(maximum - minimum):
        raise QueryError(f"{parameter}={text[:60]} is too wide: max - min is no 64-bit floating point number")
    if maximum - minimum < LEAST_NUMBERS * float(np.spacing(max(abs(minimum), abs(maximum)))):
        raise QueryError(
            f"{parameter}={text[:60]} is too narrow: fewer than {LEAST_NUMBERS} floating point numbers lie in between"
        )
    return minimum, maximum


def read_crs(parameter: str, text: str | None) -> CRS | None:
    """A reference system by its code: no free text reaches PROJ, which would look for files and networks.

    Raises:
        QueryError: if it is not a code that PROJ knows.
    """
    if text is None:
        return None
    match = _CRS.fullmatch(text.strip("[]<>"))
    if match:
        authority = (match["uri"] or match["urn"] or match["name"]).upper()
        code = match["code"].upper()
        if (authority, code) == ("OGC", "CRS84"):
            return WGS84_CRS
        if authority == "EPSG" and code.isdecimal():
            try:
                return CRS.from_epsg(int(code))
            except ValueError:
                pass  # told below
    raise QueryError(f"{parameter}={text[:80]} is not a reference system such as EPSG:4326, EPSG:3857 or OGC:CRS84")


def chosen_algorithm(
    algorithm: Annotated[AlgorithmName | None, Query(description="What is done to the values before drawing.")] = None,
    algorithm_params: Annotated[
        str | None,
        Query(description='JSON object of its parameters, such as `{"azimuth":90}`; /algorithms lists them.'),
    ] = None,
) -> BaseAlgorithm | None:
    """The algorithm that a request names.

    Raises:
        QueryError: if a parameter is not one of its own, or not in its range.
    """
    if algorithm is None:
        return None
    made = ALGORITHMS.get(algorithm)
    known = [name for name in made.model_fields if name not in _METADATA]
    try:
        given = json.loads(algorithm_params or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not set(given) <= set(known):
        raise QueryError(f"algorithm_params must be a JSON object of parameters of {algorithm}: {', '.join(known)}")
    try:
        return made(**given)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False))
        raise QueryError(f"algorithm_params: {'; '.join(faults)}") from None


@dataclass
class DrawParams(DefaultDependency):
    """How a map is drawn."""

    algorithm: Annotated[BaseAlgorithm | None, Depends(chosen_algorithm)]
    render: Annotated[RenderParams, Depends(RenderParams)]
    resampling: Annotated[ResamplingParams, Depends(ResamplingParams)]

    def check(self) -> None:
        """Refuse what cannot be drawn, where the drawing is another request's.

        Raises:
            QueryError: if range or colour map cannot be.
        """
        _ = self.render.ranges, self.render.colormap


@dataclass
class PictureParams(DrawParams):
    """How a map is drawn and encoded; the format may stand in the path."""

    format: Annotated[ImageType | None, Field(description="Encoding; `png` where none is given.")] = None


def coord_crs(
    coord_crs: Annotated[
        str | None, Query(description="Reference system of the coordinates; OGC:CRS84 by default.")
    ] = None,
) -> CRS:
    """Reference system of the coordinates in a path or body."""
    return read_crs("coord_crs", coord_crs) or WGS84_CRS


def dst_crs(
    dst_crs: Annotated[
        str | None, Query(description="Reference system of the image; that of the box by default.")
    ] = None,
) -> CRS | None:
    """Reference system of an image."""
    return read_crs("dst_crs", dst_crs)
