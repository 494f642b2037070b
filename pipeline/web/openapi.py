"""The OpenAPI document: the API as FastAPI knows it, and the intake, whose bodies are the producers' business."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_REFUSALS: Final = {
    "400": "The body cannot be read: not JSON, not UTF-8, NUL, NaN, too deep nesting.",
    "401": "No API key, or one that is not known.",
    "403": "The key has expired or lacks the scope `intake`.",
    "404": "There is no such pipeline, or no such producer that takes requests.",
    "408": "The body did not arrive in time.",
    "413": "The body, the number of its messages or a single message is too large.",
    "415": "A content type or encoding that this producer does not read.",
    "422": "Readable, but not what the producer expects; each wrong place is named.",
    "503": "Neither the queue nor the store takes messages now; come again after `Retry-After` seconds.",
}
_SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"header": []}, {"basic": []}]


def describe_with_intake(app: FastAPI) -> None:
    """Make `app.openapi` give the document with the intake in it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document["paths"]["/in/{pipeline}/{producer}"] = {"post": _intake()}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents replacing it


def _intake() -> dict[str, Any]:
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}}
    return {
        "tags": ["intake"],
        "summary": "Post messages",
        "description": "What the body has to be is the producer's business, as is what it takes at paths below this one and how "
        "it answers there; `gzip` is understood as content encoding. "
        "A producer that checks a signature needs no API key.",
        "operationId": "intake",
        "security": _SECURITY,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("pipeline", "producer")
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}}},
        "responses": {
            "202": {
                "description": "All messages are accepted: they will reach every consumer or lie in the dead letters.",
                "content": {"application/json": {"schema": _ACCEPTED}},
            },
            **{status: {"description": text, **error} for status, text in _REFUSALS.items()},
        },
    }


_ACCEPTED: Final = {
    "type": "object",
    "required": ["ids", "count"],
    "properties": {
        "ids": {"type": "array", "items": {"type": "string"}, "description": "The messages' ids, in the order of the body."},
        "count": {"type": "integer"},
    },
}
