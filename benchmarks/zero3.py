"""ZeRO training of the full-size student: speed, memory, checkpoint, resume, export.

Runs the engine, optimizer step, checkpoints and export of `threedrs.train` on made-up packs (see
training_step.py) and random weights, which stand in for the published checkpoint. No rank ever
holds the whole model while it is built. A checkpoint of the 7B student takes 12 bytes a parameter,
97 GB; ``--folder`` must be on a disk that holds it and the export (16 GB).

    torchrun --nproc-per-node=4 benchmarks/zero3.py --measure 1:0 --measure 1:20 --measure 1:all
    torchrun --nproc-per-node=2 benchmarks/zero3.py --folder /local/disk

``--measure PACK:KEPT`` measures packs of PACK samples with the activations of KEPT layers kept
instead of recomputed (``auto``: as many as a training would keep; ``all``: nothing is recomputed),
one run after the other on the same engine. A step has ``--accumulation`` packs a GPU: 4 packs of
one sample on 4 GPUs are the paper's 16 samples. ``--profile`` says where the GPU's time goes in a
step of the last run. ``--deepspeed config/deepspeed/zero2.json`` measures ZeRO-2.

Without ``--folder`` nothing is written. With it: the checkpoint is saved after the timed steps, two
more steps (of one pack a GPU) are run, the checkpoint is loaded, the two steps are run again, and
their losses must be the same (bitwise on CPU; on a GPU kernels may add in another order).
"""

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import yaml

from gpu_time import kernels_of, time_shares
from threedrs.config.schema import SupervisionSettings
from threedrs.distributed.ranks import Ranks, peak_memory, start_ranks
from threedrs.models.backbones.family import SIZES
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack
from threedrs.models.student import Student
from threedrs.training.checkpoints import Progress, load_checkpoint, save_checkpoint
from threedrs.training.engine import build_engine, zero_init
from threedrs.training.export import whole_state
from threedrs.training.flops import device_peak
from threedrs.training.recipe import TrainSettings
from threedrs.training.run_setup import kept_layers
from threedrs.training.step import train_step
from training_step import sample, scene

REPOSITORY = Path(__file__).resolve().parents[1]
PROBE = 2**29  # bytes of each rank in the all-gather that shows what the links give


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="llava-video")
    parser.add_argument("--size", default="7b", choices=SIZES)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--measure", action="append", metavar="PACK:KEPT", help="default: 1:0")
    parser.add_argument("--accumulation", type=int, default=4, help="packs a GPU and step")
    parser.add_argument("--steps", type=int, default=3, help="timed, after one of warm-up")
    parser.add_argument(
        "--deepspeed", type=Path, default=REPOSITORY / "config/deepspeed/zero3.json"
    )
    parser.add_argument("--profile", action="store_true", help="where the GPU's time goes (GPU)")
    parser.add_argument("--folder", type=Path, help="save, resume and export there")
    return parser.parse_args()


def recipe(arguments: argparse.Namespace, ranks: Ranks) -> TrainSettings:
    """Return the paper's recipe with this benchmark's sizes."""
    section: dict[str, Any] = {}
    for name in ("config.yaml", "paper.yaml"):
        config = yaml.safe_load((REPOSITORY / "config" / name).read_text())
        section |= config["train"] | config["execution"]
    section |= {
        "pack": 1,
        "global_batch": arguments.accumulation * ranks.count,
        "deepspeed": str(arguments.deepspeed),
        "precision": "bfloat16" if ranks.device.type == "cuda" else "float32",
    }
    return TrainSettings(**section)


def gather_speed(ranks: Ranks) -> float | None:
    """Return the GB a second that each GPU receives in a large all-gather; None without GPUs."""
    if ranks.device.type == "cpu" or ranks.count == 1:
        return None
    share = torch.zeros(PROBE, dtype=torch.uint8, device=ranks.device)
    whole = torch.empty(PROBE * ranks.count, dtype=torch.uint8, device=ranks.device)
    for _ in range(4):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.distributed.all_gather_into_tensor(whole, share)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return round(PROBE * (ranks.count - 1) / seconds / 1e9, 1)


