"""The node kind `http`, against a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import ValidationError

from jamjet_kernel.core.graph import parse
from jamjet_kernel.errors import Invalid, NodeFailed, RateLimited
from jamjet_kernel.nodes.http import Http, HttpExecutor
from jamjet_kernel.ports import NodeCall
from jamjet_kernel.testing.executors import ExecutorContract

MAX_BYTES = 10_000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    released: threading.Event

    def log_message(self, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        getattr(self, f"answer_{parts.path.strip('/').replace('-', '_')}")()

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _handle

    def reply(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_echo(self) -> None:
        said = {
            "method": self.command,
            "query": self.query,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.sent.decode(),
        }
        self.reply(json.dumps(said).encode(), Content_Type="application/json")

    def answer_raw(self) -> None:
        kind = self.query.get("type", "text/plain")
        self.reply(self.query.get("body", "").encode(), Content_Type=kind, X_Thing="yes")

    def answer_status(self) -> None:
        headers = {"Retry_After": self.query["after"]} if "after" in self.query else {}
        self.reply(b"the body says why " * 50, int(self.query["code"]), **headers)

    def answer_redirect(self) -> None:
        self.reply(b"x" * 5 * MAX_BYTES, 302, Location=self.query["to"])

    def answer_slow(self) -> None:
        self.released.wait(10)
        self.reply(b"late")

    def answer_trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.released.wait(0.02):
            self.wfile.write(b".")

    def answer_large(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b"x" * 1000)

    def answer_reset(self) -> None:
        linger_zero = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        socket.close(self.connection.detach())
        self.close_connection = True

    def answer_hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer_cookie(self) -> None:
        self.reply(b"", Set_Cookie="session=secret; Path=/")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up on purpose here."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    Handler.released = threading.Event()
    yield
    Handler.released.set()


@pytest.fixture
async def executor() -> AsyncIterator[HttpExecutor]:
    executor = HttpExecutor(MAX_BYTES, ["loopback"])
    yield executor
    await executor.close()


@pytest.fixture
def base(server: str) -> str:
    return server


def call(url: str, deadline: float | None = None, **config: Any) -> NodeCall:
    read = Http.model_validate({"url": url, **config})
    return NodeCall("exec_1", "fetch", 1, read, {}, "key-1", deadline=deadline)


async def output(executor: HttpExecutor, url: str, **config: Any) -> Any:
    return (await executor.execute(call(url, **config))).output


async def failure(executor: HttpExecutor, url: str, **config: Any) -> NodeFailed:
    with pytest.raises(NodeFailed) as raised:
        await executor.execute(call(url, **config))
    return raised.value


class TestHttpExecutor(ExecutorContract):
    @pytest.fixture
    def good_call(self, base: str) -> NodeCall:
        return call(f"{base}/echo")

    @pytest.fixture
    def failing_call(self, base: str) -> NodeCall:
        return call(f"{base}/status?code=404")


# What is sent


async def test_a_get_is_sent_with_its_headers_and_parameters(executor: HttpExecutor, base: str) -> None:
    params = {"q": "a b&c", "n": 2}

    seen = await output(executor, f"{base}/echo?kept=1", headers={"X-Count": 3}, params=params)

    assert (seen["method"], seen["query"]) == ("GET", {"kept": "1", "q": "a b&c", "n": "2"})
    assert seen["headers"]["x-count"] == "3"
    assert "idempotency-key" not in seen["headers"]


@pytest.mark.parametrize(
    ("config", "body", "content_type"),
    [
        ({"body": {"a": 1}}, '{"a":1}', "application/json"),
        ({"json": {"a": 1}}, '{"a":1}', "application/json"),
        ({"json": "text"}, '"text"', "application/json"),
        ({"json": None}, "null", "application/json"),
        ({"body": "text"}, "text", "text/plain; charset=utf-8"),
        ({"body": "<a/>", "headers": {"content-type": "text/xml"}}, "<a/>", "text/xml"),
    ],
)
async def test_a_body_is_sent_as_text_or_json(
    executor: HttpExecutor, base: str, config: dict[str, Any], body: str, content_type: str
) -> None:
    seen = await output(executor, f"{base}/echo", method="post", **config)

    assert (seen["method"], seen["body"], seen["headers"]["content-type"]) == ("POST", body, content_type)


async def test_what_changes_something_carries_the_idempotency_key(executor: HttpExecutor, base: str) -> None:
    ours = await output(executor, f"{base}/echo", method="DELETE")
    own = await output(executor, f"{base}/echo", method="PUT", headers={"idempotency-key": "mine"})

    assert ours["headers"]["idempotency-key"] == "key-1"
    assert own["headers"]["idempotency-key"] == "mine"


async def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request(executor: HttpExecutor, base: str) -> None:
    await output(executor, f"{base}/cookie")

    assert "cookie" not in (await output(executor, f"{base}/echo"))["headers"]


# What is answered


@pytest.mark.parametrize(
    ("query", "parse", "wanted"),
    [
        ("type=application/json&body=[1]", "auto", [1]),
        ("type=application/problem%2Bjson;charset=utf-8&body=[1]", "auto", [1]),
        ("type=text/plain&body=[1]", "auto", "[1]"),
        ("type=text/plain&body=[1]", "json", [1]),
        ("type=application/json&body=[1]", "text", "[1]"),
        ("type=application/json&body=", "auto", None),
        ("type=text/plain&body=", "auto", None),
        ("type=text/plain&body=", "text", ""),
    ],
)
async def test_the_output_is_the_body(executor: HttpExecutor, base: str, query: str, parse: str, wanted: Any) -> None:
    assert await output(executor, f"{base}/raw?{query}", parse=parse) == wanted


async def test_the_full_response_has_status_headers_and_body(executor: HttpExecutor, base: str) -> None:
    whole = await output(executor, f"{base}/raw?body=hi", full_response=True)

    assert (whole["status"], whole["headers"]["x-thing"], whole["body"]) == (200, "yes", "hi")


async def test_a_head_request_has_no_body(executor: HttpExecutor, base: str) -> None:
    assert await output(executor, f"{base}/raw?body=hi", method="HEAD") is None


async def test_broken_json_is_not_asked_for_again(executor: HttpExecutor, base: str) -> None:
    failed = await failure(executor, f"{base}/raw?type=application/json&body=%7Boops")

    assert f"GET {base}/raw answered 200, but its body is not JSON" in str(failed)
    assert failed.details["body"] == "{oops"
    assert not failed.retryable


async def test_an_answer_that_is_too_large_is_not_read_to_its_end(executor: HttpExecutor, base: str) -> None:
    failed = await failure(executor, f"{base}/large")

    assert "answered with more than 10000 bytes (JAMJET_HTTP_MAX_BYTES)" in str(failed)
    assert not failed.retryable


# Statuses


@pytest.mark.parametrize("expect", [404, "404", "4xx", "4XX", [200, 404], ["2xx", 404]])
async def test_an_expected_status_is_no_failure(executor: HttpExecutor, base: str, expect: Any) -> None:
    whole = await output(executor, f"{base}/status?code=404", expect=expect, full_response=True)

    assert whole["status"] == 404


async def test_a_client_error_is_final_and_shows_the_answer(executor: HttpExecutor, base: str) -> None:
    failed = await failure(executor, f"{base}/status?code=404&token=secret")

    assert str(failed).startswith(f"GET {base}/status answered 404: the body says why")
    assert "secret" not in str(failed)
    assert (failed.retryable, failed.details["status"], len(failed.details["body"])) == (False, 404, 500)


@pytest.mark.parametrize("code", [500, 502, 503])
async def test_a_server_error_may_be_tried_again(executor: HttpExecutor, base: str, code: int) -> None:
    failed = await failure(executor, f"{base}/status?code={code}")

    assert (failed.retryable, failed.error_class) == (True, "server_error")


async def test_success_that_was_not_expected_is_a_failure(executor: HttpExecutor, base: str) -> None:
    assert not (await failure(executor, f"{base}/raw", expect=201)).retryable


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("code=429&after=17", 17),
        ("code=503&after=17", 17),
        ("code=429", 5),
        ("code=429&after=soon", 5),
        ("code=429&after=0", 1),
        ("code=429&after=Wed,%2021%20Oct%202015%2007:28:00%20GMT", 1),
    ],
)
async def test_a_rate_limit_parks_for_as_long_as_the_server_says(
    executor: HttpExecutor, base: str, query: str, wanted: float
) -> None:
    with pytest.raises(RateLimited, match="answered") as raised:
        await executor.execute(call(f"{base}/status?{query}"))

    assert raised.value.retry_after == wanted


async def test_a_retry_after_may_be_a_date(executor: HttpExecutor, base: str) -> None:
    date = formatdate(time.time() + 100, usegmt=True).replace(" ", "%20")

    with pytest.raises(RateLimited) as raised:
        await executor.execute(call(f"{base}/status?code=429&after={date}"))

    assert 95 <= raised.value.retry_after <= 101


# Redirects


async def test_a_redirect_is_a_failure_unless_it_is_followed(executor: HttpExecutor, base: str) -> None:
    url = f"{base}/redirect?to=/raw?body=there"

    failed = await failure(executor, url)

    assert "answered 302, a redirect to /raw?body=there (follow_redirects is off)" in str(failed)
    assert not failed.retryable
    assert await output(executor, url, follow_redirects=True) == "there"


async def test_a_redirect_in_circles_ends(executor: HttpExecutor, base: str) -> None:
    failed = await failure(executor, f"{base}/redirect?to=/redirect%3Fto=/nowhere", follow_redirects=True)
    assert "GET" in str(failed)

    failed = await failure(executor, f"{base}/redirect?to=", follow_redirects=True)
    assert "redirected more than 20 times" in str(failed)
    assert not failed.retryable


async def test_a_redirect_leads_to_http_alone(executor: HttpExecutor, base: str) -> None:
    failed = await failure(executor, f"{base}/redirect?to=file:///etc/passwd", follow_redirects=True)

    assert not failed.retryable


# Transport


@pytest.mark.parametrize("path", ["slow", "trickle"])
async def test_a_slow_answer_is_a_timeout(executor: HttpExecutor, base: str, path: str) -> None:
    failed = await failure(executor, f"{base}/{path}", timeout_secs="100ms")

    assert (failed.error_class, failed.retryable) == ("timeout", True)
    assert str(failed) == f"GET {base}/{path} did not answer within 0.1 s"


@pytest.mark.parametrize("path", ["reset", "hang-up"])
async def test_a_connection_that_breaks_is_a_reset(executor: HttpExecutor, base: str, path: str) -> None:
    failed = await failure(executor, f"{base}/{path}")

    assert (failed.error_class, failed.retryable) == ("connection_reset", True)


async def test_nobody_listening_is_an_io_error(executor: HttpExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    failed = await failure(executor, f"http://127.0.0.1:{port}/")

    assert (failed.error_class, failed.retryable) == ("io_error", True)


@pytest.mark.parametrize("headers", [{"X-Bad": "a\nb"}, {"X-Bad": "dürr"}, {"X Bad": "a"}])
async def test_a_request_that_cannot_be_made_is_final(
    executor: HttpExecutor, base: str, headers: dict[str, str]
) -> None:
    assert not (await failure(executor, f"{base}/echo", headers=headers)).retryable


async def test_a_cancelled_request_ends_at_once(executor: HttpExecutor, base: str) -> None:
    await output(executor, f"{base}/echo")
    running = asyncio.create_task(executor.execute(call(f"{base}/slow")))
    await asyncio.sleep(0)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_it_can_be_used_again_after_it_was_closed(executor: HttpExecutor, base: str) -> None:
    await executor.close()

    assert await output(executor, f"{base}/raw?body=hi") == "hi"


# Configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"url": "ftp://x/y"}, "'ftp://x/y' is not an http or https URL"),
        ({"url": "example.com"}, "'example.com' is not an http or https URL"),
        ({"url": "http://x", "expect": 20}, "'20' is not a status"),
        ({"url": "http://x", "expect": ["2xx", "6xx"]}, "'6xx' is not a status"),
        ({"url": "http://x", "method": "G T"}, "should match pattern"),
        ({"url": "http://x", "body": 1, "json": 2}, "'json' and 'body' both say what to send"),
        ({"url": "http://x", "timeout_secs": "soon"}, "'soon' is not a duration"),
        ({"url": "http://x", "timeout": 3}, "Extra inputs are not permitted"),
        ({}, "Field required"),
    ],
)
def test_a_config_that_cannot_work_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Http.model_validate(config)


def test_templated_fields_are_checked_when_they_are_rendered() -> None:
    kind = {"type": "http", "url": "{{ state.url }}", "timeout_secs": "{{ state.t }}", "expect": "{{ state.s }}"}
    ir = {"workflow_id": "w", "version": "1.0.0", "nodes": {"fetch": {"kind": kind}}}
    node = parse(ir, {"http": Http}).nodes["fetch"]

    rendered = node.rendered({"url": "http://x/", "timeout_secs": 3, "expect": 204})

    assert isinstance(rendered, Http)
    assert (rendered.url, rendered.timeout_secs, rendered.expect) == ("http://x/", 3.0, ("204",))
    with pytest.raises(ValidationError):
        node.rendered({"url": "file:///etc/passwd"})
    with pytest.raises(Invalid, match="unknown field"):
        parse({**ir, "nodes": {"fetch": {"kind": {**kind, "tiemout": 3}}}}, {"http": Http})
