"""GET /docs"""

from __future__ import annotations

import re

import pytest
from http_support import Client


async def test_the_page_and_all_it_needs_come_from_here(client: Client) -> None:
    page = await client.get("/docs")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert links
    for link in links:
        assert (await client.get(f"/{link}")).status_code == 200


@pytest.mark.parametrize(
    ("asset", "content_type"),
    [
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("start.js", "text/javascript; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
async def test_a_part_of_the_page_has_its_type_and_is_kept(client: Client, asset: str, content_type: str) -> None:
    first = await client.get(f"/docs/{asset}")
    again = await client.get(f"/docs/{asset}", If_None_Match=first.headers["etag"])

    assert first.headers["content-type"] == content_type
    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


@pytest.mark.parametrize("asset", ["index.html", "..%2f__init__.py", "swagger-ui.css.map"])
async def test_nothing_else_is_served(client: Client, asset: str) -> None:
    assert (await client.get(f"/docs/{asset}")).status_code == 404
