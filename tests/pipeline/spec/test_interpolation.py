from pathlib import Path

import pytest

from pipeline.spec.document import read
from pipeline.spec.interpolation import Interpolator
from pipeline.spec.problems import Problems

ENVIRON = {"NAME": "value", "EMPTY": "", "TRAP": "a: {b: [*c]}  ${NAME} $$"}


def interpolate(tmp_path: Path, text: str, secrets: Path | None = None):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    problems = Problems()
    node = read(path, problems)
    assert node is not None
    Interpolator(ENVIRON, secrets, problems).replace(node)
    found = [
        f"{one.position.line}:{one.position.column} {one.text}{' | ' + one.hint if one.hint else ''}"
        for one in problems.sorted([])
    ]
    return node, found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "value"),
        ("x ${NAME} ${NAME} y", "x value value y"),
        ("${NAME:-other}", "value"),
        ("${NAME:?must be set}", "value"),
        ("${UNSET:-other words}", "other words"),
        ("${UNSET:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("$$", "$"),
        ("$${NAME}", "${NAME}"),
        ("$$$$", "$$"),
        ("$NAME costs 5$", "$NAME costs 5$"),
        ("^a$", "^a$"),
        ("${TRAP}", "a: {b: [*c]}  ${NAME} $$"),
    ],
)
def test_texts_are_replaced_after_parsing(tmp_path: Path, text: str, value: str) -> None:
    node, problems = interpolate(tmp_path, f"a: '{text}'\nb: [x, {{c: '{text}'}}]\n")
    assert problems == []
    assert node.plain() == {"a": value, "b": ["x", {"c": value}]}
    assert node.raw() == {"a": text, "b": ["x", {"c": text}]}


def test_keys_are_left_alone(tmp_path: Path) -> None:
    node, _ = interpolate(tmp_path, "${NAME}: 1\n")
    assert node.plain() == {"${NAME}": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: ${UNSET}", "1:4 the environment variable UNSET is not set | set it, or give a default: ${UNSET:-…}"),
        ("a: x ${UNSET}", "1:6 the environment variable UNSET is not set | set it, or give a default: ${UNSET:-…}"),
        ("a: 'x ${UNSET}'", "1:7 the environment variable UNSET is not set | set it, or give a default: ${UNSET:-…}"),
        ("a: ${UNSET:?ask the team}", "1:4 the environment variable UNSET is not set: ask the team"),
        ("a: ${EMPTY:?ask the team}", "1:4 the environment variable EMPTY is not set: ask the team"),
        ("a: '${'", "1:5 '${' has no '}' | write $${ for the text itself"),
        ("a: '${A:-${B}}'", "1:5 an interpolation cannot stand in another one | give the default as a text"),
        ("a: ${file:token}", "1:4 there is no secrets directory to read 'token' from | set SIFTBELL_SECRETS"),
        ('a: "\\t${UNSET}"', "1:4 the environment variable UNSET is not set | set it, or give a default: ${UNSET:-…}"),
        ("a: |\n  x\n  ${UNSET}\n", "1:4 the environment variable UNSET is not set | set it, or give a default: ${UNSET:-…}"),
    ],
)
def test_what_cannot_be_resolved_is_told_at_its_dollar(tmp_path: Path, text: str, problem: str) -> None:
    node, problems = interpolate(tmp_path, text)
    assert problems == [problem]
    assert [inner.broken for inner in node.children()] == [True]


@pytest.mark.parametrize("inner", ["", "1X", "A-x", "A:=x", "a b", "A:"])
def test_what_is_no_interpolation_is_refused(tmp_path: Path, inner: str) -> None:
    _, (problem,) = interpolate(tmp_path, f"a: '${{{inner}}}'")
    assert problem.startswith("1:5 this is not an interpolation | there are ${NAME}")


def test_a_value_used_by_an_alias_is_replaced_once(tmp_path: Path) -> None:
    node, problems = interpolate(tmp_path, "a: &a ${TRAP}\nb: *a\nc: &c ${UNSET}\nd: *c\n")
    assert node.plain()["b"] == ENVIRON["TRAP"]
    assert len(problems) == 1


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "token").write_bytes(b"s3cret\n")
    (directory / "windows").write_bytes(b"s3cret\r\n")
    (directory / "two").write_bytes(b"one\ntwo\n\n")
    (directory / "bad").write_bytes(b"\xff")
    (directory / "large").write_bytes(b"x" * (2**20 + 1))
    (directory / "folder").mkdir()
    (tmp_path / "outside").write_text("x")
    return directory


@pytest.mark.parametrize(("name", "value"), [("token", "s3cret"), ("windows", "s3cret"), ("two", "one\ntwo\n")])
def test_secrets_come_from_files_without_their_last_newline(tmp_path: Path, secrets: Path, name: str, value: str) -> None:
    node, problems = interpolate(tmp_path, f"a: '${{file:{name}}}'", secrets)
    assert problems == []
    assert node.plain() == {"a": value}
    assert [inner.private for inner in node.children()] == [(value,)]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nope", "there is no secret 'nope' in {0}"),
        ("bad", "the secret 'bad' in {0} is not UTF-8"),
        ("large", "the secret 'large' in {0} is larger than 1 MiB"),
        ("folder", "the secret 'folder' in {0} cannot be read: Is a directory"),
        ("../outside", "${{file:NAME}} names a file of the secrets directory | no '/' and no '..'"),
        ("..", "${{file:NAME}} names a file of the secrets directory | no '/' and no '..'"),
        ("/etc/passwd", "${{file:NAME}} names a file of the secrets directory | no '/' and no '..'"),
        ("", "${{file:NAME}} names a file of the secrets directory | no '/' and no '..'"),
    ],
)
def test_secrets_that_cannot_be_read(tmp_path: Path, secrets: Path, name: str, problem: str) -> None:
    _, problems = interpolate(tmp_path, f"a: '${{file:{name}}}'", secrets)
    assert problems == ["1:5 " + problem.format(secrets)]
