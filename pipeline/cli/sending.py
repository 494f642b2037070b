"""`siftbell send`: posts a payload to a running server, as any other sender does."""

from __future__ import annotations

import json
import os
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import typer

from pipeline.cli.completing import PipelineArgument
from pipeline.cli.failures import Exit, Failure
from pipeline.cli.options import ConfigOption, DataOption, OutputOption, settings_for
from pipeline.cli.output import Output, clean, print_data, say
from pipeline.cli.trying import find_pipeline, read_payload, taking_payloads

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.spec.model import PipelineSpec

PATIENCE: Final = 30.0
"""Seconds to wait for the server."""
MOST_PROBLEMS: Final = 20
TAKES_ANY_JSON: Final = "http"
"""The plugin that FIELD=VALUE is meant for, where a pipeline has several producers."""
CODES: Final = {401: Exit.UNREACHABLE, 403: Exit.UNREACHABLE, 404: Exit.NOT_FOUND}


class Answer(NamedTuple):
    """What the server answered; `body` is None where it was not JSON."""

    status: int
    body: Any


def send(  # noqa: PLR0913 - a verb takes its options as arguments
    pipeline: PipelineArgument,
    fields: Annotated[list[str] | None, typer.Argument(metavar="FIELD=VALUE", help="A JSON object, field by field.")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The payload; - reads it from stdin.")] = None,
    producer: Annotated[str | None, typer.Option(help="Where the pipeline has several that take payloads.")] = None,
    content_type: Annotated[str, typer.Option(help="The payload's media type.")] = "application/json",
    url: Annotated[str | None, typer.Option(envvar="SIFTBELL_URL", help="The server; none: the one that runs here.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a payload to a running server and print the ids of its messages.

    The API key is read from SIFTBELL_API_KEY, or from the data directory of the server that runs here.
    """
    settings = settings_for(config, data)
    body = _payload(fields, file)
    label = producer or _producer(find_pipeline(pipeline, config), any_json=bool(fields))
    server, key = _server(settings, url)
    headers = {"content-type": content_type} | ({"authorization": f"Bearer {key}"} if key else {})
    answer = _post(server, f"/in/{quote(pipeline, safe='')}/{quote(label, safe='')}", body, headers)
    if answer.status != 202:
        raise _refused(answer, has_key=bool(key))
    if output is not Output.TABLE:
        print_data(answer.body, output)
        return
    ids = answer.body.get("ids", []) if isinstance(answer.body, dict) else []
    for message_id in ids:
        print(message_id)
    say(f"{len(ids)} message{'' if len(ids) == 1 else 's'} accepted")


def _producer(spec: PipelineSpec, *, any_json: bool) -> str:
    """Give the producer to send to where none is named: the only one, or the only one that takes any JSON object."""
    if any_json:
        open_ones = [step.label for step in spec.producers if step.plugin == TAKES_ANY_JSON]
        if len(open_ones) == 1:
            return open_ones[0]
    return taking_payloads(spec, None).label


def _payload(fields: list[str] | None, file: Path | None) -> bytes:
    if not fields:
        return read_payload(file)
    if file is not None:
        raise Failure("a payload comes from a file or from FIELD=VALUE, not from both", Exit.USAGE)
    found = {}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure("FIELD=VALUE is expected, such as title='disk full'", Exit.USAGE)
        if name in found:
            raise Failure(f"{name} is given twice", Exit.USAGE)
        found[name] = value
    return json.dumps(found, ensure_ascii=False).encode()


def _server(settings: Settings, url: str | None) -> tuple[str, str]:
    """Give the server's URL and the key; the data directory's key goes to no server but the one it was made by."""
    key = os.environ.get("SIFTBELL_API_KEY", "")
    own = _read(settings.data / "url") or f"http://{settings.host}:{settings.port}"
    if url is None or url.rstrip("/") == own.rstrip("/"):
        return own, key or _read(settings.data / "api-key")
    return url, key


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _post(server: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Post once; redirects are not followed, as they would carry the key elsewhere."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise Failure("--url: http://HOST:PORT or https://HOST is expected", Exit.USAGE)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        port = parts.port
        connection = kind(parts.hostname, port, timeout=PATIENCE)
    except ValueError:
        raise Failure("--url: the port is not a number up to 65535", Exit.USAGE) from None
    try:
        connection.request("POST", parts.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, _json(response.read()))
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Failure(f"{parts.scheme}://{parts.netloc} is not reachable: {reason}", Exit.UNREACHABLE) from error
    finally:
        connection.close()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _refused(answer: Answer, *, has_key: bool) -> Failure:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    error = error if isinstance(error, dict) else {}
    lines = [f"the server refused it ({answer.status}): {clean(str(error.get('message', 'it does not say why')))}"]
    problems = [problem for problem in error.get("problems", []) if isinstance(problem, dict)]
    lines += [
        clean(f"  {problem.get('where') or 'the body'}: {problem.get('message', '')}") for problem in problems[:MOST_PROBLEMS]
    ]
    if answer.status == 401 and not has_key:
        lines.append("  a key is read from SIFTBELL_API_KEY: make one with `siftbell keys create NAME`")
    code = Exit.UNREACHABLE if answer.status >= 500 else CODES.get(answer.status, Exit.FAILED)
    return Failure("\n".join(lines), code)
