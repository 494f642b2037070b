"""Reads raw messages: JSON and CloudEvents by the mapping that all producers share, and plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline import Message, PermanentError, Request, derived_id, foreign_id, read_messages
from producers.queue.delivery import Delivery
from producers.queue.options import QueueConfig

_PREFIXES: Final = ("cloudevents:", "cloudevents_", "ce-", "ce_")
"""How the names of CloudEvents' attributes begin among headers: by the bindings of AMQP, HTTP and Kafka, which others borrow."""
_EVENT: Final = frozenset(("specversion", "id", "source", "type"))
_MOST: Final = 10_000
"""Messages in one body."""


def read(delivery: Delivery, config: QueueConfig) -> list[Message]:
    """Give a delivery's messages, with ids that a repeat has too; raises `PermanentError` that says why it cannot be read."""
    if delivery.problem:
        raise PermanentError(delivery.problem)
    messages = [_completed(message, delivery, config) for message in _messages(delivery, config)]
    first = message_id(delivery)
    if not first:
        return messages
    ids = [first] if len(messages) == 1 else [derived_id(first, index) for index in range(len(messages))]
    return [one.replace(id=new) for one, new in zip(messages, ids, strict=True)]


def message_id(delivery: Delivery) -> str:
    """Give the id of a delivery; empty where its system has no name for it.

    The body counts as well: a sender that gives all its messages one name would have them taken for one.
    """
    return foreign_id(delivery.time, delivery.name, delivery.body) if delivery.name else ""


def _messages(delivery: Delivery, config: QueueConfig) -> Sequence[Message]:
    kind = delivery.headers.get("content-type", "").partition(";")[0].strip().lower()
    event = _event_headers(delivery.headers)
    if config.body == "text" or (config.body == "auto" and not event and _is_text(delivery.body, kind)):
        return [_text(delivery, config)]
    if not event and not kind.endswith("json"):
        kind = _sniffed(delivery.body)
    request = Request(delivery.body, event | {"content-type": kind})
    return read_messages(request, source=config.source, time=delivery.time, fields=config.fields, most=_MOST)


def _sniffed(body: bytes) -> str:
    """Give the content type of JSON that came without one: an object that has what CloudEvents must have is an event."""
    if b'"specversion"' in body:
        payload = Request(body).json()
        payloads = payload if isinstance(payload, list) else [payload]
        if all(isinstance(one, dict) and one.keys() >= _EVENT for one in payloads):
            return f"application/cloudevents{'-batch' if isinstance(payload, list) else ''}+json"
    return "application/json"


def _is_text(body: bytes, kind: str) -> bool:
    """Say whether a body is no JSON: by its content type, or else by how it begins, as many senders give none or a wrong one."""
    if kind == "application/json" or kind.endswith("+json"):
        return False
    return kind.startswith("text/") or body.lstrip()[:1] not in (b"{", b"[")


def _text(delivery: Delivery, config: QueueConfig) -> Message:
    try:
        text = delivery.body.decode()
    except UnicodeDecodeError:
        raise PermanentError("it is neither JSON nor a text in UTF-8") from None
    if not text.strip() or "\0" in text:
        raise PermanentError("it holds a NUL character" if text.strip() else "it is empty")
    message = Message(source=config.source, text=text, data=text)
    return message.replace(time=delivery.time) if delivery.time else message


def _event_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the CloudEvents attributes as HTTP names them; empty where the headers are no event's."""
    found = {}
    for name, value in headers.items():
        prefix = next((one for one in _PREFIXES if name.startswith(one)), None)
        if prefix is not None:
            found[f"ce-{name.removeprefix(prefix)}"] = value
    return found if "ce-specversion" in found else {}


def _completed(message: Message, delivery: Delivery, config: QueueConfig) -> Message:
    """Add what stands beside the body, where the body does not say it."""
    headers = delivery.headers
    found = {label: headers.get(header.lower(), "") for label, header in config.labels.items()}
    labels = {label: value for label, value in found.items() if value} | message.labels
    return message.replace(labels=labels, title=message.title or headers.get("subject", ""))
