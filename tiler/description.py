"""The OpenAPI description of the service, written once."""

import json
from functools import lru_cache

from fastapi import FastAPI, Request
from starlette.responses import Response

from services.core import layout
from tiler.documents import JSON, tag_content

PATH = "/api"

PREFIXES = 8
"""Path prefixes of proxies whose description is kept."""


def add_description(app: FastAPI) -> None:
    """Answer ``/api`` as FastAPI would, but for writing the same 260 kB anew each time, and for its tag."""

    @lru_cache(maxsize=PREFIXES)
    def written(prefix: str) -> tuple[bytes, str]:
        document = app.openapi()
        if prefix:
            document = {**document, "servers": [{"url": prefix}, *document.get("servers", [])]}
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        return body, f'"{layout.digest(body)[:32]}"'

    def description(request: Request) -> Response:
        body, tag = written(request.scope.get("root_path", "").rstrip("/"))
        tag_content(request, tag)
        return Response(body, media_type=JSON)

    app.add_route(PATH, description, include_in_schema=False)
