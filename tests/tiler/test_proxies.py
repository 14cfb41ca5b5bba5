"""Whom the service believes about the address that clients see."""

from typing import Any

import pytest

from services.core.errors import SettingsError
from tiler.proxies import Proxies


def scope(client: str | None, **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "path": "/collections",
        "raw_path": b"/collections",
        "client": None if client is None else (client, 1234),
        "headers": [
            (b"host", b"inside:8000"),
            *((f"x-forwarded-{name}".encode(), value.encode()) for name, value in headers.items()),
        ],
    }


TOLD = {"proto": "https", "host": "maps.example.org", "prefix": "/earth"}


def test_a_trusted_proxy_is_believed() -> None:
    seen = Proxies().seen_from_outside(scope("127.0.0.1", **TOLD))
    assert (seen["scheme"], seen["root_path"], seen["path"]) == ("https", "/earth", "/earth/collections")
    assert seen["raw_path"] == b"/earth/collections"
    assert dict(seen["headers"])[b"host"] == b"maps.example.org"
    assert Proxies(["10.0.0.0/8"]).seen_from_outside(scope("10.1.2.3", **TOLD))["scheme"] == "https"


@pytest.mark.parametrize("client", ["192.168.0.1", "testclient", None])
def test_nobody_else_is(client: str | None) -> None:
    given = scope(client, **TOLD)
    assert Proxies().seen_from_outside(given) is given


@pytest.mark.parametrize(
    "told",
    [
        {"proto": "javascript"},
        {"host": "evil/<script>"},
        {"host": "a b"},
        {"host": "x" * 300},
        {"prefix": "//evil.example"},
        {"prefix": "/../up"},
        {"prefix": "no-slash"},
        {"prefix": "/a?b"},
    ],
)
def test_what_looks_like_no_address_is_ignored(told: dict[str, str]) -> None:
    given = scope("127.0.0.1", **told)
    seen = Proxies().seen_from_outside(given)
    assert (seen["scheme"], seen.get("root_path", ""), seen["path"]) == ("http", "", "/collections")
    assert dict(seen["headers"])[b"host"] == b"inside:8000"


def test_of_several_proxies_the_one_nearest_to_the_client_counts() -> None:
    told = {"proto": "https, http", "host": "maps.example.org, inner"}
    seen = Proxies().seen_from_outside(scope("::1", **told))
    assert seen["scheme"] == "https"
    assert dict(seen["headers"])[b"host"] == b"maps.example.org"


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="trusted proxy"):
        Proxies(["example.org"])
