"""Outgoing requests, guarded: the one place that decides where this runtime may connect to.

Whoever can name a URL could otherwise make the runtime ask what only the runtime can reach: itself, its network, its
cloud's metadata service. So a connection is made only to an address that was checked here, and to exactly that one: a
name that begins to point elsewhere between check and connection gains nothing, and each redirect is checked anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from .errors import OutgoingRefused, RemoteFailed

if TYPE_CHECKING:
    import httpcore
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Iterable[str]]]
"""The addresses of a host's name. Raises `OSError` when there are none."""

SETTING = "JAMJET_ALLOW_NETWORKS"

MAX_BYTES = 2**20
MAX_REDIRECTS = 3
SECONDS = 10.0

_IMPATIENCE = 2.0
"""Seconds for an address to answer while there is another one to try."""


def open_client(allow: Iterable[str], *, resolve: Resolve | None = None) -> httpx.AsyncClient:
    """A client that raises `OutgoingRefused` for what it may not ask; it has no time limit of its own.

    `allow` is the setting `allow_networks`. Takes 0.1 s the first time: the import of httpx, and the certificates.
    """
    import httpcore
    import httpx

    # Certificates of the environment (SSL_CERT_FILE) are welcome; its proxies are not: they would connect for us.
    certificates = httpx.create_ssl_context()
    transport = httpx.AsyncHTTPTransport(verify=certificates, trust_env=False)
    assert isinstance(transport._pool, httpcore.AsyncConnectionPool), "httpx keeps its connections elsewhere now"
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=certificates,
        max_connections=None,
        max_keepalive_connections=100,
        keepalive_expiry=5.0,
        network_backend=_Checked(networks_of(allow), resolve or resolved),  # type: ignore[arg-type]  # lazily imported
    )
    return httpx.AsyncClient(
        transport=transport,
        timeout=None,
        trust_env=False,
        event_hooks={"request": [_check_request]},
        # One client serves everybody: what a server sets for one of them is no business of the others.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


@dataclass(frozen=True, slots=True)
class Fetched:
    """`url` is where the redirects led; the body is only there when the status is a 2xx."""

    url: str
    status: int
    body: bytes


async def fetch(client: httpx.AsyncClient, url: str, *, accept: str = "application/json") -> Fetched:
    """One small document. Raises `OutgoingRefused`, or `RemoteFailed` for an answer that is none, late or too large."""
    import httpx

    try:
        async with asyncio.timeout(SECONDS):
            # Unencoded, as a small answer may unpack into a huge one.
            headers = {"Accept": accept, "Accept-Encoding": "identity"}
            return await _followed(client, client.build_request("GET", url, headers=headers))
    except (httpx.InvalidURL, ValueError) as error:
        raise OutgoingRefused(f"this is not a URL: {error}") from error
    except TimeoutError as error:
        raise RemoteFailed(f"{url} did not answer within {SECONDS:g} s") from error
    except httpx.HTTPError as error:
        raise RemoteFailed(f"{url} cannot be reached: {str(error) or type(error).__name__}") from error


async def _followed(client: httpx.AsyncClient, request: httpx.Request) -> Fetched:
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.next_request is None:
                return Fetched(str(response.url), response.status_code, await _body(response))
            request = response.next_request
        finally:
            await response.aclose()
    raise RemoteFailed(f"{response.url} is one redirect too many; {MAX_REDIRECTS} are followed")


async def _body(response: httpx.Response) -> bytes:
    if not response.is_success:
        return b""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise RemoteFailed(f"{response.url} answered in an encoding that was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise RemoteFailed(f"{response.url} answered with more than {MAX_BYTES} bytes")
    return bytes(body)


# What may be asked


async def _check_request(request: httpx.Request) -> None:
    """httpx calls it for each request, those that follow a redirect included."""
    url = request.url
    if url.scheme not in ("http", "https"):
        raise OutgoingRefused(f"{url.scheme or 'no'} URLs are not asked, only http and https")
    if url.userinfo:
        raise OutgoingRefused(f"the URL of {url.host} holds credentials; send them in a header")
    if not url.host or (url.port or 0) > 65535:
        raise OutgoingRefused("the URL names no host and port that could be asked")


class _Checked:
    """httpcore's network backend: resolves, checks, and connects to what was checked. TLS still verifies the name."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve) -> None:
        import httpcore

        self._allowed = allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        import httpcore

        *others, last = await self._addresses(host, port)
        for address in others:
            try:
                return await self._network.connect_tcp(address, port, _IMPATIENCE, **options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(last, port, timeout, **options)

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise OutgoingRefused(f"{path} is a file of this machine")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        import httpcore

        try:
            found = [ipaddress.ip_address(address) for address in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} cannot be resolved: {error}") from error
        if not found:
            raise httpcore.ConnectError(f"the name {host} has no address")
        for address in found:
            check_address(address, self._allowed, host)
        return list(map(str, found))


async def resolved(host: str, port: int) -> Iterable[str]:
    """By the system's resolver, which also reads the odd ways to write an address, such as 2130706433."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return dict.fromkeys(str(place[0]) for *_, place in found)


# Which addresses


def check_address(address: Address, allowed: Sequence[Network], host: str) -> None:
    """Raises `OutgoingRefused`, which names the kind and not the address: what a name inside stands for is private."""
    kind = kind_of(address)
    if kind is None or _is_allowed(_plain(address), kind, allowed):
        return
    names = {"metadata": "exactly its address"}.get(kind, kind if kind in _WORDS else "its network")
    raise OutgoingRefused(
        f"{host} has an address that is not public ({kind});"
        f" outgoing requests reach it only when {SETTING} names {names}"
    )


def kind_of(address: Address) -> str | None:
    """What keeps an address from being a public one. None: it is public."""
    address = _plain(address)
    for kind, networks in _KINDS.items():
        if any(address in network for network in networks):
            return None if kind == "NAT64" and _leads_to_public(address) else kind
    if isinstance(address, ipaddress.IPv6Address):
        return None if address in _GLOBAL_UNICAST and address.is_global else "reserved"
    return None if address.is_global else "reserved"


def networks_of(words: Iterable[str]) -> tuple[Network, ...]:
    """Raises `ValueError` for what is no network."""
    return tuple(network for word in words for network in _networks(word))


def _networks(word: str) -> Sequence[Network]:
    if word.lower() in _WORDS:
        return _KINDS[word.lower()]
    try:
        return [ipaddress.ip_network(word)]
    except ValueError as error:
        raise ValueError(f"{word!r} is no network; try 10.1.0.0/16, {' or '.join(_WORDS)}") from error


def _is_allowed(address: Address, kind: str, allowed: Sequence[Network]) -> bool:
    if kind == "metadata":  # it gives away credentials: a wide network does not mean it
        return any(address in network for network in allowed if network.num_addresses == 1)
    return any(address in network for network in allowed)


def _plain(address: Address) -> Address:
    """An IPv4 address may be written as one of IPv6, and is connected to as IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def _leads_to_public(address: Address) -> bool:
    """Where there is IPv6 only, each public IPv4 address is reached by 64:ff9b::/96 (RFC 6052)."""
    return address in _NAT64 and kind_of(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)) is None


_KINDS: Mapping[str, Sequence[Network]] = {
    kind: [ipaddress.ip_network(network) for network in networks.split()]
    for kind, networks in {
        # AWS, Google, Azure and most others; AWS by IPv6; Azure's host; Alibaba; Oracle.
        "metadata": "169.254.169.254 fd00:ec2::254 168.63.129.16 100.100.100.200 192.0.0.192",
        "unspecified": "0.0.0.0/8 ::/128",
        "loopback": "127.0.0.0/8 ::1/128",
        "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
        "shared": "100.64.0.0/10",
        "link-local": "169.254.0.0/16 fe80::/10",
        "multicast": "224.0.0.0/4 ff00::/8",
        "6to4": "2002::/16 192.88.99.0/24",
        "Teredo": "2001::/32",
        "NAT64": "64:ff9b::/96 64:ff9b:1::/48",
    }.items()
}
_WORDS = ("loopback", "private")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
