"""Host and Origin checks, so that other sites cannot use the server.

A site can make a browser send requests to any address: directly, with the site's Origin, or by a
name of the site that resolves to the server (DNS rebinding), with the site's Host. Numeric
addresses and localhost cannot be rebound.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.limits import RequestError


class HostCheck:
    """Middleware that accepts requests to `allowed` hosts, localhost and numeric addresses.

    Only pages of the requested host and of `allowed` hosts may use it; a * allows all.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str]):
        self._app, self._allowed = app, {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and "*" not in self._allowed:
                self._check(Headers(scope=scope))
        except RequestError as error:
            response = JSONResponse({"error": error.message}, error.status, error.headers)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _name(f"//{host}")
        if host and not (name in self._allowed or _is_local(name)):  # HTTP/1.0 may have none
            raise RequestError(421, f"host {name[:100]!r} is not served: see --allowed_hosts")
        if origin is not None:
            same_origin = host and origin.lower().partition("://")[2] == host.lower()
            if not same_origin and _name(origin) not in self._allowed:
                raise RequestError(
                    403, f"origin {origin[:100]!r} is another site: see --allowed_hosts"
                )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a numeric address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def client_key(address: str) -> str:
    """Key of a client: its IPv4 address, or its IPv6 /64 network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 6 and not parsed.ipv4_mapped:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _is_local(name: str) -> bool:
    """Whether a host is localhost or a numeric address."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str:
    """The host of a URL without its port; "?", which is never allowed, if there is none."""
    try:
        return (urlsplit(url).hostname or "?").rstrip(".")
    except ValueError:
        return "?"
