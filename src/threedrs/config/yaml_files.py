"""Reads configuration files, naming the line of a slip, and merges them as Snakemake does."""

import json
import math
import shlex
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from threedrs.errors import ConfigError, DataError, problems_of, raise_all
from threedrs.io.files import read_text

MAIN = Path("config/config.yaml")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a section, of which YAML would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first = dict[str, int]()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            if name.value in first:
                line = first[name.value] + 1
                problem = f"the key {name.value} stands in line {line} already; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=name.start_mark)
            first[name.value] = name.start_mark.line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the sections in a YAML or JSON file.

    Raises:
        ConfigError: the file is missing, is not YAML (with the suffix .json: not JSON), has a key
            twice, or holds no sections; the message names the line.
    """
    try:
        text = read_text(path)
    except DataError as error:
        raise ConfigError(str(error)) from error
    try:
        if path.suffix == ".json":
            json.loads(text)
            text = text.expandtabs()  # JSON is YAML, except that its lines may begin with tabs
        content = yaml.load(text, Loader=_Loader)
    # PyYAML builds dates and numbers itself, and lets their own errors through.
    except (yaml.YAMLError, ValueError) as error:  # such as a date in month 13
        form = "JSON" if path.suffix == ".json" else "YAML"
        raise ConfigError(f"{path}: is not {form} ({_slip(error, text)})") from error
    if not isinstance(content, dict | None):
        raise ConfigError(f"{path}: holds no sections (such as train:); correct the file")
    return content or {}


def read_kind(path: Path, keys: Collection[str], example: str) -> dict[str, Any]:
    """Return the sections in a file of the kind that has these ``keys``, as ``example`` is.

    Raises:
        ConfigError: as `read_yaml`, or the file has several keys and none of these.
    """
    content = read_yaml(path)
    # One line, where a line for each of its keys would not say that the whole file is meant wrong.
    if len(content) > 1 and content.keys().isdisjoint(keys):
        known = ", ".join(keys)
        raise ConfigError(f"{path}: has none of the keys {known}; give a file such as {example}")
    return content


def _read_configuration(path: Path) -> dict[str, Any]:
    # Not above, as the shell's completion of a run's name reads a file and needs no schema.
    from threedrs.config.schema import Configuration

    return read_kind(path, Configuration.model_fields, "config/small.yaml")


def main_config(root: Path) -> Path:
    """Return config/config.yaml of the working folder, or else of the checkout under ``root``.

    Raises:
        ConfigError: there is none.
    """
    found = next((path for path in (MAIN, root / MAIN) if path.is_file()), None)
    if found is None:
        raise ConfigError(f"config: {MAIN} is neither in this folder nor in {root}; restore it")
    return found


def check_yaml(files: Iterable[Path]) -> None:
    """Read configurations for their errors.

    Raises:
        ConfigError: as `read_kind`, a line a file.
    """
    checks = (partial(_read_configuration, Path(file)) for file in files)
    raise_all(ConfigError(line) for check in checks for line in problems_of(check))


def _slip(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    problem = str(getattr(error, "problem", "")).strip()
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    # YAML's own words for these two slips ("found character that cannot start any token", "expected
    # <block end>") tell a user nothing.
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "a tab indents the line; indent with spaces"
    elif "expected <block end>" in problem:
        problem = "the line is indented otherwise than those above; indent a section's keys alike"
    return f"line {mark.line + 1}: {problem}"


def parse_values(entries: Sequence[str]) -> dict[str, Any]:
    """Return the sections that ``--config KEY=VALUE ...`` sets, each value as in a file.

    Raises:
        ConfigError: an entry is not of the form KEY=VALUE, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            if not (key.isidentifier() and text):
                raise ValueError("not of the form KEY=VALUE")
            value = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(
                f"--config {entry}: {_slip(error, text)}; type it as e.g. --config "
                "'data={root: FOLDER}'"
            ) from error
        values = overlaid(values, {key: value})
    return values


def config_option(key: str, value: Mapping[str, Any]) -> str:
    """Return the option ``--config`` that sets a section, as it is typed in a shell."""
    text = yaml.safe_dump(
        {**value}, default_flow_style=True, sort_keys=False, width=math.inf, allow_unicode=True
    )
    return shlex.join(["--config", f"{key}={text.strip()}"])


def merged(
    files: Sequence[Path], command: str, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return config/config.yaml with ``files`` and then ``values`` on top, not checked yet.

    They are merged as Snakemake does. The error names the ``command`` that asks.

    Raises:
        ConfigError: as `read_kind`, or the working directory is not the repository's folder.
    """
    if not MAIN.is_file():
        raise ConfigError(f"{MAIN}: missing; run threedrs {command} from the repository's folder")
    config: dict[str, Any] = {}
    for path in (MAIN, *files):
        config = overlaid(config, _read_configuration(path))
    return overlaid(config, values or {})


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the keys of ``above``, section by section."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        nested = isinstance(value, Mapping)
        found[key] = overlaid(old if isinstance(old, Mapping) else {}, value) if nested else value
    return found
