"""Checks of the settings of a run: what cannot work is said in a line before anything runs.

The settings' own classes say what is wrong within a section; here is what concerns several, or
files. Only what is certain counts: what a download brings or a checkpoint decides is left to the
training. Neither torch nor DeepSpeed is imported, so that a dry run stays quick.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from threedrs.config.resources import train_ranks
from threedrs.config.schema import INITIAL
from threedrs.errors import (
    ConfigError,
    ThreedrsError,
    choose_one,
    nearest_path,
    problems_of,
    user_message,
)
from threedrs.models.backbones.family import LAYERS, TEXT, HubCheckpoint, new_text_fields
from threedrs.models.backbones.known_backbones import hub_checkpoint, mismatches
from threedrs.models.checkpoint.folder import check_folder, read_config
from threedrs.models.model_settings import ModelSettings
from threedrs.teachers.known_teachers import weights_problem
from threedrs.training.recipe import TrainSettings, accumulation, read_deepspeed


def check_run(
    resolved: Mapping[str, Any],
    *,
    mixes: Sequence[str],
    arriving: Sequence[Path],
    files: bool = True,
) -> Iterator[str]:
    """Yield the problems of a resolved run, whose sections are valid by the schema.

    With ``files`` checkpoints and weights must be there, or ``arriving`` by a download.
    """
    train, folder = resolved["train"], resolved["model"]["path"]
    trained = "checkpoint" not in resolved
    if trained:
        if train["mix"] not in mixes:
            yield f"train.mix is {train['mix']!r}; {choose_one(train['mix'], mixes)}"
        yield from problems_of(lambda: TrainSettings.from_config(resolved))
        # A lone rank is the least that a batch has to fit; of more see `batch_problem`.
        yield from problems_of(lambda: accumulation(train["global_batch"], train["pack"], 1))
        deepspeed = Path(resolved["execution"]["deepspeed"])
        yield from problems_of(lambda: read_deepspeed(deepspeed), "execution.deepspeed: ")
        if resolved["model"]["attention"] == "flash" and train["precision"] == "float32":
            yield (
                "model.attention: flash computes in half precision; set train.precision: bfloat16 "
                "or choose auto or sdpa"
            )
    wrong = problems_of(lambda: ModelSettings.from_config(resolved))
    yield from wrong
    if files and folder is not None and not _arrives(Path(folder), arriving):
        key = "model.path" if trained else "checkpoint"
        hub = hub_checkpoint(resolved["model"]) if trained and not wrong else None
        yield from problems_of(lambda: _check_checkpoint(Path(folder), hub), f"{key}: ")
    if folder is not None and resolved.get("checkpoint", INITIAL) == INITIAL:
        yield from _check_student(Path(folder), resolved["model"])
    elif folder is not None:
        # Its name, grid and size are its own, and the section `model` says nothing of them.
        with suppress(ThreedrsError):  # on its way, or named above
            described = read_config(Path(folder) / "config.json")
            for unread in mismatches(described, name=None, grid=None):
                yield f"checkpoint: {folder} {unread}"
    if not trained:
        return
    if not wrong:
        model = ModelSettings.from_config(resolved)
        yield from _check_length(resolved, model)
        if resolved["supervision"]["layer"] != "last":
            yield from _check_layer(resolved["supervision"]["layer"], model)
    teacher, weights = resolved["teacher"], resolved["teacher"]["weights"]
    try:
        problem = weights_problem(teacher, teacher["name"])
    except (ConfigError, OSError) as error:  # a teacher or a file that cannot be got at
        yield user_message(error) or str(error)
        return
    comes = isinstance(weights, str) and _arrives(Path(weights), arriving)
    if files and problem is not None and not comes:
        yield problem


def batch_problem(
    resolved: Mapping[str, Any], override: Callable[[str, int], Any], folder: Path
) -> str | None:
    """Return why the batch of a run does not divide over the ranks of its training, or None.

    A run with results in its ``folder`` is left alone, as it may have been trained elsewhere, on
    another number of GPUs. ``override`` is that of `train_ranks`.
    """
    train = resolved["train"]
    ranks = train_ranks(resolved["model"]["size"], override)
    if ranks is None or (folder / "train.json").is_file():
        return None
    try:
        accumulation(train["global_batch"], train["pack"], ranks)
    except ConfigError as error:
        return f"{error}; or change what the job asks for (set-resources)"
    return None


def _arrives(path: Path, arriving: Sequence[Path]) -> bool:
    """Whether a download brings ``path`` or a file below it."""
    return any(found == path or path in found.parents for found in arriving)


def _check_checkpoint(folder: Path, hub: HubCheckpoint | None) -> None:
    if not folder.is_dir():
        fetched = f" ({hub.repository} of the Hugging Face Hub, {hub.gigabytes} GB)" if hub else ""
        advice = nearest_path(folder) or f"correct the path, or put the checkpoint there{fetched}"
        raise ConfigError(f"{folder} is not a folder; {advice}")
    check_folder(folder)


def _check_student(folder: Path, model: Mapping[str, Any]) -> Iterator[str]:
    """Hold the section ``model`` against the checkpoint that it starts from, such as the demo's.

    A size is told of our own sizes alone.
    """
    size = model["size"]
    try:
        config = read_config(folder / "config.json")
        problems = [*mismatches(config, name=model["name"], grid=model["grid"])]
    except ThreedrsError:  # on its way, or named above
        return
    width = config.get("hidden_size")
    found = next((n for n in TEXT if new_text_fields(n, 0)["hidden_size"] == width), size)
    if found != size:
        problems.append(f"holds a student of size {found}, and model.size is {size}")
    others = "another folder" if size == "7b" else "another folder, or null for random weights"
    for problem in problems:
        yield f"model.path: {folder} {problem}; set model.path to {others}"


def _check_length(resolved: Mapping[str, Any], model: ModelSettings) -> Iterator[str]:
    """Hold the visual tokens against the longest pack; ``coverage`` may take fewer frames."""
    frames, longest = resolved["frames"], resolved["execution"]["max_length"]
    if frames["strategy"] != "uniform" or model.frame_tokens is None:
        return
    tokens = frames["count"] * model.frame_tokens
    if tokens >= longest:  # a question and its answer come on top
        yield (
            f"execution.max_length is {longest}; the {frames['count']} frames of a scene alone are "
            f"{tokens} tokens; raise it or lower frames.count"
        )


def _check_layer(layer: int, model: ModelSettings) -> Iterator[str]:
    layers: Any = LAYERS[model.size]
    if model.path is not None:
        try:
            layers = read_config(model.path / "config.json").get("num_hidden_layers")
        except ThreedrsError:  # on its way, or named above
            return
    if type(layers) is int and layer >= layers:
        yield (
            f"supervision.layer: {layer} is not a layer of this model; "
            f"valid: last, or 0 to {layers - 1}"
        )
