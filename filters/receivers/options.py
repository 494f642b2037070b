"""The options of `receivers`: people with their names, groups of them, and where a message names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from filters.receivers.table import read_table
from pipeline import Config, FileBeside, Message, MessagePath, PermanentError, Template

OWN: Final = "name"
"""The channel of our own names, of users and of groups."""
_SEVERAL: Final = re.compile(r"[,;\n]")
_EACH: Final = "[*]"


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _entry(value: object) -> object:
    return {"names": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\s,;:{}@]([^,;:{}\n]*[^\s,;:{}])?$", max_length=100)]
Channel = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=50)]
Reached = Annotated[str, StringConstraints(min_length=1), BeforeValidator(_text, json_schema_input_type=str | int)]


class Entry(Config):
    """One place where names stand."""

    names: str = Field(min_length=1, description="A user or a group, a place in the message, or a template that gives names.")
    as_: Channel | None = Field(default=None, alias="as", description="Whose names stand there, where it is another `as`.")

    @field_validator("names")
    @classmethod
    def _understood(cls, names: str) -> str:
        if "{" in names:
            Template(names)
        return names

    @cached_property
    def template(self) -> Template | None:
        """The template that gives the names, if it is one."""
        return Template(self.names) if "{" in self.names else None

    @cached_property
    def way(self) -> tuple[MessagePath, list[MessagePath]]:
        """Where the names stand: a place, and the ways on from each of the elements there. Raises ValueError."""
        first, *others = self.names.split(_EACH)
        return MessagePath(first), [MessagePath(f"data{other}") for other in others]

    def found(self, message: Message) -> list[str]:
        """Give the names that a message has there, none where there is nothing. Raises `PermanentError` for what is no name."""
        if self.template is not None:
            return split_names(self.template.render(message))
        place, ways = self.way
        values = [place.value(message)]
        for way in ways:
            values = [way.within(element) for value in values if isinstance(value, list) for element in value]
        return [name for value in values for text in self._texts(value) for name in split_names(text)]

    def _texts(self, value: Any) -> Iterator[str]:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict | list):
                raise PermanentError(
                    f"to: what stands at {self.names} is no name; a part of it is expected, such as {self.names}.login"
                )
            if one is not None:
                yield str(one)


class ReceiversConfig(Config):
    """The options of `receivers`."""

    file: FileBeside | None = Field(
        default=None,
        description="A table of users (CSV): a column `name`, one for each channel, and `groups` where they are in some.",
    )
    users: dict[Name, dict[Channel, Reached]] = Field(
        default_factory=dict, validate_default=True, description="People: by your name, their names by channel."
    )
    groups: dict[Name, tuple[Name, ...]] = Field(
        default_factory=dict, validate_default=True, description="Groups: the names of their users."
    )
    to: Annotated[
        tuple[Annotated[Entry, BeforeValidator(_entry, json_schema_input_type=str | Entry)], ...],
        BeforeValidator(_listed, json_schema_input_type=str | Entry | tuple[str | Entry, ...]),
    ] = Field(description="Where the names of those stand who are meant.")
    as_: Channel = Field(default=OWN, alias="as", description="The channel whose names these are; `name` are your own.")
    otherwise: Annotated[tuple[Name, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])] = Field(
        default=(), description="Users and groups that are meant where a message names nobody."
    )
    channels: tuple[Channel, ...] = Field(
        default=(), description="The channels that are written down, of which each receiver has to have one; else all there are."
    )
    each: bool = Field(default=True, description="A message for each receiver; false: one for all.")

    @field_validator("users", mode="before")
    @classmethod
    def _of_file(cls, users: Any, info: ValidationInfo) -> Any:
        file = info.data.get("file")
        return users if file is None or not isinstance(users, Mapping) else {**read_table(file).users, **users}

    @field_validator("groups", mode="before")
    @classmethod
    def _groups_of_file(cls, groups: Any, info: ValidationInfo) -> Any:
        file = info.data.get("file")
        if file is None or not isinstance(groups, Mapping) or not all(isinstance(some, list | tuple) for some in groups.values()):
            return groups
        found = read_table(file).groups if "users" in info.data else {}
        return found | {name: unique([*found.get(name, ()), *some]) for name, some in groups.items()}

    @field_validator("users")
    @classmethod
    def _users(cls, users: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        if not users:
            raise ValueError("nobody is a user: give `users`, or a `file` of them")
        if any(OWN in channels for channels in users.values()):
            raise ValueError(f"no channel is called '{OWN}': it stands for your own names")
        return users

    @field_validator("groups")
    @classmethod
    def _groups(cls, groups: dict[str, tuple[str, ...]], info: ValidationInfo) -> dict[str, tuple[str, ...]]:
        if (users := info.data.get("users")) is None:
            return groups  # what is wrong with them is told
        for name, members in groups.items():
            if unknown := [member for member in members if member not in users]:
                raise ValueError(f"group '{name}' names '{unknown[0]}', who is none of the users")
            if not members:
                raise ValueError(f"group '{name}' is empty")
        names = [folded(name) for name in (*users, *groups)]
        if len(names) != len({*names}):
            raise ValueError("two users or groups bear one name, or names that differ in case alone")
        return groups

    @field_validator("to")
    @classmethod
    def _to(cls, entries: tuple[Entry, ...], info: ValidationInfo) -> tuple[Entry, ...]:
        if not entries:
            raise ValueError("`to` names nobody")
        known = _known(info)
        for entry in entries:
            if known is None or entry.template is not None or entry.names in known:
                continue
            try:
                _ = entry.way
            except ValueError:
                raise ValueError("a user, a group, a place such as labels.assignee, or a template is expected") from None
        return entries

    @field_validator("otherwise")
    @classmethod
    def _otherwise(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = _known(info)
        if known is not None and any(name not in known for name in names):
            raise ValueError("names of users and groups are expected")
        return names

    @model_validator(mode="after")
    def _channels(self) -> Self:
        there = {OWN} | {channel for channels in self.users.values() for channel in channels}
        asked = {self.as_, *(entry.as_ for entry in self.to if entry.as_ is not None)}
        for channel in sorted({*self.channels, *asked} - there):
            raise ValueError(f"no user has a name on the channel '{channel}'")
        for channel in sorted(asked - {OWN}):
            names = [folded(user[channel]) for user in self.users.values() if channel in user]
            if len(names) != len({*names}):
                raise ValueError(f"two users have the same name on the channel '{channel}', by which they are looked up")
        return self


def _known(info: ValidationInfo) -> set[str] | None:
    """Give the names of users and groups; None where something is wrong with these, which is told."""
    users, groups = info.data.get("users"), info.data.get("groups")
    return None if users is None or groups is None else {*users, *groups}


def folded(name: str) -> str:
    """Give what is compared of a name: without regard to case, and to an @ before it."""
    return name.strip().removeprefix("@").casefold()


def split_names(text: str) -> list[str]:
    """Give the names in a text."""
    return [name for part in _SEVERAL.split(text) if (name := part.strip())]


def unique(names: Iterable[str]) -> list[str]:
    """Give names once each, in their order."""
    return [*dict.fromkeys(names)]
