"""One student's forward and backward pass at full size, by samples a pack: time, memory, shares.

A pack is made up: random pictures, boxes and teacher features, 24 shared text tokens, and samples
of 64 own tokens, text and grounding in turn. Weights are random. Each line is one pack size K on
one GPU, or on the CPU; the optimizer step is left out, as the optimizer's state of a 7B model does
not fit one GPU. Utilisation counts forward and backward without recomputation.

    python benchmarks/training_step.py --size 7b --run sdpa:0:1,2,4,8,16 --run flash:0:8,16

``--run ATTENTION:KEPT:K,...`` measures a backend with the activations of KEPT layers kept instead
of recomputed (`execution.kept_layers`). The first line of each run is the base of its ratio of
samples a second. "Planned" is the memory by the figures of `threedrs plan`. ``--profile`` says
where the GPU's time goes in the last pack measured, in a whole step and in the vision tower's part.
"""

import argparse
import datetime
import gc
import json
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_time import kernels_of, time_shares
from harness import choose_device, device_name, seconds
from threedrs.config.schema import TUNABLE, SupervisionSettings
from threedrs.models.attention.packed import pack_mask
from threedrs.models.backbones.family import SIZES
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import IGNORE, Layout, Pack, Prefix, Sample
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.training.flops import OperationCount, device_peak
from threedrs.training.full_pack import GIB, FullPack
from threedrs.training.recipe import TrainSettings

OBJECTS = 30
OWN_TOKENS = 64
ANSWER_TOKENS = 16
PREFIX = Prefix(before_ids=tuple(range(14)), after_ids=tuple(range(10)), labelled=frozenset())
SUPERVISION = SupervisionSettings()


def scene(student: Student, frames: int) -> SceneInputs:
    """Return a made-up scene of ``frames`` frames for the student's token grid."""
    grid, channels = student.family.grid, student.teacher_channels
    return SceneInputs(
        scene="scene0000_00",
        rgb_VHWC=torch.randint(0, 256, (frames, 384, 384, 3), dtype=torch.uint8),
        patch_xyz_VGG3=torch.rand(frames, grid.coarse, grid.coarse, 3) * 6 - 3,
        boxes_N6=torch.rand(OBJECTS, 6) + 0.1,
        fine_NVFF=torch.rand(OBJECTS, frames, grid.fine, grid.fine) > 0.95,
        coarse_NVGG=torch.rand(OBJECTS, frames, grid.coarse, grid.coarse) > 0.95,
        teacher_VGGC=torch.randn(frames, 14, 14, channels).half(),
        grid=grid,
    )


def sample(number: int) -> Sample:
    """Return a text sample, or for odd numbers a grounding sample."""
    grounding = number % 2 == 1
    labels = np.full(OWN_TOKENS, IGNORE)
    ids = np.random.default_rng(number).integers(20, 1000, OWN_TOKENS)
    if not grounding:
        labels[-ANSWER_TOKENS:] = ids[-ANSWER_TOKENS:]
    return Sample(
        id=str(number),
        input_ids=ids,
        labels=labels,
        prefix=PREFIX,
        target_rows=[number % OBJECTS] if grounding else None,
        ground_index=OWN_TOKENS - 3 if grounding else None,
        coordinate=None,
    )


def step(student: Student, pack: Pack) -> None:
    """Run a forward and backward pass; the gradients are added up."""
    student(pack, SUPERVISION).total(SUPERVISION.weight).backward()


def vision_step(student: Student, pack: Pack) -> None:
    """Run the vision tower and projector alone."""
    tokens = student.visual_tokens(pack.scene).sequence_TD
    tokens.backward(torch.ones_like(tokens))


def language_step(student: Student, pack: Pack) -> None:
    """Run the language model alone, with the tokens of the pack."""
    dtype, device = student.language_model.lm_head.weight.dtype, student.device
    layout = Layout(
        prefix_length=PREFIX.length(pack.scene.visual_tokens),
        lengths=tuple(len(one.input_ids) for one in pack.samples),
    )
    tokens = torch.randn(pack.tokens, student.channels, dtype=dtype, device=device)
    tokens.requires_grad_()
    positions = student.position_ids(layout.position_ids().to(device), PREFIX, pack.scene)
    owner = layout.owner_S.to(device) if len(pack.samples) > 1 else None
    mask = pack_mask(layout.prefix_length, owner, student.attention, tokens)
    hidden, _ = student.run_language_model(tokens, positions, mask)
    hidden.backward(torch.ones_like(hidden))


