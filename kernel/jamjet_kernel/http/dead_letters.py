"""Dead letters: what failed for good, and running it again."""

from __future__ import annotations

import base64
from typing import Any

from falcon.asgi import Request, Response

from ..core.progress import Status
from ..errors import NotFound
from ..ports import DeadLetter
from ..runtime import Runtime
from . import cursors, models
from .answers import answer, timestamp
from .requests import body, no_query, principal_of, query


class DeadLetters:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def on_get(self, req: Request, resp: Response) -> None:
        asked = query(req, models.DeadLettersPage)
        after = cursors.read(asked.cursor, tuple[cursors.Text, cursors.Text])
        found = await self._runtime.dead_letters(
            principal_of(req), queue=asked.queue, limit=asked.limit + 1, after=after
        )
        shown, cursor = cursors.page(found, asked.limit, lambda letter: (letter.execution_id, letter.run_id))
        answer(resp, {"dead_letters": [_view(letter) for letter in shown], "next_cursor": cursor})

    async def on_get_one(self, req: Request, resp: Response, letter_id: str) -> None:
        no_query(req)
        answer(resp, _view(await self._runtime.dead_letter(principal_of(req), *_read(letter_id))))

    async def on_post_requeue(self, req: Request, resp: Response, letter_id: str) -> None:
        _, once = await body(req, models.Nothing, self._runtime.settings.max_body_bytes)
        execution_id, run_id = _read(letter_id)
        await self._runtime.requeue(principal_of(req), execution_id, run_id, once=once)
        answer(resp, {"execution_id": execution_id, "status": Status.RUNNING})


def _view(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": _id(letter),
        "execution_id": letter.execution_id,
        "node_id": letter.run_id,
        "workflow_id": letter.workflow_id,
        "queue_type": letter.queue,
        "attempts": letter.attempts,
        "error": letter.error,
        "error_class": letter.error_class,
        "failed_at": timestamp(letter.failed_at),
    }


_PREFIX = "dead_"


def _id(letter: DeadLetter) -> str:
    text = f"{letter.execution_id}\n{letter.run_id}".encode()
    return _PREFIX + base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _read(letter_id: str) -> tuple[str, str]:
    """(execution_id, run_id)"""
    try:
        encoded = letter_id.removeprefix(_PREFIX)
        text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
        execution_id, run_id = text.split("\n")
        if not text.replace("\n", "").isprintable():
            raise ValueError("no letter has such an id")
    except ValueError as error:
        raise NotFound(f"dead letter {letter_id}") from error
    return execution_id, run_id
