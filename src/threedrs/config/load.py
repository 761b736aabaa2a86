"""The configuration: validated against the schema and against itself before anything runs.

Every problem is reported at once: unknown keys with the nearest valid one, values with the valid
choices, and the cross-checks that a schema cannot express.
"""

import copy
import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from threedrs.errors import ConfigError
from threedrs.inputs.download import downloads
from threedrs.instructions.mix_settings import MixSettings
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.registry import find_task
from threedrs.teachers.registry import TEACHERS

Config = dict[str, Any]

# Keys of the section `data` that change no stage's result; a run's settings go without them.
SCENE_POLICY = ("on_bad_scene", "max_bad_fraction")
UNSUPERVISED = {"weight": 0.0, "loss": "l2", "layer": "last"}  # of a run without a teacher
RUN_SECTIONS = ("data", "frames", "geometry", "boxes", "teacher", "supervision", "model", "train")


def load_config(config: Mapping[str, Any], schema_file: Path) -> Config:
    """Return ``config`` with the schema's defaults and kinds of numbers, and its keys in order.

    Raises:
        ConfigError: at least one value is wrong; the message has one line a problem.
    """
    checked, problems = check_config(config, schema_file)
    if checked is None or problems:
        raise ConfigError("\n".join(f"config: {problem}" for problem in problems))
    return checked


def check_config(config: Mapping[str, Any], schema_file: Path) -> tuple[Config | None, list[str]]:
    """Return ``config`` as `load_config` does, and its problems, a line each.

    It is None where a key is unknown, missing or of the wrong kind; other problems, such as files
    that are not there yet, leave a configuration that the rest of a machine can be held against.
    """
    schema = yaml.safe_load(Path(schema_file).read_text(encoding="utf-8"))
    checked = copy.deepcopy(dict(config))
    problems = list(_odd_values(checked, ()))
    if problems:
        return None, problems
    problems = [
        line
        for error in sorted(
            Draft202012Validator(schema).iter_errors(checked), key=lambda e: list(map(str, e.path))
        )
        for line in _describe(error, schema)
    ]
    if not problems:
        _fill_defaults(checked, schema)
        problems = list(_missing_keys(checked))
    if problems:
        return None, problems
    checked = _in_order(_typed(checked, schema, schema), schema)
    return checked, list(_cross_checks(checked))


