"""The configuration: validated against the schema and against itself before anything runs.

Every problem is reported at once: unknown keys with the nearest valid one, values with the valid
choices, and the cross-checks that a schema cannot express.
"""

import copy
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from threedrs.errors import ConfigError
from threedrs.layout import DataLayout

Config = dict[str, Any]

RUN_SECTIONS = ("data", "frames", "geometry", "boxes", "teacher", "supervision", "model", "train")


def load_config(config: Mapping[str, Any], schema_file: Path) -> Config:
    """Return ``config`` with the schema's defaults filled in.

    Raises:
        ConfigError: at least one value is wrong; the message has one line a problem.
    """
    schema = yaml.safe_load(Path(schema_file).read_text(encoding="utf-8"))
    checked = copy.deepcopy(dict(config))
    problems = [
        line
        for error in sorted(
            Draft202012Validator(schema).iter_errors(checked), key=lambda e: list(map(str, e.path))
        )
        for line in _describe(error, schema)
    ]
    if not problems:
        _fill_defaults(checked, schema)
        problems = list(_cross_checks(checked))
    if problems:
        raise ConfigError("\n".join(f"config: {problem}" for problem in problems))
    return checked


def resolve_run(config: Config, run: str) -> Config:
    """Return the sections that shape one training run, with the run's overrides merged in."""
    resolved = {name: copy.deepcopy(config[name]) for name in RUN_SECTIONS}
    for section, overrides in config["runs"][run].items():
        resolved[section].update(copy.deepcopy(overrides))
    return resolved


def data_layout(config: Config) -> DataLayout:
    """Return where the configured data is."""
    data = config["data"]
    return DataLayout(
        root=Path(data["root"]),
        scans=data["scans"],
        masks=data["masks"],
        labels=data["labels"],
        splits=data["splits"],
        benchmark=data["benchmark"],
    )


def _describe(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[str]:
    where = ".".join(str(step) for step in error.absolute_path)
    part: Any = error.schema
    value: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = list(part.get("properties", {}))
        for key in sorted(set(map(str, cast(dict, error.instance))) - set(known)):
            name = f"{where}.{key}" if where else key
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(known)}"
            yield f"{name} is not a key; {advice}"
    elif error.validator == "enum":
        choices = ", ".join(str(choice) for choice in value)
        yield f"{where} is {error.instance!r}; choose one of: {choices}"
    elif error.validator == "oneOf":
        yield f"{where} is {error.instance!r}, none of the accepted forms (see config/config.yaml)"
    else:
        yield f"{where or 'file'}: {error.message}"


def _fill_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    for name, part in schema.get("properties", {}).items():
        if "default" in part:
            value.setdefault(name, part["default"])
        if isinstance(value.get(name), dict):
            _fill_defaults(value[name], part)


def _cross_checks(config: Config) -> Iterator[str]:
    for section in ("supervision", "model", "train"):
        missing = {
            "supervision": ("weight", "loss", "layer"),
            "model": ("name", "size", "path", "attention"),
            "train": ("seed", "mix", "global_batch", "pack", "deepspeed"),
        }[section]
        for key in missing:
            if key not in config[section]:
                yield f"{section}.{key} is missing (config/config.yaml has every key)"
                return
    if config["report"]["baseline"] not in config["runs"]:
        yield (
            f"report.baseline is {config['report']['baseline']!r}, which is no run; "
            f"choose one of: {', '.join(config['runs'])}"
        )
    for run in config["runs"]:
        yield from _check_run(run, resolve_run(config, run), config)


def _check_run(run: str, resolved: Config, config: Config) -> Iterator[str]:
    train, model = resolved["train"], resolved["model"]
    mixes = config["instructions"]["mixes"]
    if train["mix"] not in mixes:
        yield f"runs.{run}: train.mix is {train['mix']!r}; choose one of: {', '.join(mixes)}"
    batch, pack = train["global_batch"], train["pack"]
    if batch % pack:
        divisors = ", ".join(str(k) for k in range(1, batch + 1) if batch % k == 0)
        yield (
            f"runs.{run}: train.pack is {pack}, which does not divide train.global_batch {batch}; "
            f"choose one of: {divisors}"
        )
    if not Path(train["deepspeed"]).is_file():
        file = train["deepspeed"]
        yield f"runs.{run}: train.deepspeed: {file} is not a file (see config/deepspeed/)"
    if model["size"] != "tiny" and not model["path"]:
        yield (
            f"runs.{run}: model.size {model['size']} needs model.path, the folder of the "
            "pretrained checkpoint (README.md: licences and downloads)"
        )
    elif model["path"] and not Path(model["path"]).is_dir():
        yield f"runs.{run}: model.path: {model['path']} is not a folder"
    if resolved["teacher"]["name"] == "vggt":
        weights = resolved["teacher"]["weights"]
        if not weights:
            yield (
                f"runs.{run}: teacher vggt needs teacher.weights, the path of VGGT-1B's model.pt "
                "or model.safetensors (README.md: licences and downloads)"
            )
        elif not Path(weights).is_file():
            yield f"runs.{run}: teacher.weights: {weights} is not a file"
