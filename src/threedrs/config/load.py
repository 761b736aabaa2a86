"""The configuration: checked against the schema and against itself before anything runs.

Every problem is reported at once: what `threedrs.config.schema` refuses, and the cross-checks that
concern several sections or the files that they name.
"""

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from threedrs.config.schema import INITIAL, Configuration, Run, SupervisionSettings
from threedrs.config.section import problem_lines
from threedrs.demo.write import check_files
from threedrs.errors import ConfigError, choose_one, nearest_path, problems_of
from threedrs.inputs.download import downloads
from threedrs.inputs.required_files import trained_runs
from threedrs.instructions.mix_settings import MixSettings
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.excluded_scans import BadScenePolicy
from threedrs.scannet.layout import DataLayout, DataPlaces
from threedrs.tasks.registry import find_task
from threedrs.teachers.known_teachers import NO_TEACHER, get_teacher

Config = dict[str, Any]

CHECKOUT = Path(__file__).resolve().parents[3]
# Keys of the section `data` that change no stage's result; a run's settings go without them.
APART = (*BadScenePolicy.model_fields, "scenes")
UNSUPERVISED = SupervisionSettings(weight=0.0).to_json()  # what a run without a teacher has
OVERRIDDEN = ("teacher", "supervision", "model", "train", "execution")  # by a run
RUN_SECTIONS = ("data", "frames", "geometry", "boxes", *OVERRIDDEN)


def load_config(config: Mapping[str, Any], *, files: bool = True) -> Config:
    """Return ``config`` with all defaults, numbers of their keys' kinds, and keys in order.

    Without ``files`` data, checkpoints and weights need not be there yet.

    Raises:
        ConfigError: at least one value is wrong; the message has one line a problem.
    """
    checked, problems = check_config(config, files=files)
    if checked is None or problems:
        raise ConfigError("\n".join(f"config: {problem}" for problem in problems))
    return checked


def check_config(
    config: Mapping[str, Any], *, files: bool = True
) -> tuple[Config | None, list[str]]:
    """Return ``config`` as `load_config` does, and its problems, a line each.

    It is None where a key is unknown, missing or of the wrong kind; other problems, such as files
    that are not there yet, leave a configuration that the rest of a machine can be held against.
    """
    try:
        found = Configuration.model_validate(config)
    except ValidationError as error:
        return None, problem_lines(error, Configuration)
    runs = {name: run for name, run in found.runs.items() if run is not None}
    if problems := [*_check_extends(runs)]:
        return None, problems
    checked = _sorted_keys(found.to_json())
    # Overrides hold what a run says, and a mix, whose keys depend on each other, is as written.
    checked["runs"] = {name: _sorted_keys(_overrides(name, runs)) for name in runs}
    checked["instructions"]["mixes"] = {
        name: _sorted_keys(mix.model_dump(mode="json", exclude_unset=True))
        for name, mix in found.instructions.mixes.items()
    }
    root = Path(checked["data"]["root"])
    checked["teacher"]["weights"] = _below_root(checked["teacher"]["weights"], root)
    runs = checked["runs"].values()
    for section in (checked["model"], *(run.get("model", {}) for run in runs), *runs):
        for key in {"path", "checkpoint"} & {*section}:
            # What is shipped lies beside the code, whatever folder a run is started in.
            if (key, section[key]) != ("checkpoint", INITIAL):
                section[key] = _below_root(_below_root(section[key], root), CHECKOUT)
    for section in (checked["execution"], *(run.get("execution", {}) for run in runs)):
        if "deepspeed" in section:
            section["deepspeed"] = _below_root(section["deepspeed"], CHECKOUT)
    ready = checked["instructions"]["ready"]
    checked["instructions"]["ready"] = {split: path for split, path in ready.items() if path}
    return checked, list(_cross_checks(checked, files=files))


def _check_extends(runs: Mapping[str, Run]) -> Iterator[str]:
    if not runs:
        yield "runs: all are switched off (null); keep one"
    for name, run in runs.items():
        if run.extends is not None and run.extends not in runs:
            yield (
                f"runs.{name}.extends is {run.extends!r}, which is not a run; "
                f"{choose_one(run.extends, [other for other in runs if other != name])}"
            )
    try:
        TopologicalSorter({name: {run.extends} - {None} for name, run in runs.items()}).prepare()
    except CycleError as error:
        yield f"runs: extends leads in a circle, {' -> '.join(reversed(error.args[1]))}"


