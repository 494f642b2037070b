"""Whether this process lives and can work, and its metrics."""

from __future__ import annotations

from typing import Annotated, Any, Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from pipeline.errors import TemporaryError
from pipeline.sideport import Checks, metrics, report
from pipeline.web.answers import ErrorAnswer
from pipeline.web.services import Services

SPOOLED: Final = "broker"
"""The check without which requests are accepted all the same: their messages go to the store until the broker is back."""


def checks_of(services: Services) -> Checks:
    """Give what a web process looks at to say whether it is ready."""

    def configuration() -> None:
        if not list(services.pipelines):
            raise TemporaryError("there is no pipeline")

    return Checks({"broker": services.check_broker, "store": services.store.ping, "configuration": configuration})


def health_routes(checks: Checks) -> APIRouter:
    """Give the routes for probes and Prometheus; none asks for a key, none shows a secret."""
    routes = APIRouter(tags=["health"], default_response_class=PlainTextResponse)
    refusals: dict[int | str, dict[str, Any]] = {
        422: {"model": ErrorAnswer, "description": "A parameter is not what is expected."},
        503: {"description": "Not ready; the text says what failed.", "content": {"text/plain": {}}},
    }

    threads = anyio.CapacityLimiter(2)  # of their own: requests that wait for the store must not hold up the probes

    @routes.get("/livez", summary="Whether the process answers")
    @routes.get("/healthz", summary="The same as /livez")
    async def livez() -> str:
        return "ok\n"

    @routes.get("/readyz", summary="Whether requests can be accepted now", responses=refusals)
    async def readyz(
        request: Request,
        verbose: Annotated[str | None, Query(description="Given with any value: name each check.")] = None,
        all_of_it: Annotated[
            str | None, Query(alias="all", description="Given with any value: not ready without the broker, either.")
        ] = None,
    ) -> Response:
        results = {} if not request.app.state.draining else {"draining": "this server is stopping"}
        results |= await anyio.to_thread.run_sync(checks.run, limiter=threads)
        failed = [name for name, trouble in results.items() if trouble]
        if failed == [SPOOLED] and all_of_it is None:
            return PlainTextResponse(f"ready; without the {SPOOLED}, messages are kept in the store\n")
        status, text = report(results)
        short = f"not ready: {', '.join(failed)}\n" if failed else "ready\n"
        return PlainTextResponse(short if verbose is None else text, status)

    @routes.get("/metrics", summary="Metrics for Prometheus")
    async def show_metrics() -> Response:
        text = await anyio.to_thread.run_sync(metrics, limiter=threads)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes
