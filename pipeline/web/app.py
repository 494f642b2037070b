"""The web application: intake, API and health in one ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.errors import ConfigError, TemporaryError
from pipeline.keys import KeyCheck
from pipeline.web.access import Access
from pipeline.web.answers import Edge, Refusal, answer_away, answer_http, answer_invalid, answer_refusal
from pipeline.web.api import api_routes
from pipeline.web.callbacks import add_callbacks
from pipeline.web.health import checks_of, health_routes
from pipeline.web.intake import PREFIX, Intake
from pipeline.web.openapi import describe_with_intake
from pipeline.web.services import Services


class WebApp(FastAPI):
    """The framework's application, and beside it the intake: the framework's layers would cost it as much as all it does."""

    intake: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self.intake(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(services: Services) -> FastAPI:
    """Put the web application together.

    When it stops, it closes the publisher (what was handed in is published first) and the plugins. While
    `app.state.draining` is true /readyz answers 503 and everything else goes on.
    """
    access = Access(KeyCheck(services.store))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(services.publisher.close)
        await asyncio.to_thread(services.pipelines.close)
        access.close()

    app = WebApp(
        title="Siftbell",
        description="Messages in by the intake; what became of them out by the API.",
        version=version("siftbell"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={
            Refusal: answer_refusal,
            TemporaryError: answer_away,
            ConfigError: answer_away,
            HTTPException: answer_http,
            RequestValidationError: answer_invalid,
        },
    )
    app.state.draining = False
    app.state.checks = checks_of(services)
    app.add_middleware(Edge)
    app.intake = Intake(services, access)
    app.include_router(health_routes(app.state.checks))
    app.include_router(api_routes(services, access))
    add_callbacks(app, services)

    @app.get("/", include_in_schema=False)
    async def root() -> dict[str, str]:
        return {
            "name": "siftbell",
            "version": app.version,
            "openapi": "/openapi.json",
            "api": "/api/v1/pipelines",
            "ready": "/readyz",
        }

    describe_with_intake(app)
    return app
