"""Outgoing requests are guarded: attacks, against real servers on this machine."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jamjet_kernel import Settings, outgoing
from jamjet_kernel.errors import OutgoingRefused, RemoteFailed
from jamjet_kernel.outgoing import fetch, kind_of, networks_of, open_client


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str]
    released: threading.Event

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        what, _, argument = self.path.strip("/").partition("/")
        getattr(self, f"answer_{what}")(unquote(argument))

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_hello(self, argument: str) -> None:
        self.reply(b'{"hello": true}')

    def answer_missing(self, argument: str) -> None:
        self.reply(b"x" * 100, 404)

    def answer_to(self, argument: str) -> None:
        self.reply(b"", 302, Location=argument)

    def answer_circle(self, argument: str) -> None:
        self.reply(b"", 302, Location="/circle")

    def answer_huge(self, argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(4 * outgoing.MAX_BYTES // 10_000):
            self.wfile.write(b"x" * 10_000)

    def answer_bomb(self, argument: str) -> None:
        self.reply(gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip")

    def answer_trickle(self, argument: str) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.released.wait(0.02):
            self.wfile.write(b".")

    def answer_broken(self, argument: str) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@pytest.fixture
def server() -> Iterator[Server]:
    Handler.asked, Handler.released = [], threading.Event()
    with serving(Server(("127.0.0.1", 0), Handler)) as server:
        yield server
        Handler.released.set()
        server.shutdown()


def serving(server: Server) -> Server:
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


Open = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    clients = []

    def open_(*allow: str, names: Iterable[list[str]] = ()) -> httpx.AsyncClient:
        """`names` are the answers of the resolver, one after the other; without, it is the system's."""
        answers = iter(names)

        async def resolve(host: str, port: int) -> list[str]:
            return next(answers)

        clients.append(open_client(allow, resolve=resolve if names else None))
        return clients[-1]

    yield open_
    for client in clients:
        await client.aclose()


