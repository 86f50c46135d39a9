"""The REST contract as methods: what a command asks of a runtime.

Nothing is tried again, save a broken event stream, which goes on where it stopped, and what the runtime did not do
because it is overloaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from .exit_codes import ExitCode
from .failures import CommandFailed

_WHERE_A_TOKEN_IS = "give a token with --token or JAMJET_TOKEN, or call this from the folder that the runtime serves"

Json = dict[str, Any]
Event = dict[str, Any]

TERMINAL_STATUSES = frozenset({"completed", "failed", "cancelled"})

_TIMEOUT = httpx.Timeout(30, connect=5)
# The server says something every 15 seconds, if only that it is there.
_STREAM_TIMEOUT = httpx.Timeout(45, connect=5)
# A long log takes a while to read, and the answer comes at the end.
_VERIFY_TIMEOUT = httpx.Timeout(600, connect=5)
_PAGE = 1000
_AUDIT_PAGE = 200
_OVERLOADED_FOR = 60
"""Seconds after which an overloaded runtime is not asked again."""
_PAUSES_BETWEEN_CONNECTIONS = (0.2, 0.5, 1, 2, 4, 5, 5, 5, 5)


# A proxy of the environment is for the world outside, not for this machine.
HERE = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def bearing(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


class Client:
    """Raises `CommandFailed` for whatever goes wrong. `note` is told what takes time."""

    def __init__(self, url: str, token: str | None = None, *, note: Callable[[str], None] = lambda _: None) -> None:
        self.url = url.rstrip("/")
        self._note = note
        try:
            self._http = httpx.Client(
                base_url=self.url, headers=bearing(token), timeout=_TIMEOUT, mounts=dict.fromkeys(HERE)
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise bad_url(url) from error

    def close(self) -> None:
        self._http.close()

    # Workflows

    def register(self, ir: Json) -> Json:
        return self._post("/workflows", "workflow_id", {"ir": ir})

    def workflows(self) -> Json:
        return self._pages("/workflows", "workflows")

    def workflow_versions(self, workflow_id: str) -> Json:
        return self._pages(f"/workflows/{_part(workflow_id)}", "versions")

    def workflow(self, workflow_id: str, version: str) -> Json:
        return self._get(f"/workflows/{_part(workflow_id)}/{_part(version)}", "workflow_id")

    # Executions

    def start(self, workflow_id: str, version: str, input: Json, priority: int | None = None) -> Json:
        body = _given(workflow_id=workflow_id, workflow_version=version, input=input, priority=priority)
        return self._post("/executions", "execution_id", body)

    def execution(self, execution_id: str) -> Json:
        return self._get(_path(execution_id), "execution_id")

    def executions(self, *, status: str | None, workflow_id: str | None, limit: int) -> Json:
        query = {"status": status, "workflow_id": workflow_id}
        return self._pages("/executions", "executions", query, limit)

    def events(self, execution_id: str, after: int = 0) -> Iterator[Event]:
        """The events so far."""
        while True:
            page = self._get(_path(execution_id, "events"), "events", {"after": after, "limit": _PAGE})["events"]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]["sequence"]

    def follow(
        self, execution_id: str, after: int = 0, *, connected: Callable[[bool], None] = lambda _: None
    ) -> Iterator[Event]:
        """Each event once, as they come, until the execution ends. Says when the connection is lost, and when back."""
        pauses = iter(_PAUSES_BETWEEN_CONNECTIONS)
        lost = False
        while True:
            broken: Exception | None = None
            try:
                with self._stream(execution_id, after) as events:
                    if lost:
                        connected(True)
                        lost = False
                    for event in events:
                        after = event["sequence"]
                        pauses = iter(_PAUSES_BETWEEN_CONNECTIONS)
                        yield event
                if self.execution(execution_id)["status"] in TERMINAL_STATUSES:
                    return
            except (httpx.TransportError, _Unreachable) as error:
                broken = error
                if not lost:
                    connected(False)
                    lost = True
            pause = next(pauses, None)
            if pause is None:
                raise _unreachable(f"no runtime answers at {self.url}") from broken
            time.sleep(pause)

    def cancel(self, execution_id: str, reason: str | None = None) -> Json:
        return self._post(_path(execution_id, "cancel"), "execution_id", {"reason": reason} if reason else None)

    def pause(self, execution_id: str) -> Json:
        return self._post(_path(execution_id, "pause"), "execution_id")

    def resume(self, execution_id: str) -> Json:
        return self._post(_path(execution_id, "resume"), "execution_id")

    def retry(self, execution_id: str) -> Json:
        return self._post(_path(execution_id, "retry"), "execution_id")

    def fork(self, execution_id: str, *, sequence: int | None, state: Json | None, state_patch: Json | None) -> Json:
        body = _given(sequence=sequence, state=state, state_patch=state_patch)
        return self._post(_path(execution_id, "fork"), "execution_id", body)

    # People and events

    def approve(
        self,
        execution_id: str,
        *,
        decision: str,
        node_id: str | None = None,
        user_id: str | None = None,
        comment: str | None = None,
        state_patch: Json | None = None,
    ) -> Json:
        body = _given(decision=decision, node_id=node_id, user_id=user_id, comment=comment, state_patch=state_patch)
        return self._post(_path(execution_id, "approve"), "execution_id", body)

    def external_event(self, execution_id: str, correlation_key: str, payload: Any) -> Json:
        body = {"correlation_key": correlation_key, "payload": payload}
        return self._post(_path(execution_id, "external-event"), "execution_id", body)

    def approvals(self) -> Json:
        return self._pages("/approvals", "approvals")

    def workers(self) -> Json:
        return self._get("/workers", "workers")

    # Dead letters

    def dead_letters(self, *, queue: str | None, limit: int | None) -> Json:
        return self._pages("/dead-letters", "dead_letters", {"queue": queue}, limit)

    def requeue(self, letter_id: str) -> Json:
        return self._post(f"/dead-letters/{_part(letter_id)}/requeue", "execution_id")

    # Tokens

    def create_token(self, name: str, role: str, *, tenant_id: str | None, expires_at: str | None) -> Json:
        body = _given(name=name, role=role, tenant_id=tenant_id, expires_at=expires_at)
        return self._post("/tokens", "token", body)

    def tokens(self) -> Json:
        return self._pages("/tokens", "tokens")

    def revoke_token(self, token_id: str) -> Json:
        return self._delete(f"/tokens/{_part(token_id)}", "token_id")

    # Audit

    def audit(self, asked: Mapping[str, object], limit: int) -> Json:
        return self._pages("/audit", "items", asked, limit, at_once=_AUDIT_PAGE)

    def audit_verification(self, expected: tuple[int, str] | None) -> Json:
        sequence, digest = expected or (None, None)
        query = {"expected_sequence": sequence, "expected_digest": digest}
        return self._answer("GET", "/audit/verify", "valid", params=_given(**query), timeout=_VERIFY_TIMEOUT)

    def audit_export(self) -> Iterator[bytes]:
        """The file, in parts as they come."""
        try:
            with self._http.stream("GET", "/audit/export", timeout=_VERIFY_TIMEOUT) as response:
                self._check(response, "application/jsonl")
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise not_answered(self.url, error) from error

    # Agents

    def agents(self, asked: Mapping[str, object]) -> Json:
        return self._pages("/agents", "agents", asked)

    def agent(self, agent_id: str) -> Json:
        return self._get(f"/agents/{_part(agent_id)}", "agent_id")

    def move_agent(self, agent_id: str, action: str) -> Json:
        return self._post(f"/agents/{_part(agent_id)}/{action}", "agent_id")

    def discover_agent(self, url: str) -> Json:
        return self._post("/agents/discover", "agent_id", {"url": url})

    # The wire: `holds` is a field that a runtime's answer has, and another service's has not

    def _get(self, path: str, holds: str, query: Mapping[str, object] | None = None) -> Json:
        return self._answer("GET", path, holds, params=_given(**(query or {})))

    def _post(self, path: str, holds: str, body: Json | None = None) -> Json:
        return self._answer("POST", path, holds, json=body or {})

    def _delete(self, path: str, holds: str) -> Json:
        return self._answer("DELETE", path, holds)

    def _pages(
        self,
        path: str,
        noun: str,
        query: Mapping[str, object] | None = None,
        limit: int | None = None,
        *,
        at_once: int = _PAGE,
    ) -> Json:
        """The pages of a list as one, up to the limit; `next_cursor` is left in when there is more."""
        found: list[Any] = []
        cursor = None
        while True:
            room = at_once if limit is None else min(at_once, limit - len(found))
            page = self._get(path, noun, {**(query or {}), "limit": room, "cursor": cursor})
            found += page[noun]
            cursor = page.get("next_cursor")
            if not cursor or len(found) == limit:
                return {**page, noun: found}

    def _answer(self, method: str, path: str, holds: str, **request: Any) -> Json:
        until = time.monotonic() + _OVERLOADED_FOR
        is_told = False
        while True:
            try:
                response = self._http.request(method, path, **request)
            except httpx.TransportError as error:
                raise not_answered(self.url, error) from error
            media = media_of(response)
            if response.is_success and isinstance(media, dict) and holds in media:
                return media
            pause = _overloaded(response, media)
            if pause is None or time.monotonic() + pause > until:
                raise refused(self.url, response, media)
            if not is_told:
                self._note(f"the runtime has too much to do; trying again for {_OVERLOADED_FOR} seconds")
                is_told = True
            time.sleep(pause)

    def _check(self, response: httpx.Response, media_type: str) -> None:
        """That the answer to a request for a stream is one."""
        if not response.is_success or not response.headers.get("content-type", "").startswith(media_type):
            response.read()
            raise refused(self.url, response, media_of(response))

    @contextmanager
    def _stream(self, execution_id: str, after: int) -> Iterator[Iterator[Event]]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        url = _path(execution_id, "events")
        with self._http.stream("GET", url, headers=headers, timeout=_STREAM_TIMEOUT) as response:
            if response.status_code != httpx.codes.NO_CONTENT:
                self._check(response, "text/event-stream")
            events = map(json.loads, server_sent(response.iter_lines()))
            yield (event for event in events if event["sequence"] > after)


def server_sent(lines: Iterable[str]) -> Iterator[str]:
    """The data of each server-sent event. Comments, and an event that was cut off, are left out."""
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        if not line and data:
            yield "\n".join(data)
            data = []
        elif field == "data":
            data.append(value.removeprefix(" "))


class _Unreachable(CommandFailed):
    """Nobody there, or not yet again."""


def _unreachable(message: str) -> _Unreachable:
    return _Unreachable(
        message,
        hint="start one with `jamjet dev`, or name another with --runtime",
        code=ExitCode.UNREACHABLE,
    )


def not_answered(url: str, error: httpx.TransportError) -> CommandFailed:
    match error:
        case httpx.UnsupportedProtocol():
            return bad_url(url)
        case httpx.ReadTimeout():
            return _Unreachable(f"the runtime at {url} did not answer in time", code=ExitCode.UNREACHABLE)
        case httpx.RemoteProtocolError():
            return _unreachable(f"what answers at {url} is no JamJet runtime")
    return _unreachable(f"no runtime answers at {url}")


def bad_url(url: str) -> CommandFailed:
    return CommandFailed(
        f"{url!r} is not the URL of a runtime", hint="write it like http://127.0.0.1:7700", code=ExitCode.USAGE
    )


def media_of(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _overloaded(response: httpx.Response, media: object) -> float | None:
    """The seconds that it asks to wait."""
    if response.status_code != httpx.codes.TOO_MANY_REQUESTS or not isinstance(media, dict):
        return None
    after = response.headers.get("retry-after", "")
    return float(after) if media.get("code") == "overloaded" and after.isdecimal() else None


def refused(url: str, response: httpx.Response, media: object) -> CommandFailed:
    if response.is_error and isinstance(media, dict) and "error" in media:
        return Refused(response.status_code, media)
    # A proxy says such things too while its runtime is away; who says that all is well is another service.
    stranger = _Unreachable if response.is_server_error else CommandFailed
    return stranger(
        f"what answers at {url} is no JamJet runtime (HTTP {response.status_code})",
        hint="name another with --runtime",
        code=ExitCode.UNREACHABLE,
    )


class Refused(CommandFailed):
    """The runtime's own word that it does not do this."""

    def __init__(self, status: int, media: Json) -> None:
        problems = _problems(media)
        message = str(media["error"])
        several = len(problems) > 1
        super().__init__(
            f"{len(problems)} problems" if several else message,
            details=problems if several else (),
            hint=_WHERE_A_TOKEN_IS if status == 401 else None,
        )
        self.status = status


def _problems(media: Json) -> list[str]:
    details = media.get("details")
    problems = details.get("problems") if isinstance(details, dict) else None
    return [_problem(problem) for problem in problems or []]


def _problem(problem: Any) -> str:
    if not isinstance(problem, dict):
        return str(problem)
    place, message = problem.get("place"), problem.get("message")
    return f"{place}: {message}" if place else str(message)


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _path(execution_id: str, *rest: str) -> str:
    return "/".join(("/executions", _part(execution_id), *rest))


def _part(text: str) -> str:
    return quote(text, safe="")
