"""The intake's web server answering 202 and doing nothing: `python -m benchmarks.yardsticks.bare_web PORT`.

Starlette with one route that reads the body, on the server that Siftbell runs with its settings: the most that the same
processor, server and framework can do.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.web.listening import listen
from pipeline.web.server import serve


async def take(request: Request) -> Response:
    """Read the body, and say that it was accepted."""
    await request.body()
    return Response(status_code=202)


if __name__ == "__main__":
    app = Starlette(routes=[Route("/in/{pipeline}/{producer}", take, methods=["POST"])])
    serve(cast("Any", app), listen("127.0.0.1", int(sys.argv[1])))
