"""What every request passes: it gets an id, and a browser's is not believed too easily.

Any web page could reach a server on loopback through its reader's browser: by a form or script of another site, or by
a host name that begins to point here (DNS rebinding). The headers `Host`, `Origin` and `Sec-Fetch-Site`, which a page
cannot choose, give both away; where authentication is off, nothing else would.
"""

from __future__ import annotations

import itertools
import re
import secrets
from urllib.parse import urlsplit

import falcon
from falcon.asgi import Request, Response

from ..settings import Settings, is_loopback_address

_SANE_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REMEMBERED = 1000


class Guard:
    """Falcon middleware."""

    def __init__(self, settings: Settings) -> None:
        self._public = urlsplit(settings.url)
        self._checks_hosts = settings.is_local
        self._known_hosts: set[str | None] = set()
        self._process = secrets.token_hex(4)
        self._count = itertools.count(1)

    async def process_request(self, req: Request, resp: Response) -> None:
        self._identify(req, resp)
        host = req.get_header("host")
        if self._checks_hosts and host not in self._known_hosts:
            self._check_host(host)
        if req.method not in _READING:
            self._check_origin(req, host)
        if "\0" in req.path:
            raise falcon.HTTPRouteNotFound

    def _identify(self, req: Request, resp: Response) -> None:
        request_id = req.get_header("x-request-id")
        if request_id is None or not _SANE_ID.fullmatch(request_id):
            request_id = f"{self._process}-{next(self._count):x}"
        req.context.request_id = request_id
        resp.set_header("X-Request-ID", request_id)

    def _check_host(self, host: str | None) -> None:
        name = _host_name(host)
        if not is_loopback(name) and name != self._public.hostname:
            raise falcon.HTTPError(
                421,
                title="421 Misdirected Request",
                description=f"this server is not {host}; use {self._public.geturl()}, or set JAMJET_PUBLIC_URL",
            )
        if len(self._known_hosts) < _REMEMBERED:
            self._known_hosts.add(host)

    def _check_origin(self, req: Request, host: str | None) -> None:
        origin = req.get_header("origin")
        if origin is None:
            allowed = req.get_header("sec-fetch-site") in (None, "same-origin", "none")
        else:
            allowed = origin in (f"{req.scheme}://{host}", f"{self._public.scheme}://{self._public.netloc}")
        if not allowed:
            raise falcon.HTTPForbidden(description=f"a page of {origin or 'another site'} may not change anything here")


def is_loopback(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)


def _host_name(host: str | None) -> str:
    """Without the port. HTTP/1.0 knows no Host, and no browser speaks it."""
    if host is None:
        return "localhost"
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