def _overrides(name: str, runs: Mapping[str, Run]) -> Config:
    """Return section -> what the run says of it, on top of what the run that it extends says."""
    run = runs[name]
    found = _overrides(run.extends, runs) if run.extends else {}
    for section in OVERRIDDEN:
        part = getattr(run, section)
        said = part.model_dump(mode="json", include=part.model_fields_set)
        if said or section in run.model_fields_set:
            found[section] = {**found.get(section, {}), **said}
    if run.checkpoint is not None:
        found["checkpoint"] = run.checkpoint
    return found


def _sorted_keys(value: Any) -> Any:
    """Sort all keys: Snakemake compares settings as text, where another order is a change."""
    return json.loads(json.dumps(value, sort_keys=True))


def resolve_run(config: Config, run: str) -> Config:
    """Return the sections that shape one run, with the run's overrides merged in.

    What does not concern the run is excluded, so that a change of it leaves the run as it is: the
    boxes of evaluation, other teachers' weights, and where it has no teacher all about one. A run
    that evaluates a checkpoint has ``checkpoint``, and of training the seed of new heads alone.
    """
    resolved = {name: copy.deepcopy(config[name]) for name in RUN_SECTIONS}
    for key in APART:
        resolved["data"].pop(key, None)
    said = config["runs"][run]
    for section in OVERRIDDEN:
        resolved[section].update(copy.deepcopy(said.get(section, {})))
    checkpoint = said.get("checkpoint")
    if checkpoint is not None:
        if checkpoint != INITIAL:
            resolved["model"] |= {"path": checkpoint, "random_weights": False}
        shaping = {name: resolved[name] for name in ("data", "frames", "geometry", "model")}
        seed = resolved["train"]["seed"]
        return {**shaping, "train": {"seed": seed}, "checkpoint": checkpoint}
    weights = resolved["teacher"]["weights"]
    if isinstance(weights, Mapping):
        resolved["teacher"]["weights"] = weights.get(resolved["teacher"]["name"])
    del resolved["boxes"]["eval"]  # a setting of prediction
    if resolved["teacher"]["name"] == NO_TEACHER:
        resolved["teacher"] = {"name": NO_TEACHER, "weights": None}
        resolved["supervision"] = dict(UNSUPERVISED)
    return resolved


def data_layout(config: Config) -> DataLayout:
    """Return where the user's files are, the prepared ones by name, and what will be downloaded.

    Raises:
        ConfigError: as `threedrs.inputs.download.downloads`.
    """
    trained = {*config["instructions"]["benchmarks"]}
    asked = trained | {*config["eval"]["benchmarks"]}
    records = {
        split: {
            benchmark: array.format(split=split, benchmark=benchmark)
            # Where no list names the scenes of train, an array that is only asked must not.
            for benchmark in sorted(trained if split == "train" else asked)
            if (array := named.get(benchmark) if isinstance(named, Mapping) else named)
        }
        for split, named in config["instructions"]["ready"].items()
    }
    ready = config["boxes"]["ready"]
    boxes = {
        split: {name: ready.format(split=split, set=name) for name in BOX_SETS}
        for split in ("train", "val")
        if ready
    }
    arriving = frozenset(path for entry in downloads(config) for path in entry.paths())
    places = {key: config["data"][key] for key in DataPlaces.model_fields}
    return DataLayout(**places, boxes=boxes, records=records, arriving=arriving)


def _below_root(named: Any, root: Path) -> Any:
    """Return a path, or each of a mapping, with ``root`` before it if it is there only so."""
    if isinstance(named, Mapping):
        return {name: _below_root(path, root) for name, path in named.items()}
    with suppress(PermissionError):  # a folder that may not be entered; what reads it says so
        if named is not None and not Path(named).exists() and (root / named).exists():
            return (root / named).as_posix()
    return named


