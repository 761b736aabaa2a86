"""What a finished run leaves: the model with its card, the loss curve, and the run's numbers.

``train.json`` is written last: where it is, everything is there.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from threedrs import package_versions
from threedrs.distributed.ranks import Ranks
from threedrs.errors import DataError
from threedrs.io.files import (
    atomic_file,
    atomic_folder,
    read_json,
    sha256_of_json,
    write_json,
    write_json_lines,
    write_text,
)
from threedrs.models.backbones.llava import PUBLISHED_TOWER, SO400M
from threedrs.models.checkpoint.folder import reference_name, write_manifest
from threedrs.models.checkpoint.load_save import save_student
from threedrs.models.lora.adapter import Trained, save_adapter
from threedrs.models.lora.layers import LANGUAGE_MODEL
from threedrs.models.model_settings import ModelSettings
from threedrs.models.student import Student
from threedrs.teachers.teacher_frames import FrameCounts
from threedrs.training.checkpoints import Progress
from threedrs.training.flops import device_peak
from threedrs.training.recipe import TrainSettings
from threedrs.training.run_log import PARTS, growing_log, read_rows

FORMAT_VERSION = 1
PUBLISHED_CHANNELS = 2048  # of the projection head, whatever the teacher
PACKAGES = ("torch", "transformers", "deepspeed", "peft", "numpy", "zarr")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The figures of a finished run that its outputs are written from."""

    config: Mapping[str, Any]  # the resolved run
    parts: Mapping[str, Any]  # its fingerprint
    progress: Progress  # what it has seen and done
    # How the frames of its scenes are supervised; None without a teacher.
    teacher_frames: FrameCounts | None


def is_exported(out: Path, parts: Mapping[str, Any]) -> bool:
    """Whether ``out`` holds the complete outputs of the recipe ``parts``."""
    names = ("train.json", "model", "model.json", "loss.png", "log.jsonl")
    if not all((out / name).exists() for name in names):
        return False
    try:
        return read_json(out / "train.json").get("config_hash") == sha256_of_json(parts)
    except (DataError, AttributeError):
        return False


def _utilisation(
    summary: RunSummary, settings: TrainSettings, ranks: Ranks
) -> tuple[float | None, str]:
    """Return the model FLOPs utilisation and how it was counted, or None and why not."""
    if ranks.device.type != "cuda":
        return None, "not measured: the run was on CPU"
    peak = device_peak(ranks.device)
    if peak is None:
        return None, f"not measured: peak of {torch.cuda.get_device_name(ranks.device)} not known"
    if settings.precision != "bfloat16":
        return None, "not measured: the GPU's peak is known for bfloat16 only"
    value = summary.progress.flops / summary.progress.rank_seconds / peak
    return value, (
        "products of the forward pass and of the gradients that the trained parts need, without "
        f"recomputation, of {peak / 1e12:.0f} TFLOP/s a GPU"
    )


def _packing_note(settings: TrainSettings) -> str:
    if settings.batches == "task_groups":
        order = "batches of one kind of task, as published"
    else:
        order = "batches of any samples, where the paper's are of one kind of task (train.batches)"
    if settings.pack == 1:
        return f"one sample a sequence, as in the paper; {order}"
    return (
        f"up to {settings.pack} samples of a scene share a sequence, so a batch holds fewer scenes "
        "than the paper's one sample a sequence: a deviation from the paper (train.pack: 1 is its "
        f"recipe); {order}"
    )


def _numbers(summary: RunSummary, ranks: Ranks, rows: list[dict[str, Any]]) -> dict[str, Any]:
    settings = TrainSettings.from_config(summary.config)
    progress, frames = summary.progress, summary.teacher_frames
    utilisation, basis = _utilisation(summary, settings, ranks)
    device = "CPU" if ranks.device.type == "cpu" else torch.cuda.get_device_name(ranks.device)
    return {
        "format_version": FORMAT_VERSION,
        "run": summary.config["run"],
        "config_hash": sha256_of_json(summary.parts),
        "steps": progress.step,
        "samples": progress.samples,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "samples_per_second": round(progress.samples / progress.seconds, 4),
        "tokens_per_second": round(progress.tokens / progress.seconds, 1),
        "model_flops_utilisation": utilisation,
        "model_flops_utilisation_basis": basis,
        "rank_seconds": round(progress.rank_seconds, 3),
        "peak_memory_gib": round(progress.peak_memory_gib, 3),
        "device": device,
        "ranks": ranks.count,
        "loss": {name: _last(rows, name) for name in PARTS},
        "teacher_frames": None if frames is None else frames.to_json(),
        "pack": settings.pack,
        "packing": _packing_note(settings),
        "versions": {"python": platform.python_version(), **package_versions(*PACKAGES)},
    }


def _last(rows: list[dict[str, Any]], name: str) -> float | None:
    """Return the newest value of a loss part; a batch without such samples has none."""
    return next((row[name] for row in reversed(rows) if row[name] is not None), None)


