"""What is known of an event of GitHub's: a row of the tables beside this module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline import SEVERITIES, normal_severity
from producers.github.reading import Payload

_SEVERITY: Final = {
    **dict.fromkeys(("failure", "error", "errored", "timed_out", "startup_failure"), "error"),
    **dict.fromkeys(("cancelled", "action_required", "stale", "moderate", "rejected"), "warning"),
}
_OVER: Final = frozenset(
    {"closed", "merged", "fixed", "dismissed", "auto_dismissed", "resolved", "revoked", "withdrawn"}
    | {"success", "neutral", "skipped", "inactive", "built", "complete"}
)


@dataclass(frozen=True, slots=True)
class Event:
    """How a message is made of an event. All texts are templates of `Payload.fill`; `verbs` may hold `{it}`, which is `it`."""

    it: str
    """What it is about, as it stands in a sentence: `pull request acme/shop#12`."""
    about: str = ""
    """The path of the object that it tells of; its link and its times are the message's."""
    name: str = ""
    """What stands behind the sentence, after a colon: a title."""
    key: str = "{where}"
    text: tuple[str | Callable[[Payload], str], ...] = ()
    """Lines; one that finds nothing is left out."""
    verbs: Mapping[str, str] = field(default_factory=dict)
    """What was done, by the word that `word` gives; a word that is not here is said as it is."""
    word: Callable[[Payload], str] = lambda payload: payload.action
    url: str = ""
    """Where not `about`'s html_url."""
    state: str = ""
    """How the thing is now: some words mean that it is over. Without it, the event leaves nothing open that could end."""
    ends: frozenset[str] = frozenset()
    """Actions that end it, whatever its state says."""
    severity: str = ""
    """What says how bad it is, where not `info`."""
    severities: Mapping[str, str] = field(default_factory=dict)
    """The severity by the word that `word` gives."""
    labels: Mapping[str, str] = field(default_factory=dict)


def severity_of(event: Event, payload: Payload) -> str:
    """Give the severity in the words that all producers use."""
    word = payload.fill(event.severity).lower() or event.severities.get(event.word(payload), "")
    known = _SEVERITY.get(word) or normal_severity(word)
    return known if known in SEVERITIES else "info"


def is_over(event: Event, payload: Payload) -> bool:
    """Say whether what the event is about is closed, merged, fixed or green now."""
    return payload.action in event.ends or payload.fill(event.state).lower() in _OVER


def by_result(path: str, *actions: str) -> Callable[[Payload], str]:
    """Give what tells a run in one word: one of these actions, else its conclusion, else its status."""

    def word(payload: Payload) -> str:
        if payload.action in actions:
            return payload.action
        return payload.text(f"{path}.conclusion") or payload.text(f"{path}.status") or payload.action

    return word
