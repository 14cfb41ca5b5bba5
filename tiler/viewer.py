"""A page that shows a tileset of any tile matrix set, polar ones too, with nothing but its own few lines of script."""

import html
import json
import secrets
from pathlib import Path

from morecantile import TileMatrixSet
from starlette.responses import HTMLResponse

from tiler.matrices import Extent

MOST_ZOOM = 4
"""Zoom levels beyond the native one that can be looked at."""

_PAGE = Path(__file__).with_name("viewer.html").read_text(encoding="utf-8")


def viewer(*, title: str, subtitle: str, tiles: str, legend: str, tms: TileMatrixSet, where: Extent) -> HTMLResponse:
    """The page.

    Args:
        title: what is shown.
        subtitle: variable, unit and period.
        tiles: address of the tiles with ``{z}``, ``{x}`` and ``{y}``.
        legend: address of the legend.
        tms: matrix set.
        where: its native zooms.
    """
    last = min(where.maxzoom + MOST_ZOOM, int(tms.maxzoom))
    matrices = [
        {
            "id": matrix.id,
            "columns": matrix.matrixWidth,
            "rows": matrix.matrixHeight,
            "width": matrix.tileWidth,
            "height": matrix.tileHeight,
        }
        for matrix in (tms.matrix(zoom) for zoom in range(where.minzoom, last + 1))
    ]
    nonce = secrets.token_urlsafe(16)
    page = _PAGE
    for name, text in (
        ("TITLE", html.escape(title)),
        ("SUBTITLE", html.escape(subtitle)),
        ("LEGEND", html.escape(legend)),
        ("MATRICES", _script(matrices)),
        ("TILES", _script(tiles)),
        ("NONCE", nonce),
    ):
        page = page.replace(f"__{name}__", text)
    policy = (
        f"default-src 'none'; img-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _script(value: object) -> str:
    """JSON that cannot end a script element."""
    return json.dumps(value).replace("<", "\\u003c")
