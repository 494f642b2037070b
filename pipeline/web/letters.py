"""The API's dead letters: found, grouped, edited, redriven and dropped, a bounded number for each request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request

from pipeline.engine.editing import read_value
from pipeline.engine.redrive import Redrive, drop, until_now
from pipeline.errors import Problem, RequestError
from pipeline.store import DeadLetter, Store
from pipeline.store.selection import LetterGroup, Moved, Refused, Selection
from pipeline.units import Rate, parse_moment, parse_rate
from pipeline.web.answers import ErrorAnswer, Refusal
from pipeline.web.letter_models import (
    MOST_REFUSED,
    DeadLetterModel,
    DeadLettersModel,
    EditModel,
    FullDeadLetterModel,
    GroupModel,
    GroupsModel,
    MovedModel,
    RedriveModel,
    RefusedModel,
    SelectionModel,
)
from pipeline.web.services import Services

log = structlog.get_logger()

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorAnswer, "description": "There is none."}}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": ErrorAnswer, "description": "It is not, or no longer, as it was read: read it again."}
}


def filters(
    pipeline: Annotated[str | None, Query(description="Only this pipeline's.")] = None,
    step: Annotated[str | None, Query(description="Only those given up at this consumer or filter.")] = None,
    error: Annotated[str | None, Query(description="Only those with this in their error, in whatever case.")] = None,
    group: Annotated[str | None, Query(description="Only those of this group.")] = None,
    since: Annotated[str | None, Query(description="Only those given up since: ISO 8601, or `2h` for so long ago.")] = None,
    until: Annotated[str | None, Query(description="Only those given up before.")] = None,
) -> Selection:
    """Read the selection that a query describes."""
    return _selection(SelectionModel(pipeline=pipeline, step=step, error=error, group=group, since=since, until=until))


def letter_routes(services: Services) -> APIRouter:
    """Give the routes under /dead-letters; whoever includes them guards them."""
    routes = APIRouter(prefix="/dead-letters")
    _read_many(routes, services.store)
    _move(routes, services)
    _read_one(routes, services.store)
    return routes


def _read_many(routes: APIRouter, store: Store) -> None:
    @routes.get("", summary="Messages that were given up, the newest first")
    def dead_letters(
        request: Request,
        selection: Annotated[Selection, Depends(filters)],
        before: Annotated[str | None, Query(description="The `place` of the last one of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DeadLettersModel:
        try:
            found = store.dead_letters(selection, before=before, limit=limit)
        except ValueError as error:
            raise _wrong("before", error) from None
        following = None
        if len(found) == limit:
            following = f"{request.scope['path']}?{urlencode({**request.query_params, 'before': found[-1].place})}"
        return DeadLettersModel(dead_letters=[DeadLetterModel(**_dead(letter)) for letter in found], next=following)

    @routes.get("/groups", summary="Dead letters grouped by pipeline, step and kind of error")
    def groups(
        selection: Annotated[Selection, Depends(filters)], limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> GroupsModel:
        found, total = store.letter_groups(selection, limit=limit)
        return GroupsModel(groups=[_group(group) for group in found], total=total)


def _move(routes: APIRouter, services: Services) -> None:
    store = services.store

    @routes.post("/redrive", summary="Have messages tried again at the step that gave them up")
    def redrive(wanted: RedriveModel) -> MovedModel:
        rate = _rate(wanted.rate)
        work = Redrive(services.pipelines, store, rate=rate, start=_zoned(wanted.start))
        selection = _pinned(wanted)
        moved = _together(work.run(selection, limit=wanted.limit, after=wanted.after, dry=wanted.dry_run))
        if not wanted.dry_run:
            log.info("redriven by the API", messages=sum(moved.left.values()), refused=len(moved.refused))
        return _moved(store, wanted, selection, moved, start=work.due if rate else None)

    @routes.post("/drop", summary="Delete messages from the dead letters for good")
    def drop_letters(wanted: SelectionModel) -> MovedModel:
        selection = _pinned(wanted)
        moved = _together(drop(store, selection, limit=wanted.limit, after=wanted.after))
        log.info("dropped by the API", messages=sum(moved.left.values()))
        return _moved(store, wanted, selection, moved)


def _read_one(routes: APIRouter, store: Store) -> None:
    @routes.get("/{message_id}", summary="A message that was given up, once per step", responses=_NOT_FOUND)
    def dead_letter(message_id: Annotated[str, Path(max_length=64)]) -> list[FullDeadLetterModel]:
        found = store.dead_letter(message_id)
        if not found:
            raise Refusal(404, f"message '{message_id}' is not among the dead letters")
        return [_full(letter) for letter in found]

    @routes.put("/{message_id}", summary="Change a message before it is redriven", responses=_NOT_FOUND | _CONFLICT)
    def edit(
        edited: EditModel,
        message_id: Annotated[str, Path(max_length=64)],
        pipeline: Annotated[str | None, Query(description="Needed where several gave it up.")] = None,
        step: Annotated[str | None, Query(description="Needed where several gave it up.")] = None,
    ) -> FullDeadLetterModel:
        return _edit(store, _one(store, message_id, pipeline, step), edited)


def _one(store: Store, message_id: str, pipeline: str | None, step: str | None) -> DeadLetter:
    found = [
        letter for letter in store.dead_letter(message_id) if pipeline in (None, letter.pipeline) and step in (None, letter.step)
    ]
    if not found:
        raise Refusal(404, f"message '{message_id}' is not among the dead letters there")
    if len(found) > 1:
        raise Refusal(409, f"message '{message_id}' was given up by several steps: name one by `pipeline` and `step`")
    return found[0]


def _edit(store: Store, letter: DeadLetter, edited: EditModel) -> FullDeadLetterModel:
    changed = Refusal(409, "the letter has changed since it was read: read it again")
    if edited.version != letter.version:
        raise changed
    try:
        message = read_value(letter.message, edited.message)
    except RequestError as error:
        problems = [Problem(f"message.{one.where}".rstrip("."), one.text) for one in error.problems]
        raise Refusal(422, str(error), problems=problems) from None
    if message == letter.message:
        return _full(letter)
    if not store.edit_letter(letter, message, datetime.now(UTC)):
        raise changed
    return _full(_one(store, message.id, letter.pipeline, letter.step))


def _selection(wanted: SelectionModel) -> Selection:
    now = datetime.now(UTC)
    return Selection(
        pipeline=wanted.pipeline,
        step=wanted.step,
        error=wanted.error,
        group=wanted.group,
        since=_moment("since", wanted.since, now),
        until=_moment("until", wanted.until, now),
        ids=tuple(wanted.ids),
    )


def _pinned(wanted: SelectionModel) -> Selection:
    """Give the selection of what is to move: never of everything by oversight, nor of what is given up from now on."""
    selection = _selection(wanted)
    if not selection and not wanted.all:
        text = "say which, or that you mean `all`"
        raise Refusal(422, text, problems=[Problem("all", text)])
    return until_now(selection, datetime.now(UTC))


def _together(goes: Iterable[Moved]) -> Moved:
    """Add up what one request moved."""
    left: Counter[tuple[str, str]] = Counter()
    refused: list[Refused] = []
    last = None
    try:
        for moved in goes:
            left.update(moved.left)
            refused += moved.refused
            last = moved.last
    except ValueError as error:
        raise _wrong("after", error) from None
    return Moved(left=dict(left), refused=tuple(refused), last=last)


def _moved(
    store: Store, wanted: SelectionModel, selection: Selection, moved: Moved, *, start: datetime | None = None
) -> MovedModel:
    remaining = store.count_letters(selection, after=moved.last) if moved.last else 0
    following = None
    if remaining:
        bounds = {name: bound.isoformat() for name in ("since", "until") if (bound := getattr(selection, name))}
        first = {"start": start.isoformat()} if start else {}
        following = wanted.model_dump(mode="json", exclude_defaults=True) | bounds | {"after": moved.last} | first
    return MovedModel(
        moved=sum(moved.left.values()),
        refused=len(moved.refused),
        reasons=[
            RefusedModel(message_id=one.message_id, pipeline=one.pipeline, step=one.step, reason=one.reason)
            for one in moved.refused[:MOST_REFUSED]
        ],
        remaining=remaining,
        next=following,
    )


def _moment(name: str, text: str | None, now: datetime) -> datetime | None:
    try:
        return None if text is None else parse_moment(text, now)
    except ValueError as error:
        raise _wrong(name, error) from None


def _rate(text: str | None) -> Rate | None:
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        raise _wrong("rate", error) from None


def _zoned(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _wrong(name: str, error: ValueError) -> Refusal:
    return Refusal(422, str(error), problems=[Problem(name, str(error))])


def _dead(letter: DeadLetter) -> dict[str, Any]:
    return {
        "message_id": letter.message.id,
        "pipeline": letter.pipeline,
        "step": letter.step,
        "error": letter.error,
        "attempts": letter.attempts,
        "at": letter.at,
        "edited": letter.edited,
        "title": letter.message.title,
        "place": letter.place,
    }


def _full(letter: DeadLetter) -> FullDeadLetterModel:
    return FullDeadLetterModel(
        **_dead(letter), traceback=letter.traceback, version=letter.version, message=letter.message.plain()
    )


def _group(group: LetterGroup) -> GroupModel:
    return GroupModel(
        group=group.id,
        pipeline=group.pipeline,
        step=group.step,
        count=group.count,
        first=group.first,
        last=group.last,
        error=group.error,
        example=group.example,
    )