def planned(student: Student, kept: int, samples: int, frames: int) -> float:
    """Return the GiB that a pack is planned to take without the optimizer."""
    settings = TrainSettings(
        pack=samples,
        gradient_checkpointing=True,
        kept_layers=kept,
        precision="bfloat16" if student.device.type == "cuda" else "float32",
    )
    pack = FullPack(student=student, settings=settings, frames=frames)
    parts = pack.memory({"zero_optimization": {"stage": 2}}, 1)
    left_out = ("optimizer", "buckets", "update", "system")
    return sum(size for part, size in parts.items() if part not in left_out) / GIB


def measure(
    student: Student, attention: str, kept: int, samples: int, frames: int, repeats: int
) -> dict[str, Any]:
    """Return the figures of packs of ``samples`` samples."""
    device = student.device
    student.attention = attention
    student.gradient_checkpointing_enable(kept)
    pack = Pack(scene=scene(student, frames), samples=tuple(map(sample, range(samples)))).to(device)
    labels = (samples + 1) // 2 * ANSWER_TOKENS
    student.zero_grad(set_to_none=False)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    whole = seconds(lambda: step(student, pack), repeats)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    vision = seconds(lambda: vision_step(student, pack), 1)
    language = seconds(lambda: language_step(student, pack), 1)
    peak = device_peak(device)
    operations = OperationCount(student, TUNABLE).of(pack, labels)
    return {
        "attention": attention,
        "kept_layers": kept,
        "pack": samples,
        "tokens": pack.tokens,
        "seconds": round(whole, 4),
        "samples_per_second": round(samples / whole, 3),
        "mfu": round(operations / whole / peak, 4) if peak else float("nan"),
        "memory_gib": round(memory, 1),
        "planned_gib": round(planned(student, kept, samples, frames), 1),
        "vision_share": round(vision / whole, 3),
        "language_share": round(language / whole, 3),
        "rest_share": round(1 - (vision + language) / whole, 3),
    }


def print_profile(student: Student, samples: int, frames: int) -> None:
    """Print the kinds of kernels of a pack of ``samples``, and the kernels that take the most."""
    pack = Pack(scene=scene(student, frames), samples=tuple(map(sample, range(samples))))
    pack = pack.to(student.device)
    for name, work in (("whole step", step), ("vision tower and projector", vision_step)):
        kernels = kernels_of(partial(work, student, pack))
        print(f"{name}, K={samples}: {json.dumps(time_shares(kernels))}")
        taken: Counter[str] = Counter()
        for kernel in kernels:
            taken[kernel.name] += round(1e3 * (kernel.end - kernel.begin))
        for kernel_name, time_taken in taken.most_common(28):
            count = sum(kernel.name == kernel_name for kernel in kernels)
            share = time_taken / taken.total()
            print(f"{share:7.2%} {count:6d} x {kernel_name[:110]}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="llava-video")
    parser.add_argument("--size", default="7b", choices=SIZES)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--run", action="append", metavar="ATTENTION:KEPT:K,K,...")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print the slowest kernels (GPU)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON lines")
    return parser.parse_args()


def main() -> None:
    """Measure every run and print one table row each."""
    arguments = parse()
    device, machine = choose_device(), device_name()
    settings = ModelSettings(
        name=arguments.name, size=arguments.size, random_weights=arguments.size == "7b"
    )
    with device:
        student, _ = load_student(settings, teacher_channels=2048)
    student.to(device).train()
    command = "python benchmarks/training_step.py " + " ".join(sys.argv[1:])
    print(f"`{command}`, {machine}, torch {torch.__version__}, {datetime.date.today()}")
    print(
        "| attention | kept | K | tokens | s/pack | samples/s | ratio | MFU | GiB | planned | "
        "vision | language | rest |\n|" + "---|" * 13,
        flush=True,
    )
    rows = []
    for run in arguments.run or ["sdpa:0:1,2,4,8,16"]:
        attention, kept, packs = run.split(":")
        base = None
        for samples in map(int, packs.split(",")):
            gc.collect()
            try:
                row = measure(
                    student, attention, int(kept), samples, arguments.frames, arguments.repeats
                )
            except torch.OutOfMemoryError as error:
                print(f"| {attention} | {kept} | {samples} | out of memory: {str(error)[:60]} |")
                torch.cuda.empty_cache()
                continue
            base = base or row["samples_per_second"]
            rows.append(row | {"command": command, "machine": machine})
            print(
                f"| {attention} | {kept} | {samples} | {row['tokens']} | {row['seconds']} | "
                f"{row['samples_per_second']} | {row['samples_per_second'] / base:.2f} | "
                f"{row['mfu']:.1%} | {row['memory_gib']} | {row['planned_gib']} | "
                f"{row['vision_share']:.0%} | {row['language_share']:.0%} | "
                f"{row['rest_share']:.0%} |",
                flush=True,
            )
    if arguments.profile:
        print_profile(student, samples, arguments.frames)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    main()
