import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.spec.document import MAX_DEPTH, read
from pipeline.spec.problems import Problems
from pipeline.spec.tree import Items, Mapping, Scalar
from pipeline.spec.writing import to_yaml


def read_text(tmp_path: Path, text: str | bytes):
    path = tmp_path / "f.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    problems = Problems()
    node = read(path, problems)
    return node, problems.sorted([path])


def plain(tmp_path: Path, text: str):
    node, problems = read_text(tmp_path, text)
    assert problems == ()
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("12", 12),
        ("-100123", -100123),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("!!int 12", 12),
        ("! 12", "12"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_read_as_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    assert plain(tmp_path, f"a: {text}\n") == {"a": value}


def test_not_a_number_is_a_number(tmp_path: Path) -> None:
    assert math.isnan(plain(tmp_path, "a: .NaN\n")["a"])


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [*a, {z: 4}]}\ne: &e [1]\nf: *e\ng: {'<<': 1}\n"
    assert plain(tmp_path, text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
        "e": [1],
        "f": [1],
        "g": {"<<": 1},
    }


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    assert plain(tmp_path, "\ufeffa: 1\n") == {"a": 1}


def test_windows_line_ends_and_several_lines(tmp_path: Path) -> None:
    assert plain(tmp_path, "a: one\r\n  two\r\nb: |\r\n  x\r\n  y\r\n") == {"a": "one two", "b": "x\ny\n"}


def test_places_and_widths(tmp_path: Path) -> None:
    node, _ = read_text(tmp_path, "key: plain text  # words\nlist: [1, 'two']\nmap: {a: b}\nblock:\n  - x: y\nfolded: >\n  z\n")
    assert isinstance(node, Mapping)

    def place(key: str) -> tuple[int, int, int]:
        found = node.entries[key].value.place
        return found.line, found.column, found.width

    assert place("key") == (1, 6, 10)
    assert place("list") == (2, 7, 10)
    assert place("map") == (3, 6, 6)
    assert place("block") == (5, 3, 6)
    assert place("folded") == (6, 9, 1)
    inner = node.entries["list"].value
    assert isinstance(inner, Items)
    two = inner.items[1]
    assert isinstance(two, Scalar)
    assert two.exact
    assert two.column(2).column == two.place.column + 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "2:1 'a' stands here twice | first in line 1"),
        ("a: {b: 1, b: 2}\n", "1:11 'b' stands here twice | first in line 1"),
        ("a: b\n\tc: d\n", "2:1 a tab cannot indent YAML | use spaces"),
        ("a: b: c\n", "1:5 ': ' starts a value here, inside another value | put the whole text in quotes"),
        ("a: @x\n", "1:4 character '@' that cannot start a value | put the text in quotes"),
        ("a:\n  b: 1\n c: 2\n", "3:2 this line does not belong to the block above it | does its indentation match?"),
        (
            "a: [1, 2\nb: 3\n",
            "2:2 expected ',' or ']', but got ':' | while parsing a flow sequence, which began in line 1",
        ),
        ("a: 'x\nb: c\n", "1:4 this quoted text has no end"),
        ("a: 1\n---\nb: 2\n", "2:1 a second document begins here | one pipeline per file"),
        ("a: *nope\n", "1:4 no value before this one bears the anchor '&nope'"),
        ("a: &a [*a]\n", "1:8 no value before this one bears the anchor '&a'"),
        ("a: !secret x\n", "1:4 a tag has no meaning here | remove the word that begins with '!'"),
        ("a: !!python/name:os.system x\n", "1:4 a tag has no meaning here | remove the word that begins with '!'"),
        ("a: !!int x\n", "1:4 a tag has no meaning here | remove the word that begins with '!'"),
        ("a: !!set {x}\n", "1:4 a tag has no meaning here | remove the word that begins with '!'"),
        ("a: !x [1]\n", "1:4 a tag has no meaning here | remove the word that begins with '!'"),
        ("? [a]\n: 1\n", "1:3 a key is a plain text"),
        ("a: {<<: 1}\n", "1:9 '<<' takes a mapping"),
        ("a: x\x01y\n", "1:5 the character U+0001 is not allowed in YAML"),
        (b"a: 1\nb: caf\xe9\n", "2:7 this is not UTF-8: byte 0xE9 | save the file as UTF-8"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"1:{MAX_DEPTH + 4} nested deeper than {MAX_DEPTH} levels"),
        (
            "a: &a [" + "1," * 400 + "]\nb: &b [" + "*a," * 400 + "]\n",
            "2:749 with this alias the file has more than 100000 values",
        ),
    ],
)
def test_what_cannot_be_read_is_told_at_its_place(tmp_path: Path, text: str | bytes, problem: str) -> None:
    _, problems = read_text(tmp_path, text)
    found = [f"{one.position.line}:{one.position.column} {one.text}{' | ' + one.hint if one.hint else ''}" for one in problems]
    assert found == [problem]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    problems = Problems()
    assert read(tmp_path, problems) is None
    (problem,) = problems.sorted([])
    assert (problem.position.line, problem.text) == (0, "cannot be read: Is a directory")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_as_yaml_reads_as_the_same_value(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(to_yaml(value), encoding="utf-8", newline="")
    problems = Problems()
    node = read(path, problems)
    assert problems.sorted([]) == ()
    assert node is not None
    assert node.plain() == value


@given(JSON)
def test_our_reading_agrees_with_ruamels(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "agree.yaml"
    path.write_text(to_yaml(value), encoding="utf-8", newline="")
    node = read(path, Problems())
    assert node is not None
    assert node.plain() == YAML(typ="safe", pure=True).load(path)


@pytest.mark.parametrize("text", ["a:\n\nb: 1\n", "a:\n\nb: &x 1\n", "{a: , b: 1}\n"])
def test_a_value_that_is_left_out_has_the_place_of_its_key(tmp_path: Path, text: str) -> None:
    node, _ = read_text(tmp_path, text)
    entry = node.entries["a"]
    assert entry.value.place == entry.key
