"""Writes what is generated from the schema: ``python -m threedrs.config.reference``.

workflow/schemas/config.schema.json is for editors, docs/CONFIGURATION.md for readers. A test
compares both with the schema.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threedrs.config.schema import Configuration
from threedrs.io.files import write_text

SCHEMA_FILE = Path("workflow/schemas/config.schema.json")
PAGE_FILE = Path("docs/CONFIGURATION.md")
_RANGES = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}
INTRODUCTION = """# Configuration

Every key, generated from `src/threedrs/config/schema.py` by `python -m threedrs.config.reference`.
The defaults are those of `config/config.yaml`, the demo; `config/paper.yaml` holds the paper's
values. A file given with `--configfile` is laid over `config/config.yaml`, key by key.
"""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, of which every key may be left out."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return _plain(schema | Configuration.model_json_schema())


def _plain(value: Any) -> Any:
    """Leave out titles, which repeat the keys, defaults of sections, and line breaks."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {
        key: _plain(item)
        for key, item in value.items()
        if not (key == "title" and isinstance(item, str))
        and not (key == "default" and isinstance(item, dict) and item)
    }
    if isinstance(plain.get("description"), str):
        plain["description"] = " ".join(plain["description"].split())
    return plain


def page() -> str:
    """Return the reference page, in Markdown."""
    return "\n".join((INTRODUCTION, *_section("", json_schema(), json_schema()["$defs"])))


def _section(name: str, part: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    """Yield a section's table, and those of the sections below it."""
    properties = part["properties"]
    # The section that a key holds, alone, by name or in a list; None for a plain value.
    named = {key: re.search(r"#/\$defs/(\w+)", json.dumps(v)) for key, v in properties.items()}
    below = {key: parts[found[1]] if found else None for key, found in named.items()}
    if name:
        yield f"## `{name}`\n\n{part['description']}\n"
        yield "| key | value | default | meaning |\n|---|---|---|---|"
        for key, value in properties.items():
            meaning = value.get("description") or (below[key] or {}).get("description", "")
            cells = (f"`{key}`", _values(value, parts), _default(value), meaning)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""
    # The table first, the sections below it after: a page is read from the outside in.
    for key, inner in below.items():
        if inner is not None and name != "runs.<name>":  # what a run changes has its own section
            of_many = {"object": ".<name>", "array": "[]"}.get(properties[key].get("type"), "")
            yield from _section(f"{name}.{key}{of_many}".removeprefix("."), inner, parts)


def _values(value: dict[str, Any], parts: dict[str, Any]) -> str:
    """Return the type of a value, its choices or its range, in words."""
    if "anyOf" in value or "oneOf" in value:
        forms = value.get("anyOf") or value["oneOf"]
        return " or ".join(dict.fromkeys(_values(form, parts) for form in forms))
    if "const" in value or "enum" in value:
        choices = value.get("enum", [value.get("const")])
        return ", ".join(f"`{choice}`" for choice in choices)
    if "$ref" in value:
        return "section"
    kind = value.get("type", "")
    if kind == "array":
        return f"list of: {_values(value['items'], parts)}"
    if kind == "object":
        inner = [value.get("additionalProperties"), *value.get("patternProperties", {}).values()]
        return f"name -> {_values(next(part for part in inner if part), parts)}"
    return " ".join((kind, *(f"{_RANGES[key]} {value[key]:g}" for key in _RANGES if key in value)))


def _default(value: dict[str, Any]) -> str:
    if "default" not in value:
        return ""
    default = value["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def main() -> None:
    """Write both files."""
    write_text(SCHEMA_FILE, json.dumps(json_schema(), indent=2) + "\n")
    write_text(PAGE_FILE, page())


if __name__ == "__main__":
    main()
