"""A message written anew by templates: one's own, or those that are shipped by name."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipeline.errors import PermanentError
from pipeline.message import Message
from pipeline.plugin import Config
from pipeline.schedule import read_zone
from pipeline.template import Template

SHIPPED: Final = ("brief", "full", "markdown", "html")
"""The names of the shipped templates: each writes a text, and all the same title."""

_FIELDS: Final = ("title", "text", "url", "key", "severity")
_TEXTS: Final = Path(__file__).parent / "template" / "texts"


class _Shipped(Template):
    max_length = 2**20  # they bound themselves: no message is buried because it has much to tell


class _ShippedHtml(_Shipped):
    escape = True


@cache
def shipped(name: str) -> Template:
    """Give a shipped template of a text; `title` is that of the title."""
    written = (_TEXTS / f"{name}.j2").read_text(encoding="utf-8").removesuffix("\n")
    return _ShippedHtml(written) if name == "html" else _Shipped(written)


def _zone(text: str) -> str:
    read_zone(text)
    return text


class Rendering(Config):
    """What is written anew of a message, and how; what is not named stays as it was."""

    shorthand: ClassVar[str | None] = "text"

    title: Template | None = Field(default=None, description="The new title.")
    text: Template | None = Field(
        default=None,
        description=f"The new text; or the name of a shipped template, which writes the title as well: {', '.join(SHIPPED)}.",
    )
    url: Template | None = Field(default=None, description="The new link.")
    key: Template | None = Field(default=None, description="The new key: what the message is about.")
    severity: Template | None = Field(default=None, description="The new severity.")
    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None,
        description="The time zone of `time` in these templates, such as Europe/Berlin; else as it came, mostly UTC.",
    )

    @field_validator("text")
    @classmethod
    def _not_misspelt(cls, text: Template | None) -> Template | None:
        if text is not None and text.text not in SHIPPED and (close := get_close_matches(text.text, SHIPPED, n=1, cutoff=0.7)):
            raise ValueError(f"no shipped template is called so; did you mean '{close[0]}'?")
        return text

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(getattr(self, name) for name in _FIELDS):
            raise ValueError(f"this names none of {', '.join(_FIELDS)}")
        return self

    @cached_property
    def _templates(self) -> dict[str, Template]:
        found = {name: template for name in _FIELDS if (template := getattr(self, name)) is not None}
        if self.text is not None and self.text.text in SHIPPED:
            found["text"] = shipped(self.text.text)
            found.setdefault("title", shipped("title"))
        return found

    def render(self, message: Message) -> Message:
        """Give the message with its new fields; raises `PermanentError` that names the field where a template fails.

        Each template sees the message as it came. All but the text become one line, and a severity lower case.
        """
        seen = message if self.timezone is None else message.replace(time=message.time.astimezone(ZoneInfo(self.timezone)))
        changes: dict[str, str] = {}
        for name, template in self._templates.items():
            try:
                text = template.render(seen)
            except PermanentError as error:
                raise PermanentError(f"{name}: {error}") from None
            changes[name] = text if name == "text" else " ".join(text.split())
        if "severity" in changes:
            changes["severity"] = changes["severity"].lower()
        return message.replace(**changes)


def _bare(value: object) -> object:
    return {"text": value} if isinstance(value, str | Template) else value


RenderingOrText = Annotated[Rendering, BeforeValidator(_bare, json_schema_input_type=str | Rendering)]
"""A rendering as an option: a bare value is its `text`."""
