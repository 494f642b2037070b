"""Render: only what is named changes, and what cannot be rendered is buried with the reason."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from filters.render import Render, RenderConfig
from pipeline import Message, PermanentError
from pipeline.testing import FilterContract


class TestRender(FilterContract):
    plugin = Render
    options = {"title": "{{ severity | upper }}: {{ title }}", "text": "{{ labels.team }}"}


def render(message, **options):
    (out,) = Render(RenderConfig(**options)).filter(message)
    return out


def test_only_what_is_named_changes():
    message = Message(source="t", title="disk full", text="x", severity="critical", labels={"a": "b"})
    out = render(message, title="{{ severity | upper }}: {{ title }}")
    assert out == message.replace(title="CRITICAL: disk full")


def test_all_templates_see_the_message_as_it_came():
    message = Message(source="t", title="a", text="b")
    out = render(message, title="{{ text }}", text="{{ title }}")
    assert (out.title, out.text) == ("b", "a")


def test_line_breaks_stay_in_the_text_only():
    message = Message(source="t", title="a\r\nb")
    out = render(
        message, title="{{ title }}", text="{{ title }}\n", url="https://x/{{ key }}\n", key="k", severity="{{ 'info' }} "
    )
    assert (out.title, out.text, out.url, out.key, out.severity) == ("a b", "a\r\nb\n", "https://x/", "k", "info")


def test_a_missing_label_is_named():
    with pytest.raises(PermanentError, match="team"):
        render(Message(source="t"), title="{{ labels.team }}")


def test_nothing_to_render_is_a_mistake():
    with pytest.raises(ValidationError, match="names none of title, text, url, key, severity"):
        RenderConfig()


def test_a_bare_name_is_a_shipped_template():
    message = Message(source="t", title="disk full", text="x", severity="critical", labels={"a": "b"})
    out = render(message, text="full")
    assert out.title == "CRITICAL: disk full"
    assert "a: b" in out.text
    with pytest.raises(ValidationError, match="no shipped template is called so; did you mean 'full'"):
        RenderConfig(text="ful")
