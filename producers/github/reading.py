"""Payloads of GitHub, read without surprise, and the templates by which sentences about them are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_FIELD: Final = re.compile(r"\{([a-z0-9_.|]+)(?::(\w+))?\}")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PAGES: Final = {"Issue": "issues", "PullRequest": "pull", "Discussion": "discussions"}
_SHA: Final = re.compile("[0-9a-f]{40,64}")
_BLANK: Final = re.compile(r"\n{3,}")


class Payload:
    """What GitHub told of an event. What is not there, or of another type than expected, is empty."""

    def __init__(self, event: str, data: Mapping[str, Any]) -> None:
        self.event = event
        self.data = data

    @property
    def action(self) -> str:
        """What was done, in GitHub's word; empty for an event that knows but one."""
        return self.text("action")

    def at(self, path: str) -> Any:
        """Give what stands at a path such as `pull_request.user.login` or `pages.0.title`, or None."""
        value: Any = self.data
        for step in path.split("."):
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value

    def text(self, path: str) -> str:
        """Give the text or the number at a path, or nothing."""
        value = self.at(path)
        if isinstance(value, str):
            return value.strip()
        return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""

    def items(self, path: str) -> list[dict[str, Any]]:
        """Give the objects of the list at a path."""
        value = self.at(path)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    def fill(self, template: str) -> str:
        """Write a template: `{a.b|c}` is what stands at `a.b`, else at `c`.

        `:7` cuts it, `:line` takes its first line, `:sha` shortens the id of a commit. A name of `NAMES` stands for what is
        worked out.
        """
        return _FIELD.sub(self._found, template)

    def line(self, template: str) -> str:
        """Write a template, or nothing where nothing that it asks for is there."""
        asked = list(_FIELD.finditer(template))
        return self.fill(template) if not asked or any(map(self._found, asked)) else ""

    def _found(self, field: re.Match[str]) -> str:
        for name in field[1].split("|"):
            text = NAMES[name](self) if name in NAMES else self.text(name)
            if text:
                return _cut(text, field[2])
        return ""


def _cut(text: str, how: str | None) -> str:
    if how is None:
        return text
    if how == "sha":
        return text[:7] if _SHA.fullmatch(text) else text
    return text.split("\n", 1)[0].strip() if how == "line" else text[: int(how)]


def prose(text: str) -> str:
    """Give a body as it is read: without the comments of a form that nobody sees, and without long gaps."""
    seen, *hidden = text.replace("\r\n", "\n").split("<!--")
    parts = [seen, *(part.partition("-->")[2] for part in hidden)]
    lines = (line.rstrip(" \t") for line in "".join(parts).split("\n"))  # a regex takes very long over very many spaces
    return _BLANK.sub("\n\n", "\n".join(lines)).strip()


def _ref(payload: Payload) -> str:
    return payload.text("ref").removeprefix("refs/heads/").removeprefix("refs/tags/")


def _kind_of_ref(payload: Payload) -> str:
    return payload.text("ref_type") or ("tag" if payload.text("ref").startswith("refs/tags/") else "branch")


def _kind_of_issue(payload: Payload) -> str:
    return "pull request" if payload.at("issue.pull_request") else "issue"


def _commits(payload: Payload) -> str:
    count = len(payload.items("commits"))
    return "1 commit" if count == 1 else f"{count} commits"


def _names_of(path: str, name: str) -> Callable[[Payload], str]:
    def names(payload: Payload) -> str:
        found = [item[name] for item in payload.items(path) if isinstance(item.get(name), str)]
        return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")

    return names


def _branch_of_run(payload: Payload) -> str:
    """Give a run's branch; with the owner where it is a fork's, which mostly has a `main` as well."""
    branch, home = payload.text("workflow_run.head_branch"), payload.text("workflow_run.head_repository.full_name")
    of_fork = home and home != payload.text("repository.full_name")
    return f"{home.partition('/')[0]}:{branch}" if branch and of_fork else branch


def _kind_of_subject(payload: Payload) -> str:
    return _HUMP.sub(" ", payload.text("notification.subject.type")).lower()


def _number_of_subject(payload: Payload) -> str:
    """Give the number of what a notification is about; it stands in the URL alone, as the ids of what has no number do."""
    number = payload.text("notification.subject.url").rpartition("/")[2]
    return number if payload.text("notification.subject.type") in _PAGES and number.isdecimal() else ""


def _subject(payload: Payload) -> str:
    number = _number_of_subject(payload)
    return f"{payload.text('repository.full_name')}{number and f'#{number}'}"


def _key_of_subject(payload: Payload) -> str:
    thread = payload.text("notification.id")
    return _subject(payload) if _number_of_subject(payload) else f"{_subject(payload)}/notifications/{thread}"


def _url_of_subject(payload: Payload) -> str:
    number, home = _number_of_subject(payload), payload.text("repository.html_url")
    return f"{home}/{_PAGES[payload.text('notification.subject.type')]}/{number}" if number else home


def _events_of_hook(payload: Payload) -> str:
    events = payload.at("hook.events")
    return ", ".join(name for name in events if isinstance(name, str)) if isinstance(events, list) else ""


def _changes(payload: Payload) -> str:
    changes = payload.at("changes")
    return ", ".join(name.replace("_", " ") for name in changes) if isinstance(changes, dict) else ""


PLACES: Final = ("repository.full_name", "organization.login", "installation.account.login", "enterprise.slug")
PLACE_URLS: Final = ("repository.html_url", "installation.account.html_url", "enterprise.html_url")
NAMES: Final[Mapping[str, Callable[[Payload], str]]] = {
    "who": lambda payload: payload.text("sender.login") or payload.text("pusher.name"),
    "repo": lambda payload: payload.text("repository.full_name"),
    "where": lambda payload: next(filter(None, map(payload.text, PLACES)), "GitHub"),
    "place_url": lambda payload: next(filter(None, map(payload.text, PLACE_URLS)), ""),
    "short_ref": _ref,
    "kind_of_ref": _kind_of_ref,
    "kind_of_issue": _kind_of_issue,
    "count_of_commits": _commits,
    "changed": _changes,
    "added_repositories": _names_of("repositories_added", "full_name"),
    "removed_repositories": _names_of("repositories_removed", "full_name"),
    "installed_repositories": _names_of("repositories", "full_name"),
    "hook_events": _events_of_hook,
    "key_writes": lambda payload: "no" if payload.at("key.read_only") else "yes",
    "run_branch": _branch_of_run,
    "subject_kind": _kind_of_subject,
    "subject_key": _key_of_subject,
    "subject_ref": _subject,
    "subject_url": _url_of_subject,
    "pages": _names_of("pages", "title"),
    "properties": _names_of("new_property_values", "property_name"),
}
"""What templates may ask for besides paths."""
