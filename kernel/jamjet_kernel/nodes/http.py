"""The node kind `http`: one request to an HTTP server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel, Field, JsonValue, ValidationInfo, field_validator

from ..core.definition import Seconds, Strict
from ..errors import NodeFailed, OutgoingRefused, RateLimited
from ..outgoing import open_client
from ..ports import NodeCall, NodeResult

if TYPE_CHECKING:
    import httpx

Scalar = str | int | float | bool | None
DEFAULT_TIMEOUT = 30.0
"""Seconds, for a node that sets no limit of its own and has no node_timeout_secs."""
DEFAULT_RETRY_AFTER = 5.0
MAX_REDIRECTS = 20
EXCERPT = 500


class Http(Strict):
    """`body` is sent as it is when it is text, else as JSON; `json` always as JSON. `expect` lists the statuses
    that are no failure. The result is the answer's body, or `{status, headers, body}` with `full_response`."""

    method: str = Field("GET", pattern=r"^[A-Z]+$")
    url: str
    headers: dict[str, str | int | float] = Field({})
    params: dict[str, Scalar | list[Scalar]] = Field({})
    body: JsonValue = None
    json_: JsonValue = Field(None, alias="json")
    expect: tuple[str, ...] = ("2xx",)
    timeout_secs: Seconds | None = Field(None, gt=0)
    follow_redirects: bool = False
    parse: Literal["auto", "json", "text"] = "auto"
    full_response: bool = False

    @field_validator("method", mode="before")
    @classmethod
    def _in_capitals(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{value!r} is not an http or https URL")
        return value

    @field_validator("expect", mode="before")
    @classmethod
    def _are_statuses(cls, value: Any) -> tuple[str, ...]:
        given = value if isinstance(value, list | tuple) else [value]
        statuses = tuple(str(each).lower() for each in given)
        for status in statuses:
            if not re.fullmatch(r"[1-5](\d\d|xx)", status):
                raise ValueError(f"{status!r} is not a status; try 200, '2xx' or [200, 404]")
        return statuses

    @field_validator("json_")
    @classmethod
    def _is_the_only_body(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        if value is not None and info.data.get("body") is not None:
            raise ValueError("'json' and 'body' both say what to send; give one of them")
        return value

    def expects(self, status: int) -> bool:
        return str(status) in self.expect or f"{status // 100}xx" in self.expect


@dataclass(frozen=True, slots=True)
class Answer:
    """`place` is the request as messages name it: without query and credentials, which may be secrets."""

    place: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    charset: str

    @property
    def text(self) -> str:
        return self.body.decode(self.charset, errors="replace")


class HttpExecutor:
    kind = "http"
    config: type[BaseModel] = Http

    def __init__(self, max_bytes: int, allow_networks: Iterable[str] = ()) -> None:
        self._max_bytes = max_bytes
        self._allow_networks = tuple(allow_networks)
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def execute(self, call: NodeCall) -> NodeResult:
        config: Http = call.config
        client = self._client or await self._open()
        answer = await self._ask(client, _request(client, config, call), config, _limit(config, call))
        if not config.expects(answer.status):
            raise _unexpected(answer)
        body = _parsed(answer, config.parse)
        if config.full_response:
            return NodeResult({"status": answer.status, "headers": dict(answer.headers), "body": body})
        return NodeResult(body)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(open_client, self._allow_networks)
        return self._client

    async def _ask(
        self, client: httpx.AsyncClient, request: httpx.Request, config: Http, limit: float | None
    ) -> Answer:
        place = _place(request)
        import httpx

        try:
            async with asyncio.timeout(limit):
                return await self._exchange(client, request, config, place)
        except (TimeoutError, httpx.TimeoutException) as error:
            within = f" within {limit:g} s" if limit is not None else " in time"
            raise NodeFailed(f"{place} did not answer{within}", error_class="timeout") from error
        except OutgoingRefused as error:
            raise NodeFailed(f"{place} was not asked: {error}", retryable=False) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise NodeFailed(f"{place} cannot be asked: {error}", retryable=False) from error
        except (httpx.HTTPError, OSError) as error:
            reset = isinstance(error, httpx.RemoteProtocolError) or _is_reset(error)
            message = f"{place}: {type(error).__name__}: {error}".rstrip(": ")
            raise NodeFailed(message, error_class="connection_reset" if reset else "io_error") from error

    async def _exchange(self, client: httpx.AsyncClient, request: httpx.Request, config: Http, place: str) -> Answer:
        response = await _sent(client, request, config.follow_redirects, place)
        try:
            expected = config.expects(response.status_code)
            body = await (self._read(response, place) if expected else _beginning(response))
        finally:
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(place, response.status_code, headers, body, response.encoding or "utf-8")

    async def _read(self, response: httpx.Response, place: str) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_bytes:
                message = f"{place} answered with more than {self._max_bytes} bytes (JAMJET_HTTP_MAX_BYTES)"
                raise NodeFailed(message, retryable=False)
        return bytes(body)


async def _beginning(response: httpx.Response) -> bytes:
    """Enough for an error's excerpt: a large error page must not hide the status."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= 4 * EXCERPT:
            break
    return bytes(body[: 4 * EXCERPT])


def _limit(config: Http, call: NodeCall) -> float | None:
    if config.timeout_secs is not None:
        return config.timeout_secs
    return None if call.deadline is not None else DEFAULT_TIMEOUT


def _request(client: httpx.AsyncClient, config: Http, call: NodeCall) -> httpx.Request:
    import httpx

    headers = {name: str(value) for name, value in config.headers.items()}
    present = {name.lower() for name in headers}
    content, content_type = _content(config)
    if content_type and "content-type" not in present:
        headers["Content-Type"] = content_type
    if config.method not in ("GET", "HEAD") and "idempotency-key" not in present:
        headers["Idempotency-Key"] = call.idempotency_key
    try:
        url = httpx.URL(config.url)
        # `params=` would replace what the URL says already.
        url = url.copy_merge_params(config.params) if config.params else url
        return client.build_request(config.method, url, headers=headers, content=content)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise NodeFailed(f"the request cannot be made: {error}", retryable=False) from error


def _content(config: Http) -> tuple[bytes | None, str | None]:
    if "json_" in config.model_fields_set:
        return msgspec.json.encode(config.json_), "application/json"
    match config.body:
        case None:
            return None, None
        case str(text):
            return text.encode(), "text/plain; charset=utf-8"
        case value:
            return msgspec.json.encode(value), "application/json"


async def _sent(client: httpx.AsyncClient, request: httpx.Request, follow: bool, place: str) -> httpx.Response:
    # Not `follow_redirects=True`: httpx then reads the redirects' bodies, however large.
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        if not follow or response.next_request is None:
            return response
        await response.aclose()
        request = response.next_request
    raise NodeFailed(f"{place} redirected more than {MAX_REDIRECTS} times", retryable=False)


def _place(request: httpx.Request) -> str:
    url = request.url
    port = f":{url.port}" if url.port else ""
    return f"{request.method} {url.scheme}://{url.host}{port}{url.path}"


def _is_reset(error: BaseException) -> bool:
    return any(isinstance(cause, ConnectionResetError | BrokenPipeError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unexpected(answer: Answer) -> NodeFailed | RateLimited:
    message = f"{answer.place} answered {answer.status}"
    limited = answer.status == 429 or (answer.status == 503 and "retry-after" in answer.headers)
    if limited:
        return RateLimited(_retry_after(answer.headers), message)
    if location := answer.headers.get("location"):
        message += f", a redirect to {location} (follow_redirects is off)"
    excerpt = answer.text[:EXCERPT]
    details = {"status": answer.status, "body": excerpt}
    return NodeFailed(
        f"{message}: {excerpt}" if excerpt else message,
        retryable=answer.status >= 500,
        error_class="server_error" if answer.status >= 500 else "custom",
        details=details,
    )


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds or a date (RFC 9110, 10.2.3), at least 1: a parked node costs no attempt, so it could spin."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return max(1.0, float(value))
    until, now = _date(value), _date(headers.get("date", ""))
    if until is None:
        return DEFAULT_RETRY_AFTER
    return max(1.0, until - (time.time() if now is None else now))


def _date(value: str) -> float | None:
    try:
        found: datetime = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _parsed(answer: Answer, parse: str) -> Any:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    says_json = kind.endswith(("/json", "+json"))
    if parse == "text" or (parse == "auto" and not says_json and answer.body):
        return answer.text
    if not answer.body:
        return None
    try:
        return msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"{answer.place} answered {answer.status}, but its body is not JSON: {error}"
        raise NodeFailed(message, retryable=False, details={"body": answer.text[:EXCERPT]}) from error