def _typed(value: Any, part: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Return ``value`` with the numbers of the kind that its ``part`` of the schema says.

    To a schema 1000.0 is an integer and 1 a number; as text, which hashes and Snakemake compare,
    they are others than 1000 and 1.0.
    """
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        known, others = part.get("properties", {}), part.get("additionalProperties")
        others = others if isinstance(others, dict) else {}
        return {key: _typed(item, known.get(key, others), schema) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, part.get("items", {}), schema) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "integer" in part.get("type", ()) or "enum" in part:
            return int(value)
        if "number" in part.get("type", ()):
            return float(value)
    return value


def _in_order(config: Config, schema: Mapping[str, Any]) -> Config:
    """Return ``config`` with all keys sorted, but for the names of runs and mixes.

    Snakemake compares parameters as text: the order of keys in a file would count as a change, and
    so would that of the trained parts and of the layers with adapters.
    """
    ordered = _sorted_keys(config)
    keys = schema["$defs"]["train"]["properties"]
    for section in (ordered, *ordered["runs"].values()):
        train = section.get("train", {})
        if "tunable" in train:
            train["tunable"].sort(key=keys["tunable"]["items"]["enum"].index)
        if "targets" in (train.get("lora") or {}):
            targets = keys["lora"]["properties"]["targets"]
            train["lora"]["targets"].sort(key=targets["items"]["enum"].index)
    ordered["runs"] = {name: ordered["runs"][name] for name in config["runs"]}
    mixes = ordered["instructions"]["mixes"]
    ordered["instructions"]["mixes"] = {
        name: mixes[name] for name in config["instructions"]["mixes"]
    }
    return ordered


def _sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted_keys(value[key]) for key in sorted(value)}
    return [_sorted_keys(item) for item in value] if isinstance(value, list) else value


def resolve_run(config: Config, run: str) -> Config:
    """Return the sections that shape one training run, with the run's overrides merged in.

    What does not concern the run is left out, so that a change of it leaves the run as it is: the
    boxes of evaluation, other teachers' weights, and where it has no teacher all about one.
    """
    resolved = {name: copy.deepcopy(config[name]) for name in RUN_SECTIONS}
    for key in SCENE_POLICY:
        resolved["data"].pop(key, None)
    for section, overrides in config["runs"][run].items():
        resolved[section].update(copy.deepcopy(overrides))
    weights = resolved["teacher"]["weights"]
    if isinstance(weights, Mapping):
        resolved["teacher"]["weights"] = weights.get(resolved["teacher"]["name"])
    del resolved["boxes"]["eval"]  # a setting of prediction
    if resolved["teacher"]["name"] == "none":
        resolved["teacher"] = {"name": "none", "weights": None}
        resolved["supervision"] = dict(UNSUPERVISED)
    return resolved


def data_layout(config: Config) -> DataLayout:
    """Return where the configured data is."""
    data = config["data"]
    return DataLayout(
        root=Path(data["root"]),
        source=data["source"],
        scans=data["scans"],
        posed_images=data["posed_images"],
        candidates=data["candidates"],
        masks=data["masks"],
        labels=data["labels"],
        splits=data["splits"],
        benchmark=data["benchmark"],
    )


def _odd_values(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Say what JSON has not and a schema does not see: keys that are no text, NaN and infinity."""
    where = ".".join(path)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{where}: the key {key!r} is not a text to YAML; write it in quotes"
            yield from _odd_values(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _odd_values(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}; expected a finite number"


def _describe(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[str]:
    where = ".".join(str(step) for step in error.absolute_path)
    part: Any = error.schema
    value: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = list(part.get("properties", {}))
        for key in sorted(set(map(str, cast(dict, error.instance))) - set(known)):
            yield _unknown_key(where, key, known)
    elif error.validator == "enum" and "propertyNames" in error.absolute_schema_path:
        yield _unknown_key(where, str(error.instance), list(value))
    elif error.validator == "enum":
        choices = ", ".join(str(choice) for choice in value)
        yield f"{where} is {error.instance!r}; choose one of: {choices}"
    else:
        hint = ""
        if error.validator == "type" and "number" in value and isinstance(error.instance, str):
            # 1e-5 has no point: YAML 1.1 takes it for a text.
            with suppress(ValueError):
                number = yaml.safe_dump(float(error.instance)).split()[0]
                hint = f"; to YAML this is a text, write {number}"
        yield f"{where or 'file'}: {error.message}{hint}"


def _unknown_key(where: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(known)}"
    if key == "teacher" and where.endswith("supervision"):  # beside the loss one looks for it
        section = where.removesuffix("supervision") + "teacher"
        advice = f"the teacher is {section}.name"
    return f"{where}.{key} is not a key; {advice}".removeprefix(".")


def _fill_defaults(value: Any, schema: Mapping[str, Any]) -> None:
    for name, part in schema.get("properties", {}).items():
        if "default" in part:
            value.setdefault(name, part["default"])
        if isinstance(value.get(name), dict):
            _fill_defaults(value[name], part)


def _missing_keys(config: Config) -> Iterator[str]:
    needed = {
        "supervision": ("weight", "loss", "layer"),
        "model": ("name", "size", "path", "attention"),
        "train": ("seed", "mix", "global_batch", "pack", "deepspeed"),
    }
    for section, keys in needed.items():
        for key in keys:
            if key not in config[section]:
                yield f"{section}.{key} is missing (config/config.yaml has every key)"


def _cross_checks(config: Config) -> Iterator[str]:
    if config["report"]["baseline"] not in config["runs"]:
        yield (
            f"report.baseline is {config['report']['baseline']!r}, which is no run; "
            f"choose one of: {', '.join(config['runs'])}"
        )
    data = config["data"]
    for name, pattern, filled in (
        ("data.splits", data["splits"], {"split": "train"}),
        ("data.candidates", data["candidates"], {"split": "train"}),
        ("boxes.ready", config["boxes"]["ready"], {"split": "train", "set": "gt"}),
    ):
        try:
            (pattern or "").format(**filled)
        except (LookupError, ValueError, AttributeError) as error:
            yield f"{name} is {pattern!r}, which cannot be filled in: {error!r:.80}"
    if data["demo"] and data["source"] != "sens":
        yield f"data.source is {data['source']}; the demo data (data.demo) holds .sens only"
    if data["demo"] and data["candidates"]:
        yield "data.candidates is set; the demo data (data.demo) has no EmbodiedScan infos"
    benchmarks = (*config["instructions"]["benchmarks"], *config["eval"]["benchmarks"])
    for name in dict.fromkeys(benchmarks):
        try:
            find_task(name)
        except ConfigError as error:  # said now, not when the run that needs the part is over
            yield str(error)
    for name, mix in config["instructions"]["mixes"].items():
        try:
            settings = MixSettings.from_config(mix)
        except ConfigError as error:
            yield f"instructions.mixes.{name}: {error}"
            continue
        for benchmark in {**settings.sampling, **settings.weights}:
            if benchmark not in config["instructions"]["benchmarks"]:
                yield (
                    f"instructions.mixes.{name}: {benchmark} is not among instructions.benchmarks"
                )
    try:
        downloads(config)
    except ConfigError as error:
        yield from str(error).splitlines()
    resolved = {run: resolve_run(config, run) for run in config["runs"]}
    teachers = sorted({part["teacher"]["name"] for part in resolved.values()})
    weighted = [name for name in teachers if name in TEACHERS and TEACHERS[name].weights]
    if isinstance(config["teacher"]["weights"], str) and len(weighted) > 1:
        yield (
            f"teacher.weights is one path, but the runs use teachers {', '.join(weighted)}; "
            "give a mapping from teacher to path"
        )
    from threedrs.config.checks import check_run  # needs what nodes for data alone do not have

    # Whatever else is wrong with an entry of `download`, its files are no second problem.
    arriving = [Path(entry["to"]) / name for entry in config["download"] for name in entry["files"]]
    for run, sections in resolved.items():
        mixes = list(config["instructions"]["mixes"])
        for problem in check_run(sections, mixes=mixes, arriving=arriving):
            yield f"runs.{run}: {problem}"
