"""ZeRO-3 training of the full-size student: speed, memory, checkpoint, resume, export.

Runs the engine, optimizer step, checkpoints and export of `threedrs.train` on made-up packs (see
training_step.py) and random weights, which stand in for the published checkpoint. No rank ever
holds the whole model: it is built spread over the ranks. A checkpoint of the 7B student takes
14 bytes a parameter, 114 GB; ``--folder`` must be on a disk that holds it and the export (16 GB).

    torchrun --nproc-per-node=2 benchmarks/zero3.py --steps 8 --folder /local/disk
    torchrun --nproc-per-node=2 benchmarks/zero3.py --steps 8 --pack 8 --kept-layers 20

Without ``--folder`` nothing is written. With it: the checkpoint is saved after the timed steps, two
more steps are run, the checkpoint is loaded, the two steps are run again, and their losses must be
the same (bitwise on CPU; on a GPU kernels may add in another order).
"""

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import yaml

from threedrs.models.checkpoint import load_student, save_student
from threedrs.models.samples import Pack
from threedrs.models.settings import ModelSettings, SupervisionSettings
from threedrs.models.student import Student
from threedrs.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from threedrs.training.engine import Ranks, build_engine, start_ranks, train_step, zero_init
from threedrs.training.export import whole_state
from threedrs.training.flops import device_peak
from threedrs.training.settings import TrainSettings
from training_step import sample, scene

REPOSITORY = Path(__file__).resolve().parents[1]
WARM_UP = 2


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="llava-video")
    parser.add_argument("--size", default="7b", choices=("tiny", "7b"))
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--pack", type=int, default=1)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--kept-layers", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8, help="timed, after two of warm-up")
    parser.add_argument(
        "--deepspeed", type=Path, default=REPOSITORY / "config/deepspeed/zero3.json"
    )
    parser.add_argument("--folder", type=Path, help="save, resume and export there")
    return parser.parse_args()


def recipe(arguments: argparse.Namespace, ranks: Ranks) -> TrainSettings:
    """Return the paper's recipe with this benchmark's sizes."""
    section: dict[str, Any] = {}
    for name in ("config.yaml", "paper.yaml"):
        section |= yaml.safe_load((REPOSITORY / "config" / name).read_text())["train"]
    section |= {
        "pack": arguments.pack,
        "global_batch": arguments.pack * arguments.accumulation * ranks.count,
        "kept_layers": arguments.kept_layers,
        "deepspeed": str(arguments.deepspeed),
        "precision": "bfloat16" if ranks.device.type == "cuda" else "float32",
    }
    return TrainSettings.from_config(section)


def peak_memory(ranks: Ranks) -> float:
    """Return the most GPU memory, in GiB, that any rank has used since the last reset."""
    if ranks.device.type == "cpu":
        return float("nan")
    value = torch.tensor(torch.cuda.max_memory_allocated() / 2**30, device=ranks.device)
    torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
    return round(value.item(), 1)


class Bench:
    """A built engine with the packs of this rank."""

    def __init__(self, arguments: argparse.Namespace, ranks: Ranks) -> None:
        self.ranks = ranks
        self.settings = recipe(arguments, ranks)
        began = time.perf_counter()
        torch.manual_seed(self.settings.seed)
        settings = ModelSettings(
            name=arguments.name, size=arguments.size, random_weights=arguments.size == "7b"
        )
        self.student: Student
        self.student, self.tokenizer = load_student(
            settings, teacher_channels=2048, zero_init=zero_init(self.settings, ranks.count)
        )
        self.student.gradient_checkpointing_enable(self.settings.kept_layers)
        self.student.train()
        self.engine = build_engine(
            self.student, self.settings, SupervisionSettings(), ranks, total_steps=1000
        )
        self.build_seconds = time.perf_counter() - began
        torch.manual_seed(ranks.rank)
        self.packs = [
            Pack(
                scene=scene(self.student, arguments.frames),
                samples=tuple(map(sample, range(arguments.pack))),
            )
            for _ in range(arguments.accumulation)
        ]

    def step(self) -> dict[str, float]:
        """Run one optimizer step; return its sums over all ranks."""
        outcome = train_step(
            self.engine,
            [(pack, 1.0) for pack in self.packs],
            micro_step_count=len(self.packs),
            samples=self.settings.global_batch,
            ranks=self.ranks,
            interrupted=False,
        )
        return outcome.sums

    def timed(self, count: int) -> tuple[float, dict[str, float]]:
        """Return the seconds a step of ``count`` steps, and the last one's sums."""
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        torch.distributed.barrier()
        began = time.perf_counter()
        for _ in range(count):
            sums = self.step()
        torch.distributed.barrier()
        return (time.perf_counter() - began) / count, sums


