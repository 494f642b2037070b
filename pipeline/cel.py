"""CEL's compiler: the extension of the package `cel` without its command line, which is 25 MB and a fifth of a second of imports.

What else imports `cel` gets the same extension: it can be loaded only once in a process.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, Final

_EXTENSION: Final = "cel.cel"


def _load() -> ModuleType:
    package = PathFinder.find_spec("cel")
    places = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec(_EXTENSION, places) if places is not None else None
    if _EXTENSION in sys.modules or spec is None or spec.loader is None:
        return import_module(_EXTENSION)
    extension = module_from_spec(spec)
    spec.loader.exec_module(extension)
    sys.modules[_EXTENSION] = extension
    return extension


_extension: Final = _load()


def compile_expression(text: str) -> Any:
    """Give the compiled expression; raises ValueError for what is not CEL."""
    return _extension.compile(text)
