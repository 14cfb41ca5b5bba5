"""What a client says it would rather have: ``Accept`` and ``Accept-Encoding``."""

from functools import lru_cache

DIFFERENT = 256
"""Headers that are kept parsed: there are as many as kinds of clients."""


@lru_cache(maxsize=DIFFERENT)
def prefers_html(accept: str) -> bool:
    """Whether an ``Accept`` wants HTML rather than JSON: named, and at least as much as JSON is."""
    weights = _weights(accept)
    wanted = max(weights.get("text/html", 0.0), weights.get("application/xhtml+xml", 0.0))
    return wanted > 0 and wanted >= weights.get("application/json", 0.0)


@lru_cache(maxsize=DIFFERENT)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` allows gzip."""
    weights = _weights(accept_encoding)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weights(header: str) -> dict[str, float]:
    """Names and their ``q``; what cannot be read has weight 0."""
    weights = {}
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[name] = weight
    return weights
