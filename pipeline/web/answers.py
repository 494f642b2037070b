"""The one shape of every error that the web edge answers, and the headers that stand on all answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import Problem, TemporaryError

log = structlog.get_logger()

CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "unprocessable",
    431: "head_too_large",
    500: "internal",
    503: "unavailable",
}
"""A stable word for each status; any other 4xx is `refused`."""
MOST_PROBLEMS: Final = 100
"""Problems named in one answer; the message says how many there are."""
RETRY_AFTER: Final = 5
"""Seconds after which a sender is asked to come again where nothing better is known."""


ON_ALL: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""The headers of every answer."""


class ProblemModel(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="A path into the body such as `[3].title`, or the name of a header or parameter.")
    message: str = Field(description="What is wrong there.")


class ErrorModel(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="A stable word for the status.", examples=sorted(CODES.values()))
    message: str = Field(description="What is wrong, for a person.")
    problems: list[ProblemModel] = Field(description="Each wrong place, where they are known.")


class ErrorAnswer(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: ErrorModel


class Refusal(Exception):  # noqa: N818 - a request is refused: that is an answer, not an error of ours
    """Ends a request with this status and text; `answer` is the body where the sender's protocol has another than ours."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        answer: Any = None,
    ) -> None:
        super().__init__(text)
        self.answer = answer
        self.status = status
        self.problems = problems
        self.headers = headers or {}


def json_response(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a value as JSON; characters that UTF-8 cannot hold are escaped."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(body, status, dict(headers or {}), media_type="application/json")


async def send_json(send: Send, status: int, body: bytes) -> None:
    """Answer what is JSON already, without a framework's objects and outside of `Edge`."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *ON_ALL]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_response(
    status: int, text: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """Answer an error in the one shape."""
    if len(problems) > MOST_PROBLEMS:
        text = f"{text} (the first {MOST_PROBLEMS} of {len(problems)} problems)"
    found = [{"where": problem.where, "message": problem.text} for problem in problems[:MOST_PROBLEMS]]
    error = {"code": CODES.get(status, "refused"), "message": text, "problems": found}
    return json_response(status, {"error": error}, headers)


def unavailable(error: TemporaryError) -> Refusal:
    """Make of a temporary error what the sender is told: come again, and when."""
    wait = math.ceil(error.retry_after) if error.retry_after is not None else RETRY_AFTER
    return Refusal(503, str(error), headers={"Retry-After": str(max(wait, 1))})


async def answer_refusal(_request: Request, refusal: Exception) -> Response:
    """Answer a `Refusal`."""
    assert isinstance(refusal, Refusal)
    return error_response(refusal.status, str(refusal), refusal.problems, refusal.headers)


async def answer_away(request: Request, error: Exception) -> Response:
    """Answer that the store cannot be used now: it is away, or lacks its tables."""
    again = error if isinstance(error, TemporaryError) else TemporaryError(str(error))
    return await answer_refusal(request, unavailable(again))


async def answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework itself refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    texts = {404: f"there is nothing at {request.scope['path']}", 405: f"{request.method} is not possible here"}
    return error_response(error.status_code, texts.get(error.status_code, error.detail), headers=error.headers)


async def answer_invalid(_request: Request, error: Exception) -> Response:
    """Answer parameters that are not what the API expects; their values are not repeated."""
    assert isinstance(error, RequestValidationError)
    problems = [Problem(".".join(str(part) for part in found["loc"][1:]), found["msg"]) for found in error.errors()]
    return error_response(422, "the request is not what is expected here", problems)


class Edge:
    """The outermost layer: headers on every answer, and an answer for whatever went wrong."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *ON_ALL]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request failed", path=scope["path"])
            if started:
                raise
            await error_response(500, "something went wrong here; the log says what")(scope, receive, send_with_headers)
