"""Where an optimizer step of the small student spends its time, and what would lower it.

    python benchmarks/small_student.py [--way plain] [--way recorded] [--way plain:FILE.json] ...

A step of 96 samples as config/small.yaml has it, through `build_engine` and `train_step`, on
made-up packs: no data, no loader. Of three steps two hold one pack of all samples, and the third
two packs, as the rooms' 279 samples give them. Each way starts from the same weights and
takes the same steps:

- ``plain``: as training does; ``plain:FILE`` with another file of DeepSpeed
- ``recorded``: with `execution.record_passes`, on a GPU; its first rounds launch and record
- ``rounded``: the same packs with their sizes rounded up as for recording, launched, on a GPU: what
  another order of sums alone does to the losses
- ``compiled``: the layers of both towers under torch.compile, which training does not do

A row has the median seconds of three steps by three, the samples a second, how far the losses are
from those of the first way, and what torch has reserved of a GPU's memory at most. The second table
counts a pack's and a step's operators by part: a student this small waits for the host to launch
them. Of a recorded pass only what is launched around it counts. On the CPU the kernels that
torch.compile makes are not operators and count nowhere.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.modeling_layers import GradientCheckpointingLayer

from harness import device_name, wait_for_gpu
from threedrs.distributed.ranks import Ranks, start_ranks
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack, Sample
from threedrs.training.engine import build_engine
from threedrs.training.recipe import TrainSettings
from threedrs.training.step import train_step
from training_step import SUPERVISION, sample, scene

TEACHER_CHANNELS = 53
# Operators that only describe memory anew, so that nothing runs.
VIEWS = re.compile(
    "view|view_as|reshape|_reshape_alias|transpose|t|expand|slice|select|unsqueeze|squeeze|permute|"
    "as_strided|detach_?|alias|split|split_with_sizes|unbind|unflatten|flatten|_unsafe_view|chunk|"
    "narrow|to|empty|empty_strided|empty_like|resize_|item|_local_scalar_dense|lift_fresh|"
    "resolve_conj|resolve_neg|result_type|is_nonzero|_has_compatible_shallow_copy_type|"
    "flatten_dense_tensors|unflatten_dense_tensors"
)
PARTS = ("vision tower", "language model", "heads and losses", "backward", "gradients", "optimizer")


def varied(number: int) -> Sample:
    """Return a made-up sample of 32 to 64 own tokens, as lengths differ in training."""
    one, cut = sample(number), number * 7 % 33
    return replace(
        one,
        input_ids=one.input_ids[cut:],
        labels=one.labels[cut:],
        ground_index=None if one.ground_index is None else one.ground_index - cut,
    )


class Way:
    """An engine of one way, from the same weights as every other."""

    def __init__(self, named: str, ranks: Ranks, arguments: argparse.Namespace) -> None:
        self.way, _, file = named.partition(":")
        self.ranks = ranks
        cuda = ranks.device.type == "cuda"
        settings = TrainSettings(
            deepspeed=Path(file or "config/deepspeed/zero2.json"),
            global_batch=arguments.samples,
            pack=arguments.samples,
            learning_rate=2e-4,
            learning_rate_vision_tower=2e-4,
            precision=arguments.precision or ("bfloat16" if cuda else "float32"),
            record_passes=self.way in ("recorded", "rounded"),
        )
        torch.manual_seed(0)
        self.student, _ = load_student(
            ModelSettings(name="qwen2-vl", size=arguments.size, grid=7),
            teacher_channels=TEACHER_CHANNELS,
        )
        self.student.to(getattr(torch, settings.precision)).train()
        room = scene(self.student, arguments.frames)
        one, rest = arguments.samples, arguments.samples // 10
        self.samples = one
        self.steps = [
            [Pack(scene=room, samples=tuple(map(varied, range(size)))) for size in sizes]
            for sizes in ((one,), (one,), (one - rest, rest))
        ]
        self.engine = build_engine(self.student, settings, SUPERVISION, ranks, total_steps=1000)
        if self.way == "rounded":
            self.engine.passes._record = lambda inputs: None
        if self.way == "compiled":
            # Each layer has its own patched modules, so each is compiled by itself.
            torch._dynamo.config.recompile_limit = 64
            for layer in self.student.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.forward = torch.compile(layer.forward, dynamic=True)

    def step(self, packs: list[Pack]) -> float:
        """Run one optimizer step; return the mean loss of its samples."""
        outcome = train_step(
            self.engine,
            [(pack, 1.0) for pack in packs],
            micro_step_count=len(packs),
            samples=self.samples,
            ranks=self.ranks,
            interrupted=lambda: False,
        )
        return outcome.sums["loss"] / self.samples

    def round(self) -> list[float]:
        """Run the three steps; return their losses."""
        return [self.step(packs) for packs in self.steps]


@contextmanager
def named(part: str, owner: Any, method: str) -> Iterator[None]:
    """Let the profiler know what runs within a method."""
    work: Callable[..., Any] = getattr(owner, method)

    def call(*arguments: Any, **options: Any) -> Any:
        with record_function(part):
            return work(*arguments, **options)

    setattr(owner, method, call)
    yield
    setattr(owner, method, work)


def computes(event: Any) -> bool:
    """Whether an event is an operator that computes something."""
    kind, _, name = event.name.partition("::")
    return kind == "aten" and not VIEWS.fullmatch(name)


def part_of(event: Any) -> str:
    """Return the part of a step that an operator belongs to, by what it runs within."""
    while event is not None:
        # The hooks with which ZeRO collects gradients run where a gradient is accumulated.
        if event.name.endswith("torch::autograd::AccumulateGrad"):
            return "gradients"
        if event.name.startswith("autograd::engine::evaluate_function"):
            return "backward"
        if event.name in PARTS:
            return event.name
        event = event.cpu_parent
    return "heads and losses"


def operators(way: Way) -> Counter[str]:
    """Return how many operators that compute something a step of one pack runs, by part."""
    with (
        named("vision tower", way.student, "visual_tokens"),
        named("language model", way.student, "run_language_model"),
        named("gradients", way.engine, "backward"),
        named("optimizer", way.engine, "step"),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
    ):
        way.step(way.steps[0])
    counts: Counter[str] = Counter()
    for event in profiler.events():
        if computes(event) and not any(map(computes, event.cpu_children)):
            counts[part_of(event)] += 1
    return counts


def main() -> None:
    """Measure each way, one after the other, and print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--way", action="append", metavar="plain|recorded|rounded|compiled[:FILE]")
    parser.add_argument("--rounds", type=int, default=10, help="of three steps, timed")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="bfloat16 on a GPU")
    parser.add_argument("--size", default="small", choices=("tiny", "mini", "small"))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--samples", type=int, default=96, help="of a step, at least 10")
    arguments = parser.parse_args()
    ranks = start_ranks()
    print(f"`python {' '.join(sys.argv)}`, {device_name()}, torch {torch.__version__}")
    print(
        "| way | first round, s | three steps, s | samples/s | losses differ by | peak GiB |\n|"
        + "---|" * 6
    )
    ways, reference, counted = arguments.way or ["plain", "compiled"], None, []
    for text in ways:
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        way = Way(text, ranks, arguments)
        taken, losses = [], []
        for _ in range(arguments.rounds + 1):
            began = time.perf_counter()
            losses += way.round()
            wait_for_gpu()
            taken.append(time.perf_counter() - began)
        reference = reference or losses
        off = max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))
        median = sorted(taken[1:])[arguments.rounds // 2]
        speed = len(way.steps) * way.samples / median
        memory = torch.cuda.max_memory_reserved() / 2**30 if ranks.device.type == "cuda" else 0.0
        row = f"{taken[0]:.2f} | {median:.4f} | {speed:.0f} | {off:.1e} | {memory:.2f}"
        print(f"| {text} | {row} |", flush=True)
        counted.append(operators(way))
    print("\n| operators of a step of one pack | " + " | ".join(ways) + " |")
    print("|---|" + "---|" * len(ways))
    for part in PARTS:
        print(f"| {part} | " + " | ".join(str(counts[part]) for counts in counted) + " |")
    print("| together | " + " | ".join(str(counts.total()) for counts in counted) + " |")


if __name__ == "__main__":
    main()
