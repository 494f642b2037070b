"""From a plugin's name in YAML to its class: entry points, files in plugin directories, and `module:Class`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

from pipeline.errors import ConfigError
from pipeline.plugin import (
    BatchConsumer,
    Consumer,
    Filter,
    ListeningProducer,
    Plugin,
    PollingProducer,
    Producer,
    RememberingFilter,
    WebhookProducer,
    WindowFilter,
)

Kind = Literal["producer", "filter", "consumer"]
KINDS: Final[tuple[Kind, ...]] = ("producer", "filter", "consumer")

_BASES: Final[dict[Kind, tuple[type[Plugin[Any]], ...]]] = {
    "producer": (WebhookProducer, PollingProducer, ListeningProducer),
    "filter": (Filter, RememberingFilter, WindowFilter),
    "consumer": (Consumer, BatchConsumer),
}


class PluginError(ConfigError):
    """A plugin cannot be used. `text` says why, `hint` what to do about it (may be empty)."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(f"{text}: {hint}" if hint else text)
        self.text = text
        self.hint = hint


class UnknownPluginError(PluginError):
    """No plugin of this kind has this name."""


class WrongKindError(PluginError):
    """The name belongs to a plugin of another kind."""


class MissingExtraError(PluginError):
    """The plugin needs a package that is not installed."""


class BrokenPluginError(PluginError):
    """The plugin's module cannot be imported, or what it holds is not a plugin."""


class AmbiguousPluginError(PluginError):
    """Two places offer a plugin of this kind and name."""


def kind_of(found: object) -> Kind | None:
    """Say which kind of plugin a class is; None for what is not a plugin class."""
    if isinstance(found, type):
        for kind, bases in _BASES.items():
            if issubclass(found, bases):
                return kind
        if issubclass(found, Producer):
            return "producer"
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the hint for a misspelt name: the nearest known one, or nothing where none is near.

    A known one that is a word of the name goes before what only looks like it: Alertmanager's `repeat_interval` is
    a `repeat`, and no `interval`.
    """
    folded = {candidate.casefold(): candidate for candidate in known}
    misspelt = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.85)
    words = [word for word in name.casefold().split("_") if word in folded]
    near = misspelt or words or difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean '{folded[near[0]]}'?" if near else ""


def suggestion(name: str, known: Iterable[str], *, none: str) -> str:
    """Give the hint for an unknown name: the nearest known one, else all of them, else `none`."""
    names = list(known)
    there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else none
    return did_you_mean(name, names) or there


def place_of(error: BaseException, file: str | None = None) -> str:
    """Give `file:line` of where an exception arose, in `file` where it passed through it; empty where that is not known."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        places = [(frame.filename, frame.lineno) for frame in frames if not frame.filename.startswith("<frozen")]
    if file is None:
        return f"{places[-1][0]}:{places[-1][1]}" if places else ""
    lines = [line for name, line in places if Path(name) == Path(file).absolute()]
    return f"{file}:{lines[-1]}" if lines else file


