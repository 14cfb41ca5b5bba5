"""One table from an error to the HTTP status that tells it, and the problem document (RFC 9457) that carries it."""

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from rasterio.errors import RasterioError
from rio_tiler.errors import RioTilerError, TileOutsideBounds
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.core import errors
from tiler.deadline import GivenUp

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2
"""What a client is told to wait while the store cannot be reached or the server is full."""

PROBLEM = "application/problem+json"

STATUS: Mapping[type[Exception], HTTPStatus] = {
    errors.CenoteError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Refused: HTTPStatus.BAD_REQUEST,
    errors.NothingToDo: HTTPStatus.BAD_REQUEST,
    errors.DeclarationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InputRefused: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SettingsError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.QueryError: HTTPStatus.BAD_REQUEST,
    errors.RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.CollectionNotFound: HTTPStatus.NOT_FOUND,
    errors.VersionNotFound: HTTPStatus.NOT_FOUND,
    errors.QuantityNotFound: HTTPStatus.NOT_FOUND,
    errors.TimeOutsideAxis: HTTPStatus.NOT_FOUND,
    errors.PositionOutside: HTTPStatus.NOT_FOUND,
    errors.PublishConflict: HTTPStatus.CONFLICT,
    errors.StoreError: HTTPStatus.BAD_GATEWAY,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ObjectMissing: HTTPStatus.BAD_GATEWAY,
    errors.ObjectExists: HTTPStatus.BAD_GATEWAY,
    errors.PreconditionFailed: HTTPStatus.BAD_GATEWAY,
    errors.PreconditionsIgnored: HTTPStatus.BAD_GATEWAY,
    errors.Damaged: HTTPStatus.BAD_GATEWAY,
    errors.RenderFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ModelRefused: HTTPStatus.INTERNAL_SERVER_ERROR,
    TileOutsideBounds: HTTPStatus.NOT_FOUND,
    RioTilerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    RasterioError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Every class of ``services.core.errors`` stands here by itself (tests/tiler/test_errors.py)."""


class NotModified(Exception):
    """The client already holds this answer; raised before anything is read."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem document."""

    status: HTTPStatus
    detail: str
    """One sentence for a person."""

    extra: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None

    def response(self) -> Response:
        """The answer that carries it."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
            **(self.extra or {}),
        }
        return Response(
            json.dumps(document, ensure_ascii=False).encode(),
            status_code=int(self.status),
            media_type=PROBLEM,
            headers=dict(self.headers or {}),
        )


def status_of(error: Exception) -> HTTPStatus:
    """The status of an error: that of the nearest of its classes in the table, else 500."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error: its sentence, but nothing of hosts, paths or libraries."""
    status = status_of(error)
    if isinstance(error, errors.StoreUnavailable):
        return Problem(
            status=status,
            detail="the store does not answer at the moment; please try again",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    if isinstance(error, errors.Damaged | errors.ObjectMissing):
        return Problem(status=status, detail=str(error), extra={"key": error.key})
    if isinstance(error, errors.CenoteError) and not isinstance(error, errors.StoreError):
        return Problem(status=status, detail=str(error))
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(status=status, detail=str(error))
    incident = secrets.token_hex(6)
    return Problem(
        status=status,
        detail=f"the service failed; its log tells why under {incident}",
        extra={"incident": incident},
    )


def problem_of_validation(error: RequestValidationError) -> Problem:
    """A value that does not parse: 404 in the path (there is nothing at such an address), 400 elsewhere."""
    sentences = []
    in_path = False
    for fault in error.errors():
        where, *names = (str(part) for part in fault["loc"])
        in_path |= where == "path"
        given = fault.get("input")
        shown = f" is {given!r}, but it" if isinstance(given, str | int | float) and len(str(given)) <= 100 else ""
        said = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        said = said.replace("Input should", "should", 1) if shown else said
        sentences.append(f"{'.'.join(names) or where}{shown} {said[:1].lower()}{said[1:]}")
    return Problem(
        status=HTTPStatus.NOT_FOUND if in_path else HTTPStatus.BAD_REQUEST, detail="; ".join(dict.fromkeys(sentences))
    )


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    async def told(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            incident = (problem.extra or {}).get("incident", "")
            # what was foreseen is told by its sentence; where there is an incident, only the traceback tells
            traceback = error if incident else None
            logger.error("%s %s: %s %s", request.method, request.url.path, incident, error, exc_info=traceback)
        return problem.response()

    async def malformed(_: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        return problem_of_validation(error).response()

    async def refused(_: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        status = HTTPStatus(error.status_code)
        detail = "there is nothing at this address" if error.detail == status.phrase else str(error.detail)
        return Problem(status=status, detail=detail, headers=error.headers).response()

    async def unchanged(_: Request, __: Exception) -> Response:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)

    async def dropped(_: Request, __: Exception) -> Response:
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE)  # the envelope has sent one long since

    for kind in STATUS:
        app.add_exception_handler(kind, told)
    app.add_exception_handler(Exception, told)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(NotModified, unchanged)
    app.add_exception_handler(GivenUp, dropped)