def checkpoint_and_resume(bench: Bench, folder: Path) -> dict[str, Any]:
    """Save, go on, load, go on again; return times, size, and both pairs of losses."""
    parts = {"benchmark": "zero3"}
    began = time.perf_counter()
    target = save_checkpoint(
        bench.engine, folder / "checkpoints", Progress(step=1), parts, keep=1, ranks=bench.ranks
    )
    saved = time.perf_counter() - began
    first = [bench.step()["loss"] for _ in range(2)]
    began = time.perf_counter()
    load_checkpoint(bench.engine, target, bench.ranks)
    loaded = time.perf_counter() - began
    again = [bench.step()["loss"] for _ in range(2)]
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    return {
        "checkpoint_gb": round(size / 1e9, 2),
        "save_seconds": round(saved, 1),
        "load_seconds": round(loaded, 1),
        "losses": first,
        "losses_after_resume": again,
        "resumed_equal": first == again,
    }


def export(bench: Bench, folder: Path) -> dict[str, Any]:
    """Write the model in its published layout; return time and size."""
    began = time.perf_counter()
    state = whole_state(bench.engine, bench.student, bench.ranks)
    if bench.ranks.first:
        save_student(bench.student, bench.tokenizer, folder / "model", state=state)
    torch.distributed.barrier()
    size = sum(file.stat().st_size for file in (folder / "model").iterdir())
    return {
        "export_seconds": round(time.perf_counter() - began, 1),
        "export_gb": round(size / 1e9, 2),
        "export_files": sorted(file.name for file in (folder / "model").glob("*.safetensors")),
    }


def main() -> None:
    """Build, time the steps, and with ``--folder`` save, resume and export; print JSON."""
    arguments = parse()
    ranks = start_ranks()
    cuda = ranks.device.type == "cuda"
    bench = Bench(arguments, ranks)
    report: dict[str, Any] = {
        "command": f"torchrun --nproc-per-node={ranks.count} benchmarks/zero3.py "
        + " ".join(sys.argv[1:]),
        "machine": f"{ranks.count} x {torch.cuda.get_device_name() if cuda else 'CPU'}",
        "date": datetime.date.today().isoformat(),
        "versions": {"torch": torch.__version__},
        "build_seconds": round(bench.build_seconds, 1),
        "build_memory_gib": peak_memory(ranks),
    }
    bench.timed(WARM_UP)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds, sums = bench.timed(arguments.steps)
    peak = device_peak(ranks.device)
    report |= {
        "steps_per_second": round(1 / seconds, 4),
        "seconds_a_step": round(seconds, 4),
        "samples_per_second": round(bench.settings.global_batch / seconds, 3),
        "mfu": round(sums["flops"] / seconds / (peak * ranks.count), 4) if peak else None,
        "memory_gib": peak_memory(ranks),
        "loss": sums["loss"],
    }
    if ranks.first:
        print(json.dumps(report), flush=True)
    if arguments.folder:
        report |= checkpoint_and_resume(bench, arguments.folder)
        report |= export(bench, arguments.folder)
    if ranks.first:
        print(json.dumps(report, indent=2), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    main()
    torch.distributed.destroy_process_group()
