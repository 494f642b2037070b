"""Makes messages of GitHub's events, by the tables beside this module; an event that is in none of them is told plainly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pipeline import Message, derived_id, foreign_id, parse_time, shorten
from producers.github import administration, alerts, conversations, runs
from producers.github.event import Event, is_over, severity_of
from producers.github.reading import Payload, prose

EVENTS: Final[Mapping[str, Event]] = {
    **conversations.EVENTS,
    **runs.EVENTS,
    **alerts.EVENTS,
    **administration.EVENTS,
}
"""What is known of events, by name."""
_BRACES: Final = re.compile("[{}]")
_TITLE: Final = 300
_TEXT: Final = 20_000
_TIMES: Final = ("updated_at", "completed_at", "submitted_at", "published_at", "created_at")


def write(payload: Payload, unique: str, *, per_person: bool) -> Iterator[Message]:
    """Make the message of an event, or with `per_person` one for each assignee and reviewer of a pull request.

    `unique` tells what happens once from all else; whatever is made of the same has the same id.
    """
    message = _message(payload, unique)
    people = dict(_people(payload)) if per_person and payload.event == "pull_request" else {}
    for person, role in people.items():
        yield message.replace(
            id=derived_id(message.id, person),
            key=f"{message.key}/{person}",
            labels={**message.labels, "person": person, "role": role},
        )
    if not people:
        yield message


def _message(payload: Payload, unique: str) -> Message:
    event = EVENTS.get(payload.event) or _unknown(payload)
    title = _sentence(event, payload) or payload.event.replace("_", " ")
    lines = (payload.line(line) if isinstance(line, str) else line(payload) for line in event.text)
    body = prose("\n".join(filter(None, map(str.strip, lines))))
    over = is_over(event, payload)
    moment = next(filter(None, (_moment(payload.text(f"{event.about}.{name}")) for name in _TIMES)), None)
    source = _source(payload)
    return Message(
        id=foreign_id(moment, source, unique),
        source=source,
        type=payload.event,
        title=shorten(title, _TITLE),
        text=shorten(body or payload.fill("By {who|where} in {where}."), _TEXT),
        severity="info" if over else severity_of(event, payload),
        status="resolved" if over else "firing",
        labels=_labels(event, payload),
        key=" ".join(payload.fill(event.key).replace("//", "/").split()),
        url=payload.fill(event.url) or payload.text(f"{event.about}.html_url") or payload.fill("{place_url}"),
        data=payload.data,
        **({"time": moment} if moment else {}),
    )


def _sentence(event: Event, payload: Payload) -> str:
    """Say who did what to what, in a line; where GitHub does not say who, what became of it."""
    word = event.word(payload)
    verb = event.verbs.get(word, _BRACES.sub("", word).replace("_", " "))
    it, who = payload.fill(event.it), payload.fill("{who}")
    if not verb:
        verb = "{it}"
    elif not who and word not in event.verbs:
        verb = f"{{it}} was {verb}"
    elif "{it}" not in verb:
        verb = f"{verb} {{it}}"
    told = payload.fill(verb.replace("{it}", "\0")).replace("\0", it)
    name = payload.fill(event.name)
    line = " ".join(f"{told}: {name}".split() if name else told.split())
    if verb.startswith(("{it}", "new {it}")):
        return line[:1].upper() + line[1:]
    return f"{who or 'Somebody'} {line}"


def _unknown(payload: Payload) -> Event:
    """Give what can be said of any event: its name, where it was, and what it is about where that is easy to see."""
    about = next((name for name, value in payload.data.items() if name in payload.event and isinstance(value, dict)), "")
    word = payload.event.replace("_", " ").replace("{", "")
    return Event(
        f"{word} in {{where}}",
        about=about,
        name=f"{{{about}.title|{about}.name|{about}.summary}}" if about else "",
        text=(f"{{{about}.body|{about}.description|{about}.summary}}" if about else "", "Changed: {changed}"),
        state=f"{{{about}.state}}" if about else "",
    )


def _labels(event: Event, payload: Payload) -> dict[str, str]:
    wanted = {
        "repository": "{repo}",
        "organization": "{organization.login}",
        "action": "{action}",
        "sender": "{who}",
        **event.labels,
    }
    found = {name: " ".join(payload.fill(template).split()) for name, template in wanted.items()}
    subject = payload.items("pull_request.labels") or payload.items("issue.labels")
    found["labels"] = ",".join(label["name"] for label in subject if isinstance(label.get("name"), str))
    return {name: value for name, value in found.items() if value}


def _people(payload: Payload) -> Iterable[tuple[str, str]]:
    """Give the assignees and the reviewers of a pull request; who is both is a reviewer."""
    owner = payload.text("repository.owner.login") or payload.text("repository.full_name").partition("/")[0]
    for person in payload.items("pull_request.assignees"):
        yield str(person.get("login")), "assignee"
    for person in payload.items("pull_request.requested_reviewers"):
        yield str(person.get("login")), "reviewer"
    for team in payload.items("pull_request.requested_teams"):
        yield f"{owner}/{team.get('slug')}", "reviewer"


def _source(payload: Payload) -> str:
    """Give the address of the GitHub that it came from: there are others than github.com."""
    home = payload.fill("{place_url|sender.html_url}")
    scheme, _, rest = home.partition("://")
    host = rest.partition("/")[0]
    return f"{scheme}://{host}" if scheme in ("http", "https") and host else "https://github.com"


def _moment(text: str) -> Any:
    try:
        return parse_time(text) if text else None
    except ValueError:
        return None