def check_root(config: Mapping[str, Any]) -> None:
    """Check that ``data.root`` is the data's folder, and not the one above it or one below it.

    A folder without data is not a problem of the root: the missing files are named. Where demo data
    is to be generated, no file of anything else may be in its way.

    Raises:
        ConfigError: it is not; the line names the folder that may be meant.
        DataError: demo data would replace a file.
        OSError: it cannot be looked at.
    """
    root, demo = Path(config["data"]["root"]), config["data"]["demo"]
    if demo:
        # Snakemake removes what is there of a job's outputs before the job can look at it, and the
        # demo's scans are named as ScanNet's.
        check_files(root, demo["scenes"])
        return
    # A download makes the folders that it fills.
    arriving = any(root in (to := Path(entry["to"]), *to.parents) for entry in config["download"])
    if arriving:
        return
    if not root.is_dir():
        advice = " ".join(filter(None, [nearest_path(root), "name the folder that holds scannet/"]))
        raise ConfigError(
            f"{root} is not a folder; {advice}, as in --config 'data={{root: FOLDER}}'"
        )
    right = None if _holds_data(root, config) else _data_beside(root, config)
    if right is not None:
        raise ConfigError(f"{root} does not hold the data, but {right} does; name that one")


def _holds_data(root: Path, config: Mapping[str, Any]) -> bool:
    """Whether any of the places that the section ``data`` names is below ``root``."""
    keys = ("scans", "posed_images", "point_clouds", "masks", "labels", "benchmark")
    return any((root / name).exists() for name in [config["data"][key] for key in keys] if name)


def _data_beside(root: Path, config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the data if that is one level above or below ``root``."""
    with suppress(OSError):  # a folder that this user may not list
        inner = [path for path in sorted(root.iterdir()) if path.is_dir()]
        around = (Path(os.path.normpath(root / "..")), *inner)
        return next((path for path in around if _holds_data(path, config)), None)
    return None


def _has_weights(teacher: str) -> bool:
    try:
        return teacher != NO_TEACHER and get_teacher(teacher).weights is not None
    except ConfigError:  # said of the runs that use it
        return False


def _cross_checks(config: Config, *, files: bool) -> Iterator[str]:
    if config["report"]["baseline"] not in config["runs"]:
        yield (
            f"report.baseline is {config['report']['baseline']!r}, which is not a run; "
            f"{choose_one(config['report']['baseline'], config['runs'])}"
        )
    data = config["data"]
    if data["demo"] and data["source"] != "sens":
        yield f"data.source is {data['source']}; the demo data (data.demo) holds .sens only"
    if data["demo"] and data["candidates"]:
        yield "data.candidates is set; the demo data (data.demo) has no EmbodiedScan infos"
    benchmarks = (*config["instructions"]["benchmarks"], *config["eval"]["benchmarks"])
    for name in dict.fromkeys(benchmarks):
        # Said now, not when the run that needs the part is over.
        yield from problems_of(partial(find_task, name))
    for name, mix in config["instructions"]["mixes"].items():
        yield from problems_of(partial(MixSettings, **mix), f"instructions.mixes.{name}: ")
        for benchmark in {**mix.get("sampling", {}), **mix.get("weights", {})}:
            if benchmark not in config["instructions"]["benchmarks"]:
                yield (
                    f"instructions.mixes.{name}: {benchmark} is not among instructions.benchmarks"
                )
    yield from problems_of(partial(downloads, config))
    resolved = {run: resolve_run(config, run) for run in config["runs"]}
    teachers = sorted({resolved[run]["teacher"]["name"] for run in trained_runs(config)})
    weighted = [name for name in teachers if _has_weights(name)]
    if isinstance(config["teacher"]["weights"], str) and len(weighted) > 1:
        yield (
            f"teacher.weights is one path, but the runs use teachers {', '.join(weighted)}; "
            "give a mapping from teacher to path"
        )
    if files and (wrong := problems_of(partial(check_root, config), "data.root: ")):
        yield from wrong
        return  # that other paths lead nowhere may follow from it
    from threedrs.config.checks import check_run  # needs what nodes for data alone do not have

    # Whatever else is wrong with an entry of `download`, its files are no second problem.
    arriving = [Path(entry["to"]) / name for entry in config["download"] for name in entry["files"]]
    for run, sections in resolved.items():
        mixes = list(config["instructions"]["mixes"])
        for problem in check_run(sections, mixes=mixes, arriving=arriving, files=files):
            yield f"runs.{run}: {problem}"
        said = config["runs"][run]
        idle = [name for name in ("teacher", "supervision", "execution") if name in said]
        idle += [f"train.{key}" for key in said.get("train", {}) if key != "seed"]
        if idle and "checkpoint" in said:
            yield (
                f"runs.{run}.{idle[0]} means nothing beside checkpoint, since the run is not "
                "trained; remove one of them"
            )
