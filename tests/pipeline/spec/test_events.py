"""The two parsers of YAML: where libyaml is asked at all, it says the same as ruamel.yaml, to the last column."""

from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.spec import events

GOOD = [path.read_text() for path in sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))]
PIECES = st.sampled_from(
    [
        *list("{}[]:,-#&*!|>'\"%@`\n \\$?~é日<=."),
        ": ",
        "- ",
        "? ",
        "\n\n",
        "\n  ",
        " #",
        "|\n",
        ">-\n",
        "|2",
        '"\\x41"',
        "{a: b}",
        "::",
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 4), PIECES), max_size=4)


def placed(found: list[events.Event]) -> list[events.Event]:
    """Give the events without the places of what is left out: `document` gives such a value the place of its key."""
    for event in found:
        if (event.kind, event.value, event.style) == ("Scalar", "", None):
            event.line = event.column = event.end_line = event.end_column = 0
    return found


@settings(deadline=None)
@given(st.sampled_from(GOOD), st.integers(0, 60), st.integers(1, 12), EDITS)
@example("a:\nb: {c: , d: [x,]}\n", 0, 9, [])
@example("a: |\n \n     b\n      c\n", 0, 9, [])
@example("|\n#\n", 0, 9, [])
@example("a: |#\n", 0, 9, [])
@example("- a\n-\n- - \n", 0, 9, [])
@example("a: 1\n...\n", 0, 9, [])
@example("a: 'x\ty'\n", 0, 9, [])
@example("a: x\x85b: y\n", 0, 9, [])
def test_where_libyaml_is_asked_it_says_what_ruamel_says(
    text: str, first: int, count: int, edits: list[tuple[int, int, str]]
) -> None:
    text = "".join(text.splitlines(keepends=True)[first : first + count])
    for at, removed, piece in edits:
        text = text[: at % (len(text) + 1)] + piece + text[at % (len(text) + 1) + removed :]
    assume(events.is_plain(text))
    quick = events._libyaml(text)
    try:
        slow = placed(list(events._ruamel(text)))
    except (MarkedYAMLError, ReaderError):
        assert quick is None
    else:
        assert quick is None or placed(quick) == slow


@pytest.mark.parametrize("text", [*GOOD, 'a: "x && !y"\nb: [1, "&c"]\n', "a: |\n  {{ text }}\n  b\nc: 日本\n"])
def test_usual_files_are_read_by_libyaml(text: str) -> None:
    assert events.is_plain(text)
    assert events._libyaml(text) is not None


@pytest.mark.parametrize("text", ["a: &b 1\nc: *b\n", "a: !!str 1\n", "a: [\n", "a: b: c\n"])
def test_what_libyaml_reads_otherwise_or_refuses_is_left_to_ruamel(text: str) -> None:
    assert not events.is_plain(text) or events._libyaml(text) is None


def test_without_libyaml_all_is_read_by_ruamel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert [event.value for event in events.events("a: b\n") if event.kind == "Scalar"] == ["a", "b"]
