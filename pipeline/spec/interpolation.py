"""`${NAME}` in the texts of a parsed file: from the environment, or from the secrets directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pipeline.spec.problems import Problems
from pipeline.spec.tree import Node, Scalar

_FOUND: Final = re.compile(r"\$\$|\$\{(?P<inner>[^}]*)\}|\$\{")
_INNER: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:-|:\?)(?P<rest>.*))?", re.DOTALL)
_FORMS: Final = "there are ${NAME}, ${NAME:-default}, ${NAME:?message} and ${file:NAME}; write $${ for the text itself"
_LARGEST_SECRET: Final = 2**20


class _UnresolvedError(Exception):
    """Something in `${…}` cannot be resolved. The text never repeats a value; the second argument is the hint."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class Interpolator:
    """Replaces what stands in `${…}` in the texts of a tree.

    A value stays a text after it: `active: ${ON:-false}` and `chat_id: ${CHAT}` work because options are read
    leniently where they are not texts, and a version number that is a text stays one.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        secrets: Path | None,
        problems: Problems,
        stand_in: Callable[[str], str] | None = None,
    ) -> None:
        """With `stand_in`, what has no value and no default gets what that gives for its name, and no secret is read."""
        self._environ = environ
        self._stand_in = stand_in
        self._secrets = secrets
        self._problems = problems

    def replace(self, root: Node) -> None:
        """Change the texts of a tree in place; tells a problem for each that cannot be resolved."""
        for node in root.all():
            if isinstance(node, Scalar) and isinstance(node.written, str) and "$" in node.written:
                self._scalar(node, node.written)

    def _scalar(self, node: Scalar, text: str) -> None:
        parts: list[str] = []
        private: list[str] = []
        end = 0
        for found in _FOUND.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            if found[0] == "$$":
                parts.append("$")
                continue
            try:
                value = self._value(found["inner"])
            except _UnresolvedError as error:
                node.broken = True
                self._problems.error(node.column(found.start() + 1, len(found[0])), str(error), error.hint)
            else:
                parts.append(value)
                private.append(value)
        node.value = "".join([*parts, text[end:]])
        node.private = tuple(value for value in private if value)

    def _value(self, inner: str | None) -> str:
        if inner is None:
            raise _UnresolvedError("'${' has no '}'", "write $${ for the text itself")
        if inner.startswith("file:"):
            return self._secret(inner.removeprefix("file:"))
        found = _INNER.fullmatch(inner)
        if found is None:
            raise _UnresolvedError("this is not an interpolation", _FORMS)
        name, operator, rest = found["name"], found["operator"], found["rest"] or ""
        if "${" in rest:
            raise _UnresolvedError("an interpolation cannot stand in another one", "give the default as a text")
        value = self._environ.get(name)
        if operator is None and value is not None:
            return value
        if value:
            return value
        if operator == ":-":
            return rest
        return self._unset(name, rest if operator == ":?" else None)

    def _unset(self, name: str, message: str | None) -> str:
        if self._stand_in is not None:
            return self._stand_in(name)
        if message is not None:
            raise _UnresolvedError(f"the environment variable {name} is not set: {message}")
        raise _UnresolvedError(f"the environment variable {name} is not set", f"set it, or give a default: ${{{name}:-…}}")

    def _secret(self, name: str) -> str:
        if self._stand_in is not None:
            return self._stand_in(name)
        if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
            raise _UnresolvedError("${file:NAME} names a file of the secrets directory", "no '/' and no '..'")
        if self._secrets is None:
            raise _UnresolvedError(f"there is no secrets directory to read '{name}' from", "set SIFTBELL_SECRETS")
        path = self._secrets / name
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST_SECRET + 1)
        except FileNotFoundError:
            raise _UnresolvedError(f"there is no secret '{name}' in {self._secrets}") from None
        except OSError as error:
            raise _UnresolvedError(f"the secret '{name}' in {self._secrets} cannot be read: {error.strerror}") from None
        if len(data) > _LARGEST_SECRET:
            raise _UnresolvedError(f"the secret '{name}' in {self._secrets} is larger than 1 MiB")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise _UnresolvedError(f"the secret '{name}' in {self._secrets} is not UTF-8") from None
        return text.removesuffix("\n").removesuffix("\r")
