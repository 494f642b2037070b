"""Plugins: options are found from the class, strict, and a plugin shows nothing of them."""

from __future__ import annotations

from typing import Generic, TypeVar

import pytest
from pydantic import Field, SecretStr, ValidationError

import pipeline
from pipeline import BatchConsumer, Config, Consumer, Filter, NoOptions
from pipeline.plugin import Plugin


class OptionsConfig(Config):
    """Options."""

    token: SecretStr = Field(description="A token.")


C = TypeVar("C", bound=Config)


class Base(Consumer[C], Generic[C]):
    """A base that leaves the options open."""


class Concrete(Base[OptionsConfig]):
    """Says the options."""

    def consume(self, message):
        """Do nothing."""


def test_the_options_class_is_read_from_the_base():
    class Pass(Filter[OptionsConfig]):
        def filter(self, message):
            yield message

    class Heir(Pass):
        pass

    assert (Pass.config_type, Heir.config_type, Concrete.config_type) == (OptionsConfig,) * 3
    assert Base.config_type is NoOptions


def test_options_are_strict_and_frozen():
    with pytest.raises(ValidationError, match="Extra inputs"):
        OptionsConfig.model_validate({"token": "a", "tokn": "b"})
    config = OptionsConfig(token="a")
    with pytest.raises(ValidationError, match="frozen"):
        config.token = "b"


def test_a_plugin_shows_nothing_of_its_options():
    plugin = Concrete(OptionsConfig(token="sesame"))
    assert repr(plugin) == "<Concrete>"
    plugin.open()
    plugin.close()


def test_what_is_not_written_cannot_be_made():
    class Unwritten(BatchConsumer[NoOptions]):
        pass

    with pytest.raises(TypeError, match="consume_many"):
        Unwritten(NoOptions())


def test_previews_have_title_and_text():
    class Many(BatchConsumer[NoOptions]):
        def consume_many(self, messages):
            return {}

    message = pipeline.Message(source="t", title="a", text="b")
    for plugin in (Many(NoOptions()), Concrete(OptionsConfig(token="t"))):
        assert plugin.preview(message) == {"title": "a", "text": "b"}


def test_everything_of_the_api_is_there():
    assert all(hasattr(pipeline, name) for name in pipeline.__all__)
    assert len(pipeline.__all__) == len({*pipeline.__all__})
    assert issubclass(Concrete, Plugin)


def test_a_probe_has_nothing_to_ask_unless_it_says_so():
    assert Concrete(OptionsConfig(token="sesame")).probe() is None
