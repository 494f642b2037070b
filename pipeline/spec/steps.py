"""Reads one step of a pipeline: a plugin's name with its options, and the engine's keys beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.networks import ANYWHERE, Networks
from pipeline.plugin import Config, Plugin, PollingProducer, WebhookProducer
from pipeline.registry import Kind, MissingExtraError, PluginError, Registry, did_you_mean, suggestion
from pipeline.spec.options import hide_suspects, validate
from pipeline.spec.problems import Place, Problems
from pipeline.spec.siblings import NAME, RESERVED, SIBLINGS, ProducerSiblings, Siblings, keys
from pipeline.spec.tree import Entry, Items, Mapping, Node, Scalar

_PLUGIN_TOO: Final = "queue"
"""What is both: a plugin where options stand under it, and a key of the engine where it has a value."""
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Declared:
    """A step as it was read: all of it but its label."""

    kind: Kind
    plugin: str
    type: type[Plugin[Any]]
    config: Config
    options: Mapping
    siblings: Siblings
    place: Place
    networks: Networks
    shared: str | None = None
    """The name by which a shared step is used."""

    @property
    def usual_label(self) -> str:
        """The label that the step has where none is given."""
        if self.shared is not None:
            return self.shared
        if ":" in self.plugin:
            return _HUMP.sub("-", self.plugin.rpartition(":")[2].rpartition(".")[2]).strip("_").lower()
        return self.plugin


@dataclass(slots=True)
class Shared:
    """A step that `siftbell.yaml` declares for all pipelines; `step` is None where it is wrong, which is already told."""

    name: str
    place: Place
    node: Node
    step: Declared | None
    used: bool = False


class StepReader:
    """Reads steps; `shared` are those that `use:` may name."""

    def __init__(self, registry: Registry, problems: Problems, networks: Networks = ANYWHERE) -> None:
        self._registry = registry
        self._problems = problems
        self.networks = networks
        """Where the steps' plugins may connect to."""
        self.missed = False
        """Whether a step names a shared one that does not exist."""
        self.shared: dict[Kind, dict[str, Shared]] = {"producer": {}, "filter": {}, "consumer": {}}

    def read(self, kind: Kind, node: Node) -> Declared | None:
        """Read a step; None where it is wrong, after all its problems were told."""
        if node.broken:
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            node = Mapping(node.place, entries={node.value: Entry(node.place, Scalar(node.place))})
        if not isinstance(node, Mapping) or not node.entries:
            self._problems.error(
                node.place, f"a step is the name of a {kind} and its options", "such as '- name: {option: value}'"
            )
            return None
        named = {key: entry for key, entry in node.entries.items() if key not in RESERVED or self._is_plugin(kind, key)}
        named |= self._plugin_too(kind, node, alone=not named and "use" not in node.entries)
        if "use" in node.entries:
            return self._use(kind, node, named)
        if not named:
            self._problems.error(node.place, f"this step names no {kind}", "such as '- name: {option: value}'")
            return None
        name = self._plugin_key(kind, named)
        siblings = self._siblings(kind, node, named, name)
        found = self._plugin(kind, name, named[name], inactive=siblings is not None and not siblings.active)
        config = self._config(kind, name, found, named[name]) if found is not None else None
        if found is None or config is None or siblings is None:
            return None
        options = named[name].value
        declared = (
            options if isinstance(options, Mapping) else Mapping(options.place, entries={"": Entry(options.place, options)})
        )
        step = Declared(kind, name, found, config, declared, siblings, named[name].key, self.networks)
        return step if self._schedule_fits(step, node) else None

    def _is_plugin(self, kind: Kind, key: str) -> bool:
        """Say whether one of the engine's keys is a plugin's name here, as it belongs to other kinds: the filter `render`."""
        return key not in ("use", _PLUGIN_TOO, *keys(kind)) and key in self._registry.names(kind)

    def _plugin_too(self, kind: Kind, node: Mapping, *, alone: bool) -> dict[str, Entry]:
        """Give the key that is a plugin here, though it is also one of the engine's; `alone`: nothing else names a plugin."""
        entry = node.entries.get(_PLUGIN_TOO)
        if entry is None or _PLUGIN_TOO not in self._registry.names(kind):
            return {}
        nothing = isinstance(entry.value, Scalar) and entry.value.value is None
        return {_PLUGIN_TOO: entry} if isinstance(entry.value, Mapping) or (alone and nothing) else {}

    def _plugin_key(self, kind: Kind, named: dict[str, Entry]) -> str:
        """Say which key is the plugin's name; the others are told as what they probably were meant to be."""
        if len(named) == 1:
            return next(iter(named))
        installed = self._registry.names(kind)
        plugins = [key for key in named if key in installed or ":" in key]
        name = (plugins or list(named))[0]
        for key, entry in named.items():
            if key == name:
                continue
            if key in plugins:
                self._problems.error(entry.key, f"two {kind}s in one step: '{name}' and '{key}'", "begin each step with '- '")
                continue
            self._problems.error(entry.key, f"a {kind}'s step has no key '{key}'", self._meant(kind, key, name, named[name]))
        return name

    def _meant(self, kind: Kind, key: str, name: str, entry: Entry) -> str:
        if isinstance(entry.value, Scalar) and entry.value.value is None:
            return f"options of '{name}' are indented under it"
        return suggestion(key, keys(kind), none="")

    def _plugin(self, kind: Kind, name: str, entry: Entry, *, inactive: bool) -> type[Plugin[Any]] | None:
        try:
            return self._registry.find(kind, name)
        except MissingExtraError as error:
            tell = self._problems.warning if inactive else self._problems.error
            tell(entry.key, error.text, "it is inactive, so its options are not checked" if inactive else error.hint)
            hide_suspects(entry.value)
            return None
        except PluginError as error:
            self._problems.error(entry.key, error.text, error.hint)
            hide_suspects(entry.value)
            return None

    def _config(self, kind: Kind, name: str, found: type[Plugin[Any]], entry: Entry) -> Config | None:
        node, model, subject = entry.value, found.config_type, f"{kind} {name}"
        if isinstance(node, Scalar) and node.value is None:
            node = Mapping(entry.key)
        elif not isinstance(node, Mapping) and model.shorthand is not None:
            node = Mapping(node.place, entries={model.shorthand: Entry(entry.key, node)})
        if not isinstance(node, Mapping):
            self._problems.error(
                node.place, f"{subject}: a mapping of options is expected", f"such as '{name}: {{option: value}}'"
            )
            return None
        networks = self.networks if kind == "consumer" else ANYWHERE
        return validate(model, node, entry.key, subject, self._problems, networks)

    def _siblings(self, kind: Kind, node: Mapping, named: dict[str, Entry], name: str) -> Siblings | None:
        entries = {key: entry for key, entry in node.entries.items() if key not in named and key != "use"}
        mine = keys(kind)
        fine = len(named) <= 1
        for key, entry in list(entries.items()):
            if key not in mine:
                owners = " and ".join(f"{owner}s" for owner in SIBLINGS if key in keys(owner))
                text = f"'{key}' belongs to {owners}, not to a {kind}"
            elif isinstance(entry.value, Scalar) and entry.value.value is None and not entry.value.broken:
                text = f"{key}: a value is missing"
            else:
                continue
            self._problems.error(entry.key, text)
            del entries[key]
            fine = False
        place = node.entries[name].key
        siblings = validate(SIBLINGS[kind], Mapping(node.place, entries=entries), place, "", self._problems)
        return siblings if fine else None

    def _use(self, kind: Kind, node: Mapping, named: dict[str, Entry]) -> Declared | None:
        entry = node.entries["use"]
        for key, other in named.items():
            hint = did_you_mean(key, keys(kind)) or "a shared step's options stand in siftbell.yaml"
            self._problems.error(other.key, f"a step that says 'use' has no key '{key}'", hint)
        siblings = self._siblings(kind, node, named, "use")
        name = entry.value.plain()
        if not isinstance(name, str):
            self._problems.error(entry.value.place, f"use: the name of a shared {kind} is expected")
            return None
        if entry.value.broken:
            return None
        shared = self.shared[kind].get(name)
        if shared is None:
            self.missed = True
            self._problems.error(entry.value.place, *self._unknown_shared(kind, name))
            return None
        shared.used = True
        if named or siblings is None or shared.step is None:
            return None
        changes = {field: getattr(siblings, field) for field in siblings.model_fields_set}
        merged = shared.step.siblings.model_copy(update=changes)
        step = replace(shared.step, siblings=merged, place=entry.value.place, shared=name)
        return step if self._schedule_fits(step, node) else None

    def _unknown_shared(self, kind: Kind, name: str) -> tuple[str, str]:
        for other, steps in self.shared.items():
            if other != kind and name in steps:
                return f"the shared step '{name}' is a {other}, not a {kind}", ""
        hint = suggestion(name, self.shared[kind], none="siftbell.yaml declares none")
        return f"no shared {kind} is called '{name}'", hint

    def _schedule_fits(self, step: Declared, node: Mapping) -> bool:
        """Say whether the plugin can have the schedule it has; tells why not."""
        siblings = step.siblings
        if not isinstance(siblings, ProducerSiblings):
            return True
        key = next((node.entries[key].key for key in ("schedule", "timezone") if key in node.entries), step.place)
        if siblings.schedule is not None and not issubclass(step.type, PollingProducer):
            way = "messages are posted to it" if issubclass(step.type, WebhookProducer) else "it listens all the time"
            self._problems.error(key, f"producer {step.plugin} has no schedule: {way}", "remove this line")
            return False
        if siblings.schedule is not None and issubclass(step.type, PollingProducer) and not step.type.asks(step.config):
            option = step.type.asks_for
            self._problems.error(
                key, f"producer {step.plugin} has nothing to ask without '{option}'", "add it, or remove this line"
            )
            return False
        if siblings.timezone is not None and siblings.schedule is None:
            self._problems.error(key, "'timezone' stands beside a 'schedule'", "add one, or remove this line")
            return False
        return True


def read_shared(reader: StepReader, kind: Kind, node: Node, problems: Problems) -> None:
    """Read the shared steps of a kind (name → step) into the reader."""
    if isinstance(node, Scalar) and node.value is None:
        return
    if not isinstance(node, Mapping):
        hint = "such as 'archive: {file: {path: archive.jsonl}}'" if isinstance(node, Items) else ""
        problems.error(node.place, f"{kind}s: a mapping of names to steps is expected", hint)
        return
    for name, entry in node.entries.items():
        known = reader.shared[kind].get(name)
        if known is not None:
            problems.error(entry.key, f"another shared {kind} is called '{name}'", f"the first stands in {known.place}")
            continue
        step: Declared | None = None
        if not NAME.fullmatch(name):
            problems.error(entry.key, f"'{name}' cannot be a name", "it has lower-case letters, digits, '-' and '_' only")
        elif isinstance(entry.value, Mapping) and {"use", "as"} & entry.value.entries.keys():
            (key, *_) = {"use", "as"} & entry.value.entries.keys()
            problems.error(entry.value.entries[key].key, f"'{key}' stands where a shared step is used, not here")
        else:
            step = reader.read(kind, entry.value)
        reader.shared[kind][name] = Shared(name, entry.key, entry.value, step)
