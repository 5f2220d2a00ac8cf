"""The page to read about and try the API: Swagger UI, served from here, so it works offline.

The page's script and style sheet come with the package ``fastapi-offline``, of which only these
two files are used. The page runs under a Content-Security-Policy that lets it load and call
nothing but this service.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["POLICY", "routes"]

#: Inline styles are Swagger UI's own (swagger-api/swagger-ui#10655), as are images in data URLs
#: (#7540). Scripts are files of this service only.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

# Every address is relative, so the page also works under a proxy's path.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Poolgrad</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# Swagger UI writes each number of an array on a line of its own; `text` keeps what is short on one.
_START: Final = """function text(value, indent = "") {
  const line = JSON.stringify(value);
  if (line === undefined || line.length + indent.length <= 88 || !(value instanceof Object)) {
    return line;
  }
  const inner = indent + "  ";
  const items = Array.isArray(value)
    ? value.map((item) => text(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${text(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  return `${open}\\n${inner}${items.join(`,\\n${inner}`)}\\n${indent}${close}`;
}

function shorter(children) {
  try {
    return text(JSON.parse(children));
  } catch {
    return children; // not JSON
  }
}

const Compact = () => ({
  afterLoad() {
    const sample = this.fn.getSampleSchema; // the text of each example
    if (sample) {
      this.fn.getSampleSchema = (...given) => shorter(sample(...given));
    }
  },
  wrapComponents: {
    // the text of each reply
    HighlightCode: (Original, { React }) => ({ children, ...others }) =>
      React.createElement(Original, others, shorter(children)),
  },
});

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  plugins: [Compact],
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


@cache
def _asset(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()


async def _page(request: Request) -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})


async def _start(request: Request) -> Response:
    return Response(_START, media_type="text/javascript")


async def _file(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    content = _asset(name)
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return Response(content, media_type=kind, headers=headers)


def routes() -> list[Route]:
    """Return the routes of the page and its files."""
    return [
        Route("/docs", _page, methods=["GET"]),
        Route("/docs/start.js", _start, methods=["GET"]),
        Route("/docs/swagger-ui.css", _file, methods=["GET"]),
        Route("/docs/swagger-ui-bundle.js", _file, methods=["GET"]),
    ]
