"""JSON as requests send it: read, and refused where no answer could be made of it."""

import json
from typing import Annotated, Any

from fastapi import Depends, Request

from services.core.errors import QueryError

MOST_NESTED = 32
"""Lists and objects inside each other; a MultiPolygon in a FeatureCollection has eight."""


async def body_of(request: Request) -> bytes:
    """The body of a request; its length is capped by the envelope."""
    return await request.body()


type Body = Annotated[bytes, Depends(body_of)]


def read_json(text: bytes | str, what: str = "the body") -> Any:
    """The JSON data of a body, or of a parameter.

    Raises:
        QueryError: if it is not JSON, or ``check_json`` refuses it.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise QueryError(f"{what} is not JSON{where}") from None
    return check_json(document, what)


def check_json[T](document: T, what: str = "the body") -> T:
    """The same document.

    Raises:
        QueryError: if it is nested too deep, or holds text that is not Unicode: neither could be sent back.
    """
    parts: list[Any] = [document]
    for _ in range(MOST_NESTED + 1):
        if any(isinstance(part, str) and not _is_unicode(part) for part in parts):
            raise QueryError(f"{what} holds half of a surrogate pair, which is not Unicode")
        parts = [inner for part in parts if isinstance(part, dict | list) for inner in _inside(part)]
        if not parts:
            return document
    raise QueryError(f"{what} has more than {MOST_NESTED} lists and objects inside each other")


def _inside(part: dict[str, Any] | list[Any]) -> list[Any]:
    return part if isinstance(part, list) else [*part, *part.values()]


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