class Bench:
    """A built engine with the packs of this rank."""

    def __init__(self, arguments: argparse.Namespace, ranks: Ranks) -> None:
        self.ranks = ranks
        self.frames = arguments.frames
        self.accumulation = arguments.accumulation
        self.settings = recipe(arguments, ranks)
        began = time.perf_counter()
        torch.manual_seed(self.settings.seed)
        settings = ModelSettings(
            name=arguments.name, size=arguments.size, random_weights=arguments.size == "7b"
        )
        self.student: Student
        spread = zero_init(self.settings, ranks.count)
        # Random weights of a whole student would take minutes to draw on the host.
        with ranks.device if spread is None else nullcontext():
            self.student, self.tokenizer = load_student(
                settings, teacher_channels=2048, zero_init=spread
            )
        self.student.to(getattr(torch, self.settings.precision)).train()
        # Before the engine takes its memory, as a training decides.
        packs = {run.split(":")[0] for run in arguments.measure or () if run.endswith(":auto")}
        self.auto = {pack: self._kept_layers(int(pack)) for pack in packs}
        self.engine = build_engine(
            self.student, self.settings, SupervisionSettings(), ranks, total_steps=1000
        )
        self.steps = 0
        self.build_seconds = time.perf_counter() - began
        torch.manual_seed(ranks.rank)

    def _kept_layers(self, pack: int) -> int:
        """Return how many layers a training with packs of ``pack`` samples would keep."""
        batch = pack * self.accumulation * self.ranks.count
        settings = self.settings.replace(
            pack=pack, global_batch=batch, gradient_checkpointing=True, kept_layers="auto"
        )
        return kept_layers(self.student, settings, self.frames, self.ranks)

    def prepare(self, pack: int, kept: str) -> None:
        """Make packs of ``pack`` samples; keep the activations of ``kept`` layers of both towers.

        ``kept`` is a number, ``auto`` or ``all``.
        """
        if kept == "all":
            self.student.vision_tower.gradient_checkpointing_disable()
            self.student.language_model.gradient_checkpointing_disable()
        else:
            layers = self.auto[str(pack)] if kept == "auto" else int(kept)
            self.student.gradient_checkpointing_enable(layers)
        packs = [
            Pack(scene=scene(self.student, self.frames), samples=tuple(map(sample, range(pack))))
            for _ in range(self.accumulation)
        ]
        # As the loader hands them over.
        self.packs = [one.pin_memory() for one in packs] if torch.cuda.is_available() else packs
        self.samples = pack * self.accumulation * self.ranks.count

    def step(self) -> dict[str, float]:
        """Run one optimizer step; return its sums over all ranks."""
        outcome = train_step(
            self.engine,
            [(pack, 1.0) for pack in self.packs],
            micro_step_count=len(self.packs),
            samples=self.samples,
            ranks=self.ranks,
            interrupted=lambda: False,
        )
        self.steps += 1
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

    def measure(self, run: str, steps: int) -> dict[str, Any]:
        """Return the figures of ``steps`` optimizer steps of the run PACK:KEPT."""
        pack, kept = run.split(":")
        self.prepare(int(pack), kept)
        self.timed(1)
        cuda = self.ranks.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds, sums = self.timed(steps)
        peak = device_peak(self.ranks.device)
        return {
            "pack": int(pack),
            "kept_layers": kept,
            "seconds_a_step": round(seconds, 4),
            "samples_a_step": self.samples,
            "samples_per_second": round(self.samples / seconds, 3),
            "mfu": round(sums["flops"] / seconds / (peak * self.ranks.count), 4) if peak else None,
            "memory_gib": round(peak_memory(self.ranks), 1),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 1) if cuda else None,
            "loss": sums["loss"],
        }

    def profile(self) -> dict[str, float]:
        """Return where the GPU's time goes in one step, as shares of its span."""
        return time_shares(kernels_of(self.step))


def checkpoint_and_resume(bench: Bench, folder: Path) -> Iterator[dict[str, Any]]:
    """Save, go on, load, go on again; yield times, size, and both pairs of losses."""
    parts = {"benchmark": "zero3"}
    bench.packs, bench.samples = bench.packs[:1], bench.samples // len(bench.packs)
    began = time.perf_counter()
    progress = Progress(step=bench.steps)
    target = save_checkpoint(
        bench.engine, folder / "checkpoints", progress, parts, keep=1, ranks=bench.ranks
    )
    saved = time.perf_counter() - began
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    yield {"checkpoint_gb": round(size / 1e9, 2), "save_seconds": round(saved, 1)}
    first = [bench.step()["loss"] for _ in range(2)]
    began = time.perf_counter()
    load_checkpoint(bench.engine, target, bench.ranks)
    yield {"load_seconds": round(time.perf_counter() - began, 1)}
    again = [bench.step()["loss"] for _ in range(2)]
    yield {
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
    """Build, time the runs, and with ``--folder`` save, resume and export; print JSON."""
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
        "build_memory_gib": round(peak_memory(ranks), 1),
        "gather_gb_per_second": gather_speed(ranks),
        "runs": [],
    }
    for run in arguments.measure or ["1:0"]:
        report["runs"].append(bench.measure(run, arguments.steps))
        if ranks.first:
            print(json.dumps(report["runs"][-1]), flush=True)
    if arguments.profile and cuda:
        report["time_shares"] = bench.profile()
    if arguments.folder:
        for facts in checkpoint_and_resume(bench, arguments.folder):
            report |= facts
            if ranks.first:
                print(json.dumps(facts), flush=True)
        report |= export(bench, arguments.folder)
    if ranks.first:
        print(json.dumps(report, indent=2), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    main()
    torch.distributed.destroy_process_group()
