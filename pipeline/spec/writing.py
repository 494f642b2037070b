"""Writes plain values as YAML, for the command line."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from ruamel.yaml import YAML


def to_yaml(value: Any) -> str:
    """Write what JSON can hold as YAML 1.2 in block style, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel annotates it by its default, None
    # ruamel writes these line breaks as they are, and a reader folds them
    yaml.allow_unicode = not any(mark in json.dumps(value, ensure_ascii=False) for mark in "\x85\u2028\u2029")
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n")
