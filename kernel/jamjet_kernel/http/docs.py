"""The page for people: Swagger UI over the OpenAPI document, from files of an installed package.

Nothing is fetched from elsewhere; the content security policy sees to that.
"""

from __future__ import annotations

import functools
from pathlib import Path

import falcon
from falcon.asgi import Request, Response
from openapi_ui_bundles import swagger_ui

from .answers import send_unless_known
from .requests import no_query

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>JamJet Runtime: REST API</title>
  <link rel="icon" href="docs/favicon-32x32.png">
  <link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <noscript>This page needs JavaScript; the document itself is <a href="openapi.json">openapi.json</a>.</noscript>
  <script src="docs/swagger-ui-bundle.js"></script>
  <script src="docs/start.js"></script>
</body>
</html>
"""

# Without `validatorUrl: null` the page would show the document to validator.swagger.io.
_START = """window.ui = SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
"""

_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

_MEDIA_TYPES = {
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


class Docs:
    async def on_get(self, req: Request, resp: Response) -> None:
        no_query(req)
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", _POLICY)
        _send(req, resp, _PAGE.encode())

    async def on_get_asset(self, req: Request, resp: Response, asset: str) -> None:
        no_query(req)
        if asset not in _MEDIA_TYPES:
            raise falcon.HTTPRouteNotFound
        resp.content_type = _MEDIA_TYPES[asset]
        _send(req, resp, _file(asset))


@functools.cache
def _file(asset: str) -> bytes:
    if asset == "start.js":
        return _START.encode()
    return Path(swagger_ui.static_path, asset).read_bytes()


def _send(req: Request, resp: Response, content: bytes) -> None:
    resp.set_header("X-Content-Type-Options", "nosniff")
    send_unless_known(req, resp, content)