# Where to


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", None),
        ("2606:4700:4700::1111", None),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::808:808", None),
        ("127.0.0.1", "loopback"),
        ("127.1.2.3", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd12::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("169.254.1.1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.64.0.1", "shared"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("2002:7f00:1::", "6to4"),
        ("2001:0:4136:e378::1", "Teredo"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b::a9fe:a9fe", "NAT64"),
        ("64:ff9b:1::808:808", "NAT64"),
        ("::127.0.0.1", "reserved"),
        ("fec0::1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_what_is_public_and_what_is_not(address: str, kind: str | None) -> None:
    assert kind_of(ipaddress.ip_address(address)) == kind


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)
async def test_this_machine_is_not_asked_however_it_is_written(server: Server, opened: Open, host: str) -> None:
    with pytest.raises(OutgoingRefused, match=r"not public \((loopback|unspecified)\).* JAMJET_ALLOW_NETWORKS names"):
        await fetch(opened(), f"http://{host}:{server.port}/hello")

    assert Handler.asked == []


@pytest.mark.parametrize("allow", ["loopback", "LOOPBACK", "127.0.0.0/8", "127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433"])
async def test_it_is_when_the_configuration_says_so(server: Server, opened: Open, allow: str, host: str) -> None:
    fetched = await fetch(opened(allow), f"http://{host}:{server.port}/hello")

    assert (fetched.status, fetched.body) == (200, b'{"hello": true}')


@pytest.mark.parametrize("allow", ["private", "10.0.0.0/8", "loopback"])
async def test_what_is_allowed_allows_nothing_else(opened: Open, allow: str) -> None:
    with pytest.raises(OutgoingRefused, match="link-local"):
        await fetch(opened(allow, names=[["169.254.3.4"]]), "http://intranet/")


@pytest.mark.parametrize("allow", ["0.0.0.0/0", "169.254.0.0/16"])
async def test_a_wide_network_does_not_open_the_metadata_service(opened: Open, allow: str) -> None:
    with pytest.raises(OutgoingRefused, match="names exactly its address"):
        await fetch(opened(allow), "http://169.254.169.254/latest/meta-data/")


async def test_one_bad_address_of_a_name_is_enough(server: Server, opened: Open) -> None:
    client = opened(names=[["8.8.8.8", "10.0.0.1"]])

    with pytest.raises(OutgoingRefused, match=r"rebound\.example has an address") as refused:
        await fetch(client, f"http://rebound.example:{server.port}/hello")

    assert "10.0.0.1" not in str(refused.value), "it tells what names of the network inside stand for"


async def test_the_address_that_was_checked_is_the_one_that_is_asked(server: Server, opened: Open) -> None:
    """A second look at the name, which could have another answer by then, would run out of answers here."""
    client = opened("loopback", names=[["127.0.0.1"]])

    fetched = await fetch(client, f"http://rebound.example:{server.port}/hello")

    assert fetched.status == 200


async def test_a_name_that_points_elsewhere_by_now_is_checked_again(server: Server, opened: Open) -> None:
    client = opened("loopback", names=[["127.0.0.1"], ["169.254.169.254"]])

    with pytest.raises(OutgoingRefused, match="metadata"):
        await fetch(client, f"http://one.example:{server.port}/to/http:%2F%2Ftwo.example:{server.port}%2Fhello")

    assert len(Handler.asked) == 1


async def test_an_address_that_does_not_answer_is_not_the_last_one(server: Server, opened: Open) -> None:
    client = opened("loopback", names=[["127.0.0.2", "127.0.0.1"]])

    assert (await fetch(client, f"http://two.example:{server.port}/hello")).status == 200


@pytest.mark.parametrize("names", [[], [[]]])
async def test_a_name_without_an_address_is_not_reached(opened: Open, names: list[list[str]]) -> None:
    with pytest.raises(RemoteFailed, match="cannot be reached"):
        await fetch(opened(names=names), "http://nobody.invalid/")


# Redirects


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://[::ffff:169.254.169.254]/", "metadata"),
        ("http://10.0.0.1/", "private"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "only http and https"),
        ("http://user:secret@127.0.0.1/", "credentials"),
    ],
)
async def test_a_redirect_is_checked_like_a_request(server: Server, opened: Open, target: str, why: str) -> None:
    with pytest.raises((OutgoingRefused, RemoteFailed)) as refused:
        await fetch(opened("loopback"), f"http://127.0.0.1:{server.port}/to/{target.replace('/', '%2F')}")

    assert why in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_redirect_in_circles_ends(server: Server, opened: Open) -> None:
    with pytest.raises(RemoteFailed, match="one redirect too many"):
        await fetch(opened("loopback"), f"http://127.0.0.1:{server.port}/circle")

    assert len(Handler.asked) == 4


async def test_a_redirect_is_followed(server: Server, opened: Open) -> None:
    fetched = await fetch(opened("loopback"), f"http://127.0.0.1:{server.port}/to/%2Fhello")

    assert (fetched.url, fetched.status) == (f"http://127.0.0.1:{server.port}/hello", 200)


# What is asked, and what is answered


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "unix:///var/run/docker.sock",
        "//example.com/",
        "example.com",
        "http://",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://exa mple.com/",
        "http://[::1/",
        "http://" + "a" * 300 + "/",
        "",
        "\x00",
    ],
)
async def test_other_urls_are_not_asked(opened: Open, url: str) -> None:
    with pytest.raises((OutgoingRefused, RemoteFailed)) as refused:
        await fetch(opened("loopback"), url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("huge", "more than 1048576 bytes"),
        ("bomb", "in an encoding that was not asked for"),
        ("broken", "cannot be reached"),
        ("trickle", "did not answer within 0.3 s"),
    ],
)
async def test_a_hostile_answer_ends_soon(
    server: Server, opened: Open, path: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "SECONDS", 0.3)

    with pytest.raises(RemoteFailed, match=why):
        await fetch(opened("loopback"), f"http://127.0.0.1:{server.port}/{path}")


async def test_an_error_is_an_answer_whose_body_is_not_read(server: Server, opened: Open) -> None:
    fetched = await fetch(opened("loopback"), f"http://127.0.0.1:{server.port}/missing")

    assert (fetched.status, fetched.body) == (404, b"")


async def test_a_proxy_of_the_environment_is_not_used(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{server.port}")

    with pytest.raises(OutgoingRefused, match="metadata"):
        await fetch(opened("loopback"), "http://169.254.169.254/")

    assert Handler.asked == []


# TLS


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Its certificate is for agent.example, and trusted."""
    file = tmp_path / "agent.pem"
    file.write_bytes(certificate("agent.example"))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    Handler.asked, Handler.released = [], threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server
        server.shutdown()


def certificate(name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + built.public_bytes(Encoding.PEM)


async def test_tls_verifies_the_name_and_not_the_address(secure: Server, opened: Open) -> None:
    client = opened("loopback", names=[["127.0.0.1"], ["127.0.0.1"]])

    fetched = await fetch(client, f"https://agent.example:{secure.port}/hello")

    assert fetched.status == 200
    with pytest.raises(RemoteFailed, match=r"certificate is not valid for 'other\.example'"):
        await fetch(client, f"https://other.example:{secure.port}/hello")


# The setting


def test_a_setting_that_names_no_network_stops_the_start() -> None:
    with pytest.raises(ValueError, match=r"'intranet' is no network; try 10\.1\.0\.0/16, loopback or private"):
        Settings(allow_networks=("intranet",))


def test_the_setting_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAMJET_ALLOW_NETWORKS", "loopback, 10.1.0.0/16")

    assert list(map(str, networks_of(Settings().allow_networks))) == ["127.0.0.0/8", "::1/128", "10.1.0.0/16"]
