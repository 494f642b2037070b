"""An intake that puts each alert on the queue as a chain of four tasks: `uvicorn benchmarks.yardsticks.chain_web:app`.

As Starlette's and Celery's documentation have it: what blocks is called in Starlette's thread pool, and Celery keeps its
pool of connections to the broker.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.yardsticks.chain import steps


async def take(request: Request) -> JSONResponse:
    """Answer once the broker has the alert."""
    message = await request.json()
    queued = await run_in_threadpool(steps(message).apply_async)
    return JSONResponse({"id": queued.id}, 202)


app = Starlette(routes=[Route("/", take, methods=["POST"])])
