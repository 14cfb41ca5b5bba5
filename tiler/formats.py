"""Which encoding an answer of the data queries has: ``f=`` decides, else ``Accept``."""

from collections.abc import Iterator
from enum import Enum
from itertools import chain
from typing import Annotated

from fastapi import Query
from starlette.responses import Response, StreamingResponse

from services.core.errors import QueryError


class Format(Enum):
    """An encoding by its EDR name."""

    COVERAGE_JSON = "CoverageJSON"
    GEOJSON = "GeoJSON"
    CSV = "CSV"
    NETCDF = "NetCDF"
    JSON = "JSON"
    """Plain arrays; only for batches of points."""


MEDIA_TYPES = {
    Format.COVERAGE_JSON: "application/vnd.cov+json",
    Format.GEOJSON: "application/geo+json",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.NETCDF: "application/x-netcdf",
    Format.JSON: "application/json",
}

EDR_FORMATS = (Format.COVERAGE_JSON, Format.GEOJSON, Format.CSV, Format.NETCDF)
"""What position, area and cube answer in; the first where nothing is asked for."""

POINTS_FORMATS = (Format.JSON, Format.CSV, Format.COVERAGE_JSON, Format.GEOJSON, Format.NETCDF)
"""What a batch of points is answered in."""

_SUFFIXES = {Format.CSV: "csv", Format.NETCDF: "nc"}

_NAMES = {
    "coveragejson": Format.COVERAGE_JSON,
    "covjson": Format.COVERAGE_JSON,
    "geojson": Format.GEOJSON,
    "csv": Format.CSV,
    "netcdf": Format.NETCDF,
    "netcdf4": Format.NETCDF,
    "nc": Format.NETCDF,
}

_ACCEPTED = {
    "application/vnd.cov+json": Format.COVERAGE_JSON,
    "application/prs.coverage+json": Format.COVERAGE_JSON,
    "application/geo+json": Format.GEOJSON,
    "text/csv": Format.CSV,
    "application/x-netcdf": Format.NETCDF,
    "application/netcdf": Format.NETCDF,
}

type F = Annotated[
    str | None,
    Query(
        alias="f",
        description="Encoding: CoverageJSON, GeoJSON, CSV or NetCDF, in any case; else the Accept header decides.",
    ),
]


def chosen_format(name: str | None, accept: str, formats: tuple[Format, ...]) -> Format:
    """The encoding that a request asks for; the first of ``formats`` where it asks for none.

    Raises:
        QueryError: if ``f=`` names another.
    """
    if name is not None:
        # "json" and a media type are what other services understand too
        key = name.strip().lower()
        found = formats[0] if key == "json" else _NAMES.get(key) or _ACCEPTED.get(key)
        if found not in formats:
            raise QueryError(f"f={name!r} is not one of {', '.join(one.value for one in formats)}")
        return found
    weights: list[tuple[float, Format]] = []
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        known = _ACCEPTED.get(kind)
        if known in formats:
            weights.append((_weight(parameters), known))
    best = max(weights, key=lambda entry: entry[0], default=(0.0, formats[0]))
    return best[1] if best[0] > 0 else formats[0]


def answer(body: bytes | Iterator[bytes], kind: Format, name: str) -> Response:
    """The response that carries an encoded answer.

    An iterator is streamed; its first part is made before the status is sent, so that what is wrong from the start is
    told as an error. What goes wrong later breaks the connection off, which a client sees.

    Args:
        body: the encoded answer.
        kind: its encoding.
        name: file name without ending, for those that are saved.
    """
    headers = headers_of(kind, name)
    if isinstance(body, bytes):
        return Response(body, headers=headers)
    first = next(body)
    return StreamingResponse(chain([first], body), headers=headers)


def headers_of(kind: Format, name: str) -> dict[str, str]:
    """What the answer's headers say of its encoding; arguments are those of ``answer``."""
    headers = {"Vary": "Accept", "Content-Type": MEDIA_TYPES[kind]}
    if kind in _SUFFIXES:
        headers["Content-Disposition"] = f'attachment; filename="{name}.{_SUFFIXES[kind]}"'
    return headers


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