def _draw_losses(rows: list[dict[str, Any]], out: Path, run: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in PARTS:
        points = [(row["step"], row[name]) for row in rows if row[name] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
    axes.set(xlabel="optimizer step", ylabel="loss", title=f"training of {run}")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _scores(rows: list[dict[str, Any]], samples: int) -> str:
    """Return the table of the last evaluation on the way; nothing without one."""
    row = next((row for row in reversed(rows) if "eval" in row), None)
    if row is None:
        return ""
    lines = [
        f"| {benchmark} {metric} | {value:.1f} |"
        for benchmark, metrics in row["eval"].items()
        for metric, value in metrics.items()
        if value is not None
    ]
    head = f"| after step {row['step']}, first {samples} questions a benchmark | % |"
    return "\n".join([head, "|---|---|", *lines, "", ""])


def _published_note(run: str, student: Student, adapter: bool) -> str:
    """Return how the published code runs a model."""
    channels = student.teacher_channels
    if student.family.model_type != "llava_qwen":
        return "it does not load there, as that code has LLaVA's backbones alone"
    if channels not in (0, PUBLISHED_CHANNELS):
        return (
            f"it does not load there, where the projection head has {PUBLISHED_CHANNELS} channels "
            f"and here it has {channels}, those of another teacher"
        )
    tower = student.family.vision_config
    if any(getattr(tower, field) != size for field, size in SO400M.items()):
        return (
            f"it does not load there, where the vision tower is {PUBLISHED_TOWER}, "
            f"{SO400M['hidden_size']} wide with {SO400M['num_hidden_layers']} layers, and here it "
            f"is {tower.hidden_size} wide with {tower.num_hidden_layers}"
        )
    whole = "make it whole as above and " if adapter else ""
    name = reference_name(run)
    return f"{whole}name the folder `{name}` or alike (a link will do), as its loader goes by that"


def _model_card(
    summary: RunSummary, numbers: Mapping[str, Any], rows: list[dict[str, Any]], student: Student
) -> str:
    config, loss = summary.config, numbers["loss"]
    train, model = config["train"], config["model"]
    losses = "\n".join(
        f"| {name} | {value:.4f} |" for name, value in loss.items() if value is not None
    )
    versions = "\n".join(f"| {name} | {value} |" for name, value in numbers["versions"].items())
    return f"""# {config["run"]}

A video language model fine-tuned on 3D scene tasks with 3D-aware representation supervision (3DRS,
arXiv 2506.01946), trained by this repository.

- backbone: {model["name"]}, size {model["size"]}, from {model["path"] or "random weights"}
- teacher: {config["teacher"]["name"]}; 3D loss {config["supervision"]["loss"]}, weight
  {config["supervision"]["weight"]}, layer {config["supervision"]["layer"]}
- data: mix `{train["mix"]}` ({config["paths"]["mix"]}), boxes {config["boxes"]["train"]}
- {numbers["steps"]} optimizer steps of {train["global_batch"]} samples ({numbers["samples"]} seen),
  learning rate {train["learning_rate"]} (vision tower {train["learning_rate_vision_tower"]}),
  {train["precision"]}, seed {train["seed"]}
- {_trained_note(TrainSettings.from_config(config), model["path"])}
- packing: {numbers["packing"]}
- recipe hash: {numbers["config_hash"]}; the whole configuration is in `../config.json`
- in the published code: {_published_note(config["run"], student, train["lora"] is not None)}

Scores are in the report of the workflow that trained it. ScanNet's terms of use and the backbone's
licence apply to these weights.

{_scores(rows, train["eval_samples"])}| final loss | |
|---|---|
{losses}

| package | version |
|---|---|
{versions}
"""


def _trained_note(settings: TrainSettings, path: str | None) -> str:
    if settings.lora is None:
        return f"trained: {', '.join(settings.tunable)}"
    lora, base = settings.lora, path or "the random weights of the seed"
    full = [name for name in settings.tunable if name != "language_model"]
    return (
        f"trained: LoRA adapters on {', '.join(lora.targets)} of the language model, rank "
        f"{lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}; in full: "
        f"{', '.join(['the rows of the two new tokens', *full])}\n"
        f"- these weights are a change of the base model, {base}, and need it; `threedrs model "
        "merge` makes a whole checkpoint of both"
    )


def whole_state(
    engine: Any, student: Student, ranks: Ranks, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, Tensor]:
    """Return copies of the ``wanted`` tensors, whole, on the first rank's host."""
    import deepspeed

    spread = engine.zero_optimization_stage() == 3
    # Tensor by tensor, so that a GPU holds one whole tensor more and not one whole model.
    state = {}
    for name, tensor in student.state_dict(keep_vars=True).items():
        if not wanted(name):
            continue
        with deepspeed.zero.GatheredParameters([tensor], enabled=spread):
            if ranks.first:
                state[name] = tensor.detach().cpu().clone()
    return state


def export_run(
    engine: Any, student: Student, tokenizer: Any, summary: RunSummary, out: Path, ranks: Ranks
) -> None:
    """Write model, card, loss curve and train.json to ``out``; all ranks call this."""
    rows = read_rows(growing_log(out))
    numbers = _numbers(summary, ranks, rows)
    settings = TrainSettings.from_config(summary.config)
    base, trained, wanted = ModelSettings.from_config(summary.config), None, lambda name: True
    if settings.lora is not None:
        groups = tuple(name for name in settings.tunable if name != LANGUAGE_MODEL)
        trained = Trained(lora=settings.lora, groups=groups)
        if base.path is not None:  # what random weights were is known from the frozen ones only
            wanted = trained.is_saved
    # All ranks gather, the first one writes: under ZeRO-3 no rank has the weights by itself.
    state = whole_state(engine, student, ranks, wanted)
    if ranks.first:
        card = _model_card(summary, numbers, rows, student)
        with atomic_folder(out / "model") as folder:
            if trained is None:
                save_student(student, tokenizer, folder, state=state)
            else:
                save_adapter(student, tokenizer, folder, state=state, base=base, trained=trained)
            write_text(folder / "README.md", card)
        # In this order: the manifest stands for the model, train.json for all that is beside it.
        write_manifest(out / "model")
        write_json_lines(out / "log.jsonl", rows)
        _draw_losses(rows, out / "loss.png", summary.config["run"])
        write_json(out / "train.json", numbers)
    torch.distributed.barrier()
