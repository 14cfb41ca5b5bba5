"""Behind a reverse proxy: the address that clients see, told by X-Forwarded-* of proxies that may be believed."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Scope

from services.core.errors import SettingsError

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""Proxies on the same machine are believed without being asked for."""

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]{1,64}){1,8}")


class Proxies:
    """Which peers may say how a request reached them.

    Args:
        networks: addresses or networks such as ``10.0.0.0/8``.

    Raises:
        SettingsError: if one is neither.
    """

    def __init__(self, networks: Sequence[str] = LOOPBACK) -> None:
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise SettingsError(f"a trusted proxy must be an address or a network: {error}") from None

    def believes(self, scope: Scope) -> bool:
        """Whether the peer of a connection is one of them."""
        client: Sequence[Any] | None = scope.get("client")
        try:
            address = ipaddress.ip_address(str(client[0])) if client else None
        except ValueError:
            return False
        return address is not None and any(address in network for network in self._networks)

    def seen_from_outside(self, scope: Scope) -> Scope:
        """The scope with scheme, host and path prefix as the client of the nearest trusted proxy sees them.

        What does not look like a host or prefix is ignored: it would end up in links that caches keep.
        """
        # most requests were not passed on by anybody
        if not any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"]) or not self.believes(scope):
            return scope
        headers = MutableHeaders(raw=list(scope["headers"]))
        scheme = _first(headers.get("x-forwarded-proto")).lower()
        host = _first(headers.get("x-forwarded-host"))
        prefix = _first(headers.get("x-forwarded-prefix")).rstrip("/")
        seen = dict(scope)
        if scheme in {"http", "https"}:
            seen["scheme"] = scheme
        if _HOST.fullmatch(host):
            headers["host"] = host
            seen["headers"] = headers.raw
        if _PREFIX.fullmatch(prefix):
            # ASGI: the path starts with the root path
            seen["root_path"] = prefix
            seen["path"] = prefix + scope["path"]
            seen["raw_path"] = prefix.encode() + (scope.get("raw_path") or scope["path"].encode())
        return seen


def _first(header: str | None) -> str:
    """The entry of the proxy nearest to the client."""
    return (header or "").split(",")[0].strip()
