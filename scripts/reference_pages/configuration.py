"""Page of the configuration: every section and key, from the JSON schema of ``Config``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lepton_vision.config import Config
from reference_pages.markdown import code, page, prose, table

_KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_LIMITS = (("minimum", "≥ {}"), ("exclusiveMinimum", "> {}"), ("maximum", "≤ {}"), ("exclusiveMaximum", "< {}"))
_LEAD = """A configuration is a YAML file of the sections below. What it leaves out has the default; an unknown
key is an error that names the nearest valid one. `--set section.key=value` changes a single value on the command
line, and `config.override("section.key=value")` in Python, where `help(Config)` shows this page. A run keeps its
complete configuration as `config.yaml`, a bundle in `bundle.json`."""
_EXAMPLE = """```yaml
targets: [{name: covid, kind: binary, classes: [NonCOVID, COVID], column: label}]
preprocess: {size: [224, 224]}
train: {epochs: 30, lr: 0.0005}
```"""


def configuration() -> str:
    """The page."""
    schema = Config.model_json_schema()
    parts = [_LEAD, _EXAMPLE, _overview(schema)]
    for name, key in schema["properties"].items():
        section = _section(key, schema)
        where = "each item of `targets`" if name == "targets" else f"`{name}`"
        rows = [_row(one, facts, section, schema) for one, facts in section["properties"].items()]
        parts += [f"## {name}", f"Keys of {where}. {_said(key)}"]
        parts += [table(("key", "values", "default", "meaning"), rows)]
    return page("Configuration", *parts)


def _overview(schema: Mapping[str, Any]) -> str:
    rows = [(f"[`{name}`](#{name})", _said(key)) for name, key in schema["properties"].items()]
    return table(("section", "what it says"), rows)


def _section(key: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Schema of the section, or of the items, that a key holds."""
    for one in (key, key.get("items", {}), *key.get("anyOf", ()), *key.get("allOf", ())):
        if "$ref" in one:
            found: Mapping[str, Any] = schema["$defs"][one["$ref"].rsplit("/", 1)[1]]
            return found
    raise ValueError(f"A key without a section: {key}")


def _row(name: str, key: Mapping[str, Any], section: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[str, ...]:
    is_required = name in section.get("required", ())
    default = "required" if is_required else code(json.dumps(key.get("default", _empty(key)), ensure_ascii=False))
    return code(name), values_of(key, schema), default, _said(key)


def _said(key: Mapping[str, Any]) -> str:
    """Description of a key, with the words of YAML."""
    return re.sub(r"\bNone\b", "`null`", prose(key.get("description", "")))


def _empty(key: Mapping[str, Any]) -> Any:
    return {"object": {}, "array": []}.get(key.get("type", ""))


def values_of(key: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a key may hold, in words."""
    if "$ref" in key:
        inner = schema["$defs"][key["$ref"].rsplit("/", 1)[1]]
        return _fields(inner, schema) if inner.get("type") == "object" else values_of(inner, schema)
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(values_of(one, schema) for one in key["anyOf"]))
    if "enum" in key or "const" in key:
        return ", ".join(code(one) for one in key.get("enum", [key.get("const")]))
    if key.get("type") == "null":
        return "`null`"
    if key.get("type") == "array":
        return _list(key, schema)
    if key.get("type") == "object":
        inner = key.get("additionalProperties")
        return f"mapping of names to {values_of(inner, schema)}" if isinstance(inner, Mapping) else "mapping"
    limits = [text.format(f"{key[name]:g}") for name, text in _LIMITS if name in key]
    return " ".join([_KINDS.get(key.get("type", ""), "any value"), " and ".join(limits)]).strip()


def _list(key: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "prefixItems" in key:
        kinds = list(dict.fromkeys(values_of(one, schema) for one in key["prefixItems"]))
        return f"list of {len(key['prefixItems'])}: {', '.join(kinds)}"
    least = f" of at least {key['minItems']}" if key.get("minItems") else ""
    return f"list{least}: {values_of(key.get('items', {}), schema)}"


def _fields(inner: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    required = inner.get("required", ())
    shown = (f"{code(name)}{'' if name in required else ' (optional)'}" for name in inner["properties"])
    return f"mapping with {', '.join(shown)}"
