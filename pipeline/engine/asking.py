"""Asks the targets of steps whether they answer and take the credential, by their plugins' `probe`: nothing is sent."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pipeline.engine.loop import run_on_loop
from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.plugin import Plugin
from pipeline.secrecy import masker, secrets_in
from pipeline.spec.model import PipelineSpec, Step
from pipeline.text import shorten

AT_ONCE: Final = 20
CLOSING: Final = 5.0
"""Seconds that a plugin has for being closed."""

_MAY_PASS: Final = {"consumer": "its messages would wait and be tried again", "producer": "it would be asked again"}
_REFUSED: Final = {"consumer": "its messages would go to the dead letters"}
"""What an error would mean for messages, by the kind of the step."""
_LONGEST: Final = 200
_LONGEST_ERROR: Final = 400

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A step whose plugin has something to ask, and how often it stands in pipelines: a shared one is asked once."""

    pipeline: str
    step: Step
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What a target said. `error` is empty where all is well; `text` is then what answered, or empty where nothing was asked."""

    target: Target
    text: str = ""
    error: str = ""
    hint: str = ""


def targets(specs: Iterable[PipelineSpec]) -> list[Target]:
    """Give the steps whose plugins have a question, in the order of the configuration; a shared one where it is used first."""
    found: dict[tuple[str, ...], Target] = {}
    for spec in specs:
        for step in (*spec.producers, *spec.filters, *spec.consumers):
            if step.type.probe is Plugin.probe:
                continue
            place = (step.kind, step.shared) if step.shared else (step.kind, spec.name, step.label)
            known = found.get(place)
            found[place] = Target(known.pipeline, known.step, known.uses + 1) if known else Target(spec.name, step)
    return list(found.values())


def ask(asked: Sequence[Target], within: float) -> list[Finding]:
    """Ask targets, several at once, each for so many seconds at most; give what each said, in their order."""
    return run_on_loop(_all(asked, within))


async def _all(asked: Sequence[Target], within: float) -> list[Finding]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> Finding:
        async with places:
            return await _finding(target, within)

    return await asyncio.gather(*map(one, asked))


async def _finding(target: Target, within: float) -> Finding:
    mask = masker(secrets_in(target.step.config))

    def line(text: str, most: int = _LONGEST_ERROR) -> str:
        return shorten(" ".join(mask(text).split()), most)

    def failed(error: Exception, hints: Mapping[str, str] = {}) -> Finding:
        return Finding(target, error=line(str(error)) or type(error).__name__, hint=hints.get(target.step.kind, ""))

    try:
        text = await _said(target.step, within)
    except TimeoutError:
        return failed(TimeoutError(f"no answer within {within:g} s"), _MAY_PASS)
    except TemporaryError as error:
        return failed(error, _MAY_PASS)
    except PermanentError as error:
        return failed(error, _REFUSED)
    except ConfigError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises is told of its own step
        return Finding(target, error=line(f"its probe failed, which is a bug: {type(error).__name__}: {error}"))
    return Finding(target, text=line(text or "", _LONGEST))


async def _said(step: Step, within: float) -> str | None:
    plugin = step.build()
    try:
        async with asyncio.timeout(within):
            await _in_thread(plugin.open)
            if inspect.iscoroutinefunction(plugin.probe):
                said: str | None = await plugin.probe()
            else:
                called: Any = await _in_thread(plugin.probe)
                said = await called if inspect.isawaitable(called) else called
            return said
    finally:
        with suppress(Exception):  # what it said counts; how it ends is shown by a worker
            async with asyncio.timeout(CLOSING):
                await _closed(plugin)


async def _closed(plugin: Plugin[Any]) -> None:
    try:
        if (aclose := getattr(plugin, "aclose", None)) is not None:
            await aclose()
    finally:
        await _in_thread(plugin.close)


async def _in_thread(work: Callable[[], T]) -> T:
    """Call what may block in a thread that the process's end does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, Exception | None]] = loop.create_future()

    def call() -> None:
        try:
            outcome: tuple[T | None, Exception | None] = work(), None
        except BaseException as error:  # noqa: BLE001 - SystemExit in a plugin ends its thread, and nothing else
            outcome = None, error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        loop.call_soon_threadsafe(_give, done, outcome)

    threading.Thread(target=call, name="asking", daemon=True).start()
    result, error = await done
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # it is T where there was no error


def _give(done: asyncio.Future[T], outcome: T) -> None:
    """Give a result to who waits for it, unless nobody does any more."""
    if not done.done():
        done.set_result(outcome)
