"""What a finished run leaves: the model with its card, the loss curve, and the run's numbers.

``train.json`` is written last: where it is, everything is there.
"""

import platform
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
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
from threedrs.training.checkpoints import Progress
from threedrs.training.flops import device_peak
from threedrs.training.recipe import TrainSettings
from threedrs.training.run_log import PARTS, growing_log, read_rows
from threedrs.training.run_setup import Run

FORMAT_VERSION = 1
PUBLISHED_CHANNELS = 2048  # of the projection head, whatever the teacher
PACKAGES = ("torch", "transformers", "deepspeed", "peft", "numpy", "zarr")


def is_exported(run: Run) -> bool:
    """Whether the outputs of this very recipe are complete."""
    out = run.paths.out
    names = ("train.json", "model", "model.json", "loss.png", "log.jsonl")
    if not all((out / name).exists() for name in names):
        return False
    try:
        return read_json(out / "train.json").get("config_hash") == run.config_hash
    except (DataError, AttributeError):
        return False


def _utilisation(run: Run, progress: Progress) -> tuple[float | None, str]:
    """Return the model FLOPs utilisation and how it was counted, or None and why not."""
    if run.ranks.device.type != "cuda":
        return None, "not measured: the run was on CPU"
    peak = device_peak(run.ranks.device)
    if peak is None or run.settings.precision != "bfloat16":
        return None, "not measured: the peak of this GPU is not known in this precision"
    return progress.flops / progress.rank_seconds / peak, (
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


def _numbers(run: Run, progress: Progress, rows: list[dict[str, Any]]) -> dict[str, Any]:
    utilisation, basis = _utilisation(run, progress)
    device, frames = run.ranks.device, run.teacher_frames
    return {
        "format_version": FORMAT_VERSION,
        "run": run.config["run"],
        "config_hash": run.config_hash,
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
        "device": "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "ranks": run.ranks.count,
        # The newest value of each part: a batch without such samples has none.
        "loss": {
            name: next((row[name] for row in reversed(rows) if row[name] is not None), None)
            for name in PARTS
        },
        "teacher_frames": None if frames is None else frames.to_json(),
        "pack": run.settings.pack,
        "packing": _packing_note(run.settings),
        "versions": {"python": platform.python_version(), **package_versions(*PACKAGES)},
    }


def _draw_losses(rows: list[dict[str, Any]], out: Path, run: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in PARTS:
        if points := [(row["step"], row[name]) for row in rows if row[name] is not None]:
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
    axes.set(xlabel="optimizer step", ylabel="loss", title=f"training of {run}")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _unloadable(student: Student) -> str | None:
    """Return why the published code does not load a model, or None if it does."""
    channels, tower = student.teacher_channels, student.family.vision_config
    if student.family.model_type != "llava_qwen":
        return "that code has LLaVA's backbones alone"
    if channels not in (0, PUBLISHED_CHANNELS):
        return f"its projection head has {PUBLISHED_CHANNELS} channels, and this one {channels}"
    # It builds the published tower, whatever the sizes in config.json.
    if any(getattr(tower, field) != size for field, size in SO400M.items()):
        return (
            f"its vision tower is {PUBLISHED_TOWER}, {SO400M['hidden_size']} wide with "
            f"{SO400M['num_hidden_layers']} layers, and this one is {tower.hidden_size} wide with "
            f"{tower.num_hidden_layers}"
        )
    return None


def _model_card(
    run: Run, numbers: Mapping[str, Any], rows: list[dict[str, Any]], student: Student
) -> str:
    template = files("threedrs.training").joinpath("model_card.md.j2").read_text()
    # Whatever is not known here is a mistake in the template, and not an empty place in the card.
    return jinja2.Template(template, undefined=jinja2.StrictUndefined, trim_blocks=True).render(
        config=run.config,
        lora=run.settings.lora,
        numbers=numbers,
        evaluated=next((row for row in reversed(rows) if "eval" in row), None),
        unloadable=_unloadable(student),
        folder=reference_name(run.config["run"]),
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


def export_run(engine: Any, student: Student, tokenizer: Any, run: Run, progress: Progress) -> None:
    """Write model, card, loss curve and train.json of a finished run; all ranks call this."""
    out, settings, ranks = run.paths.out, run.settings, run.ranks
    rows = read_rows(growing_log(out))
    numbers = _numbers(run, progress, rows)
    base, trained, wanted = ModelSettings.from_config(run.config), None, lambda name: True
    if settings.lora is not None:
        groups = tuple(name for name in settings.tunable if name != LANGUAGE_MODEL)
        trained = Trained(lora=settings.lora, groups=groups)
        if base.path is not None:  # what random weights were is known from the frozen ones only
            wanted = trained.is_saved
    # All ranks gather, the first one writes: under ZeRO-3 no rank has the weights by itself.
    state = whole_state(engine, student, ranks, wanted)
    if ranks.first:
        with atomic_folder(out / "model") as folder:
            if trained is None:
                save_student(student, tokenizer, folder, state=state)
            else:
                save_adapter(student, tokenizer, folder, state=state, base=base, trained=trained)
            write_text(folder / "README.md", _model_card(run, numbers, rows, student))
        # In this order: the manifest stands for the model, train.json for all that is beside it.
        write_manifest(out / "model")
        write_json_lines(out / "log.jsonl", rows)
        _draw_losses(rows, out / "loss.png", run.config["run"])
        write_json(out / "train.json", numbers)
    torch.distributed.barrier()
