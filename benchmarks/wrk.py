"""Requests from many clients in a closed loop, by wrk: each client sends its next one as soon as the last was answered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harness.servers import program

CLIENTS: Final = 64
NUMBER: Final = "<number>"
"""Stands in a template where each alert's own number is to come, with nine digits."""
_MODEL: Final = 999_999_999
_LUA: Final = """\
local head = {head}
local parts = {parts}
local many = {many}
local number = {first}

local function one()
  number = number + 1
  return table.concat(parts, string.format("%09d", number))
end

function request()
  if many == 0 then
    return head .. one()
  end
  local all = {{}}
  for index = 1, many do
    all[index] = one()
  end
  return head .. "[" .. table.concat(all, ",") .. "]"
end

function done(summary, latency)
  io.stderr:write(string.format(
    '{{"requests": %d, "microseconds": %d, "refused": %d, "broken": %d, "p50": %d, "p99": %d}}',
    summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load."""

    accepted: int
    """Requests answered with a status below 400."""
    refused: int
    """Requests answered with another."""
    broken: int
    """Connections that could not be made, or broke. An answer that comes late counts as one."""
    seconds: float
    p50: float
    """Seconds until the answer, of the median request."""
    p99: float

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return self.accepted / self.seconds

    def whole(self) -> Load:
        """Give itself; raises ValueError where a request was refused or broke off: its figures would be of something else."""
        if self.refused or self.broken or not self.accepted:
            raise ValueError(f"{self.accepted} requests were accepted, {self.refused} refused, {self.broken} broke off")
        return self


def template(make: Callable[[int], Any]) -> str:
    """Give the JSON of what `make` makes for a number, with `NUMBER` in place of the number, decimal or in 16 hex digits."""
    text = json.dumps(make(_MODEL), separators=(",", ":"))
    return text.replace(f"{_MODEL:016x}", f"{'0' * 7}{NUMBER}").replace(str(_MODEL), NUMBER)


def drive(
    place: Path,
    url: str,
    body: str,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    many: int = 0,
    first: int = 0,
    clients: int = CLIENTS,
) -> Load:
    """Post `body`, a template, from all clients for so many seconds, and give what came of it; every request has a new number.

    With `many` each request is an array of so many. Numbers begin behind `first`. The script is written to `place`.
    """
    script = place / "load.lua"
    script.write_text(_script(url, body, headers or {}, many, first))
    command = [program("wrk", "wrk"), "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    told = json.loads(ran.stderr.splitlines()[-1])
    return Load(
        accepted=told["requests"] - told["refused"],
        refused=told["refused"],
        broken=told["broken"],
        seconds=told["microseconds"] / 1e6,
        p50=told["p50"] / 1e6,
        p99=told["p99"] / 1e6,
    )


def _script(url: str, body: str, headers: Mapping[str, str], many: int, first: int) -> str:
    target = urlsplit(url)
    size = len(body.replace(NUMBER, "0" * 9).encode())
    length = size * many + many + 1 if many else size
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {length}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    parts = ", ".join(_lua(part) for part in body.split(NUMBER))
    return _LUA.format(head=_lua("\r\n".join(lines)), parts=f"{{ {parts} }}", many=many, first=first)


def _lua(text: str) -> str:
    """Write a text as a string of Lua."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n") + '"'
