"""How errors are answered."""

from __future__ import annotations

import logging

import pytest
from http_support import Client

from jamjet_kernel import errors as kernel
from jamjet_kernel.http.errors import STATUSES
from jamjet_kernel.runtime import Runtime


async def test_an_unknown_path_is_not_found_in_our_own_words(client: Client) -> None:
    answer = await client.get("/nope")

    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert "/nope" in answer.json["error"]


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "TRACE"])
async def test_an_unknown_method_is_answered_with_those_that_are_known(client: Client, method: str) -> None:
    answer = await client.request(method, "/executions")

    assert (answer.status_code, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"


async def test_options_tell_what_is_possible(client: Client) -> None:
    answer = await client.request("OPTIONS", "/executions/exec_1/cancel")

    assert (answer.status_code, answer.headers["allow"]) == (200, "POST")


async def test_head_answers_as_get_does_without_the_body(client: Client) -> None:
    got = await client.get("/health")

    head = await client.request("HEAD", "/health")

    assert (head.status_code, head.text) == (200, "")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("path", ["/executions/a\0b", "/executions/\ufffd", "/executions/" + "x" * 5000])
async def test_an_id_that_cannot_be_one_is_not_found(client: Client, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404


async def test_a_defect_is_logged_and_its_words_stay_here(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(principal: object) -> list[object]:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(runtime, "workers", broken)

    with caplog.at_level(logging.ERROR, "jamjet.http"):
        answer = await client.get("/workers", X_Request_ID="req-7")

    assert answer.status_code == 500
    assert answer.json["error"] == "internal error: see the log for request req-7"
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text
    assert vars(caplog.records[0])["request_id"] == "req-7"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (kernel.Unauthenticated(), 401, "invalid or expired token"),
        (
            kernel.Forbidden("insufficient role — developer or operator required"),
            403,
            "insufficient role — developer or operator required",
        ),
        (kernel.StorageError("the disk is full"), 503, "unavailable: the disk is full"),
        (kernel.LeaseLost(), 409, "conflict: The work belongs to another worker by now."),
        (kernel.JamJetError("odd"), 500, "internal error: odd"),
    ],
)
async def test_an_error_of_ours_has_its_status(
    client: Client,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    error: kernel.JamJetError,
    status: int,
    message: str,
) -> None:
    async def broken(principal: object) -> list[object]:
        raise error

    monkeypatch.setattr(runtime, "workers", broken)
    client.document = {}

    answer = await client.get("/workers")

    assert (answer.status_code, answer.json["error"], answer.json["code"]) == (status, message, error.code)


@pytest.mark.parametrize(("level", "is_traced"), [(logging.INFO, False), (logging.DEBUG, True)])
async def test_a_storage_that_refuses_is_a_line_of_the_log(
    client: Client,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    level: int,
    is_traced: bool,
) -> None:
    async def broken(principal: object) -> list[object]:
        raise kernel.StorageError("the disk is full")

    monkeypatch.setattr(runtime, "workers", broken)
    with caplog.at_level(level, "jamjet.http"):
        await client.get("/workers")

    (line,) = caplog.records
    assert line.getMessage() == "GET /workers: the disk is full"
    assert bool(line.exc_info) is is_traced


def test_every_error_has_a_status() -> None:
    for error in vars(kernel).values():
        if isinstance(error, type) and issubclass(error, kernel.JamJetError):
            assert any(kind in STATUSES for kind in error.__mro__)
