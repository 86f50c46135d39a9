"""What a worker says to its runtime, over and over where that does not answer."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from importlib.metadata import version

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from .client import HERE, Json, Refused, bad_url, bearing, media_of, not_answered, refused
from .failures import CommandFailed

log = logging.getLogger("jamjet.worker")

WAIT = 20
"""Seconds that a claim waits for work: less than proxies allow, and seldom enough."""

AT_ONCE = 100

_TIMEOUT = httpx.Timeout(30, connect=5)
_CLAIM_TIMEOUT = httpx.Timeout(WAIT + 30, connect=5)
_MOST_ERRORS = 5
"""Answers 500 to one message: what breaks the runtime each time is not sent for ever."""


class Gone(Exception):
    """The work is another's by now, or nobody wants it any more."""


class TooLarge(Exception):
    """The runtime does not take so large a message."""


class Away(Exception):
    """The runtime does not answer just now, or has too much to do; `after` is when it wants to be asked again."""

    def __init__(self, why: CommandFailed, after: float = 0, *, is_broken: bool = False) -> None:
        super().__init__(str(why))
        self.why = why
        self.after = after
        self.is_broken = is_broken


class Wire:
    """Raises `CommandFailed` where asking again would not help, `Gone` for work that is lost."""

    def __init__(self, url: str, token: str | None, name: str, queues: Sequence[str], concurrency: int) -> None:
        self.url = url.rstrip("/")
        self._about = {
            "worker_id": name,
            "queue_types": list(queues),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": version("jamjet-runtime"),
            "concurrency": concurrency,
        }
        self._name = name
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=concurrency + 2)
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=bearing(token),
                timeout=_TIMEOUT,
                limits=limits,
                mounts=dict.fromkeys(HERE),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise bad_url(url) from error
        self._is_away = False
        self._has_answered = False

    async def close(self) -> None:
        await self._http.aclose()

    async def first_claim(self) -> list[Json]:
        """Asks once, without waiting: whoever started the worker wants to know whether that works at all."""
        try:
            return _items(await self._ask("/work-items/claim", {**self._about, "wait": 0}))
        except Away as away:
            raise away.why from None

    async def claim(self, most: int) -> list[Json]:
        body = {"max": min(most, AT_ONCE), "wait": WAIT}
        return _items(await self._persistently("/work-items/claim", {**self._about, **body}, _CLAIM_TIMEOUT))

    async def heartbeat(self, item: Json) -> None:
        """Once: the next one is due soon. Raises `Away` too."""
        await self._ask(_path(item, "heartbeat"), {"worker_id": self._name, "lease_fence": item["lease_fence"]})

    async def say(self, item: Json, what: str, body: Json) -> None:
        await self._persistently(_path(item, what), {"lease_fence": item["lease_fence"], **body})

    async def release(self, item: Json, reason: str) -> None:
        """Once, since who gives work back is about to go. Raises `Away` too."""
        await self._ask(_path(item, "release"), {"lease_fence": item["lease_fence"], "reason": reason})

    async def _persistently(self, path: str, body: Json, timeout: httpx.Timeout = _TIMEOUT) -> Json:
        errors = 0
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(Away), wait=_pause):
            with attempt:
                try:
                    return await self._ask(path, body, timeout)
                except Away as away:
                    errors += away.is_broken
                    if errors >= _MOST_ERRORS:
                        raise away.why from None
                    raise
        raise AssertionError("it is asked until there is an answer")

    async def _ask(self, path: str, body: Json, timeout: httpx.Timeout = _TIMEOUT) -> Json:
        try:
            response = await self._http.post(path, json=body, timeout=timeout)
        except httpx.UnsupportedProtocol as error:
            raise not_answered(self.url, error) from error
        except httpx.TransportError as error:
            self._note_away()
            raise Away(not_answered(self.url, error)) from error
        media = media_of(response)
        if response.is_success and isinstance(media, dict):
            self._note_back()
            return media
        raise self._refusal(response, media)

    def _refusal(self, response: httpx.Response, media: object) -> Exception:
        why = refused(self.url, response, media)
        match response.status_code:
            case 409 | 404 if isinstance(why, Refused):
                return Gone(str(why))
            case 413:
                return TooLarge(str(why))
            case 429 | 502 | 503 | 504:
                self._note_away()
                return Away(why, _after(response))
            case 500:
                return Away(why, is_broken=True)
        return why

    def _note_away(self) -> None:
        if not self._is_away and self._has_answered:
            log.warning("the runtime at %s does not answer, or is busy; asking again until it does", self.url)
        self._is_away = True

    def _note_back(self) -> None:
        if self._is_away:
            log.warning("the runtime at %s answers again", self.url)
        self._is_away, self._has_answered = False, True


def _items(claimed: Json) -> list[Json]:
    if not claimed.get("claimed"):
        return []
    return list(claimed.get("work_items") or [claimed["work_item"]])


def _path(item: Json, what: str) -> str:
    return f"/work-items/{item['id']}/{what}"


def _after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0


# Leases run on meanwhile, so a runtime that is back is found soon.
_backoff = wait_exponential_jitter(initial=0.2, max=2, jitter=0.5)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_backoff(state), min(error.after, 60) if isinstance(error, Away) else 0)
