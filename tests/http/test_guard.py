"""What every request passes."""

from __future__ import annotations

import pytest
from falcon.testing import ASGIConductor
from http_support import Client

from jamjet_kernel.http import create_app
from jamjet_kernel.runtime import Runtime
from jamjet_kernel.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"public_url": "https://agents.example.com"})


@pytest.mark.parametrize("request_id", ["req-7", "a" * 128, "4b825dc6-42cb-6eb9-a060-e54bf8d69288"])
async def test_a_sane_request_id_is_kept(client: Client, request_id: str) -> None:
    answer = await client.get("/health", X_Request_ID=request_id)

    assert answer.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "<script>", "a" * 129, "é"])
async def test_a_request_id_that_is_not_sane_is_replaced(client: Client, request_id: str) -> None:
    answer = await client.get("/health", X_Request_ID=request_id)

    assert answer.headers["x-request-id"] not in ("", request_id)


async def test_two_requests_have_two_ids(client: Client) -> None:
    ids = {(await client.get("/health")).headers["x-request-id"] for _ in range(3)}

    assert len(ids) == 3


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7700", "127.0.0.1:7700", "[::1]:7700", "LOCALHOST", "agents.example.com"]
)
async def test_a_server_on_loopback_answers_to_its_own_names(client: Client, host: str) -> None:
    assert (await client.get("/health", Host=host)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.1", "[::1", "", "a@b:c"])
async def test_a_server_on_loopback_answers_to_no_other_name(client: Client, host: str) -> None:
    """A page whose host name begins to point at this machine (DNS rebinding) is refused."""
    answer = await client.get("/health", Host=host)

    assert (answer.status_code, answer.json["code"]) == (421, "misdirected_request")


async def test_a_server_for_others_answers_to_any_name(runtime: Runtime, settings: Settings) -> None:
    runtime.settings = settings.model_copy(update={"bind": "0.0.0.0"})

    async with ASGIConductor(create_app(runtime)) as conductor:
        answer = await conductor.simulate_get("/health", host="runtime.internal")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_a_page_of_another_site_may_not_write(client: Client, headers: dict[str, str]) -> None:
    answer = await client.post("/executions", {"workflow_id": "a"}, **headers)

    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:7700"},
        {"Origin": "https://agents.example.com"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ],
)
async def test_a_program_and_our_own_page_may_write(client: Client, headers: dict[str, str]) -> None:
    answer = await client.post("/executions", {"workflow_id": "a"}, **headers)

    assert answer.status_code == 404