class Registry:
    """Finds plugins by kind and name. Nothing is imported before it is asked for.

    `plugin_directories` hold `*.py` files: each may hold one plugin per kind, which bears the file's name. A file
    that cannot be imported is an error for those who ask for its name, and for nobody else. Tests may lie beside them:
    `test_*.py` and `conftest.py` are left alone.
    """

    def __init__(self, plugin_directories: Sequence[Path] = ()) -> None:
        self.plugin_directories = tuple(plugin_directories)
        self._found: dict[tuple[Kind, str], type[Plugin[Any]]] = {}
        self._modules: dict[Path, ModuleType | BrokenPluginError] = {}

    def names(self, kind: Kind) -> list[str]:
        """Give the names of all plugins of a kind, sorted. Imports the files of the plugin directories; skips broken ones."""
        names = {entry.name for entry in self._entries[kind]}
        for path in self._files:
            if not isinstance(self._module(path), BrokenPluginError) and self._classes(path, kind):
                names.add(path.stem)
        return sorted(names)

    def broken(self) -> list[BrokenPluginError]:
        """Give the errors of the files in the plugin directories that cannot be imported."""
        return [module for module in map(self._module, self._files) if isinstance(module, BrokenPluginError)]

    def find(self, kind: Kind, name: str) -> type[Plugin[Any]]:
        """Give the class of a plugin. Raises `PluginError`, one of its subclasses, for what cannot be used."""
        if (kind, name) not in self._found:
            found = _reference(name) if ":" in name else self._named(kind, name)
            _refuse_unusable(found, kind, name)
            self._found[kind, name] = found
        return self._found[kind, name]

    @cached_property
    def _entries(self) -> dict[Kind, list[EntryPoint]]:
        return {kind: list(entry_points(group=f"siftbell.{kind}s")) for kind in KINDS}

    @cached_property
    def _files(self) -> list[Path]:
        found = (path for directory in self.plugin_directories for path in sorted(directory.glob("*.py")))
        return [path for path in found if not path.name.startswith(("_", ".", "test_")) and path.name != "conftest.py"]

    def _named(self, kind: Kind, name: str) -> type[Plugin[Any]]:
        offers: dict[str, EntryPoint | type[Plugin[Any]]] = {}
        for entry in self._entries[kind]:
            if entry.name == name:
                offers[f"distribution '{_distribution(entry)}' ({entry.value})"] = entry
        for path in self._files:
            if path.stem == name:
                offers |= {f"{path} ({found.__name__})": found for found in self._classes(path, kind)}
        if not offers:
            raise self._unknown(kind, name)
        if len(offers) > 1:
            places = " and ".join(sorted(offers))
            raise AmbiguousPluginError(f"{kind} '{name}' is offered twice: by {places}", "remove one of them")
        (offer,) = offers.values()
        return _load(offer, kind) if isinstance(offer, EntryPoint) else offer

    def _unknown(self, kind: Kind, name: str) -> PluginError:
        for other in KINDS:
            if other != kind and name in self.names(other):
                return WrongKindError(f"'{name}' is {_article(other)}, not {_article(kind)}")
        hint = suggestion(name, self.names(kind), none="none is installed")
        return UnknownPluginError(f"no {kind} is called '{name}'", hint)

    def _classes(self, path: Path, kind: Kind) -> list[type[Plugin[Any]]]:
        module = self._module(path)
        if isinstance(module, BrokenPluginError):
            raise module
        own = (value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__)
        return [value for value in own if kind_of(value) == kind and not inspect.isabstract(value)]

    def _module(self, path: Path) -> ModuleType | BrokenPluginError:
        if path not in self._modules:
            try:
                self._modules[path] = _import_file(path)
            except BrokenPluginError as error:
                self._modules[path] = error
        return self._modules[path]


def _import_file(path: Path) -> ModuleType:
    name = f"_siftbell_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BrokenPluginError(_importing(error, str(path))) from error
    return module


def _load(entry: EntryPoint, kind: Kind) -> type[Plugin[Any]]:
    subject = f"{kind} '{entry.name}'"
    try:
        found: Any = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] == entry.module.partition(".")[0]:
            raise BrokenPluginError(f"{subject} of '{_distribution(entry)}' cannot be imported: {error}") from error
        if entry.extras:
            hint = f'pip install "{_distribution(entry)}[{",".join(entry.extras)}]"'
            raise MissingExtraError(f"{subject} needs: {hint}") from error
        text = f"{subject} of '{_distribution(entry)}' needs the module '{missing}', which is not installed"
        raise MissingExtraError(text) from error
    except AttributeError as error:
        text = f"{subject} of '{_distribution(entry)}' cannot be loaded: '{entry.module}' has no '{entry.attr}'"
        raise BrokenPluginError(text) from error
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(f"{subject} of '{_distribution(entry)}': {_importing(error)}") from error
    return found  # type: ignore[no-any-return]  # what it is, is checked by _refuse_unusable


def _reference(name: str) -> type[Plugin[Any]]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            text = f"no module is called '{error.name}'"
            raise UnknownPluginError(text, "is its directory in PYTHONPATH?") from error
        raise MissingExtraError(f"'{name}' needs the module '{error.name}', which is not installed") from error
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(f"'{module_name}': {_importing(error)}") from error
    found: Any = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if kind_of(value) is not None]
        raise UnknownPluginError(f"module '{module_name}' has no class '{attribute}'", did_you_mean(attribute, known))
    return found  # type: ignore[no-any-return]  # what it is, is checked by _refuse_unusable


def _refuse_unusable(found: type[Plugin[Any]], kind: Kind, name: str) -> None:
    actual = kind_of(found)
    if actual is None:
        raise BrokenPluginError(f"'{name}' is not a plugin class")
    if actual != kind:
        raise WrongKindError(f"'{name}' is {_article(actual)}, not {_article(kind)}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise BrokenPluginError(f"{kind} '{name}' is not complete: {found.__name__} does not define {missing}")


def _importing(error: BaseException, file: str | None = None) -> str:
    place = place_of(error, file)
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    raised = f"{type(error).__name__}: {what}" if what else type(error).__name__
    return f"{place}: {raised}" if place else raised


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def _article(kind: Kind) -> str:
    return f"a {kind}"
