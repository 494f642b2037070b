"""Texts over a message: Jinja2 in the immutable sandbox, compiled once, with a cap on output and time."""

from __future__ import annotations

from pipeline.message import Message


class Template:
    """A Jinja2 template over the fields of `Message`, usable as the type of a plugin's option."""

    def __init__(self, text: str) -> None:
        self.text = text

    def render(self, message: Message) -> str:
        """Render."""
        raise NotImplementedError
