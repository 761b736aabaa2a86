"""Does the loader keep up? Packs a second, waits for the next pack, and memory, on every rank.

Scene stores and features of real size are generated in FOLDER (50 MB a scene; kept for the next
run), then read by the loader of `threedrs.train`, as many ranks at a time as torchrun starts: first
as fast as it goes, then by a GPU that is busy for SECONDS with every pack (matrix products; a plain
wait without a GPU). A wait is the time from asking for a pack to having it; the rest of the time
the next pack was ready. Memory is that of a rank with its loaders; what they share counts once.

    python -m torch.distributed.run --standalone --nproc-per-node=4 benchmarks/loader.py FOLDER \\
        --packs 1,8 --seconds 0.8
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed

from generated_run import scene_name, shard_path, write_inputs
from machine import machine
from threedrs.distributed.ranks import Ranks, start_ranks
from threedrs.models.packing import Pack
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.tasks.record import read_records
from threedrs.training.pack_reader import PackReader, load_packs
from threedrs.training.sampler import PackPlan, micro_steps, plan_batches

SIDE = 8192  # of the matrices that keep the GPU busy


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--samples", type=int, default=16, help="of each scene")
    parser.add_argument("--packs", default="1,8", help="samples a pack, one run each")
    parser.add_argument("--workers", type=int, default=4, help="loader processes a rank")
    parser.add_argument("--seconds", type=float, default=0.8, help="of a pack's training step")
    parser.add_argument("--steps", type=int, default=24, help="packs a rank in each run")
    return parser.parse_args()


def plans_of(arguments: argparse.Namespace, pack: int, ranks: Ranks) -> list[PackPlan]:
    """Return this rank's packs of one pass over the mix, in the order of training."""
    scenes = [record.scene for record in read_records(arguments.folder / "mix.jsonl")]
    batches = plan_batches(
        scenes, pack=pack, global_batch=pack * ranks.count, drop_last=True, seed=42, epoch=0
    )
    own = [plan for batch in batches for plan in micro_steps(batch, ranks.rank, ranks.count)]
    return [plan for plan in own if len(plan.indices) == pack][: arguments.steps]


def busy(seconds: float, device: torch.device) -> Callable[[], None]:
    """Return work that keeps the device busy for ``seconds``."""
    if device.type == "cpu":
        return lambda: time.sleep(seconds)
    left, right = torch.randn(2, SIDE, SIDE, device=device, dtype=torch.bfloat16)

    def multiply(times: int) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(times):
            left @ right
        torch.cuda.synchronize()
        return time.perf_counter() - began

    multiply(20)
    times = round(seconds / (multiply(100) / 100))

    def work() -> None:
        multiply(times)

    return work


def held_megabytes() -> float:
    """Return the memory of this process and its children, MB; shared pages count once."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def consume(packs: Iterator[Pack], work: Callable[[], None], device: torch.device) -> Any:
    """Return the waits of each pack but the first, their seconds altogether, and the most MB."""
    next(packs).to(device)
    waits, most = [], held_megabytes()
    began = time.perf_counter()
    unmeasured = 0.0
    while True:
        asked = time.perf_counter()
        pack = next(packs, None)
        if pack is None:
            break
        waits.append(time.perf_counter() - asked)
        pack.to(device)
        work()
        if len(waits) % 8 == 0:
            paused = time.perf_counter()
            most = max(most, held_megabytes())
            unmeasured += time.perf_counter() - paused
    return waits, asked - began - unmeasured, most


def measure(arguments: argparse.Namespace, reader: PackReader, pack: int, ranks: Ranks) -> Any:
    """Return this rank's figures with packs of ``pack`` samples."""
    plans = plans_of(arguments, pack, ranks)
    size = reader.read(plans[0])
    tensors = [value for value in vars(size.scene).values() if isinstance(value, torch.Tensor)]
    began = time.perf_counter()
    for plan in plans[:4]:
        reader.read(plan)
    alone = (time.perf_counter() - began) / 4
    row = {
        "pack": pack,
        "pack_mb": round(sum(value.nbytes for value in tensors) / 1e6, 1),
        "read_ms": round(1e3 * alone, 1),
    }
    works = {"flat out": lambda: None, "busy": busy(arguments.seconds, ranks.device)}
    for name, work in works.items():
        torch.distributed.barrier()
        # Flat out, twice as many packs: the first ones are read ahead.
        wanted = plans * 2 if name == "flat out" else plans
        with closing(load_packs(reader, wanted, arguments.workers)) as packs:
            waits, seconds, megabytes = consume(packs, work, ranks.device)
        if name == "flat out":
            row["packs_per_second"] = round(len(waits) / seconds, 1)
            continue
        row |= {
            "seconds_a_pack": round(seconds / len(waits), 4),
            "ready_share": round(1 - sum(waits) / seconds, 4),
            "median_wait_ms": round(1e3 * statistics.median(waits), 1),
            "longest_wait_ms": round(1e3 * max(waits), 1),
            "memory_gb": round(megabytes / 1e3, 2),
        }
    return row


def main() -> None:
    """Generate what is missing, measure on all ranks at once, print JSON and a table."""
    arguments = parse()
    ranks = start_ranks()
    if ranks.first and not (arguments.folder / "mix.jsonl").is_file():
        write_inputs(
            arguments.folder,
            scenes=arguments.scenes,
            frames=arguments.frames,
            samples=arguments.scenes * arguments.samples,
        )
    torch.distributed.barrier()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<ground>", "<coord>"])
    reader = PackReader(
        records=list(read_records(arguments.folder / "mix.jsonl")),
        scenes=arguments.folder / "scenes",
        features={scene_name(n): shard_path(arguments.folder, n) for n in range(arguments.scenes)},
        boxes="gt",
        tokenizer=tokenizer,
        label_chat_tokens=True,
        max_length=32768,
    )
    command = " ".join(["benchmarks/loader.py", *sys.argv[1:]])
    for pack in map(int, arguments.packs.split(",")):
        rows: list[Any] = [None] * ranks.count
        torch.distributed.all_gather_object(rows, measure(arguments, reader, pack, ranks))
        if ranks.first:
            facts = {
                "command": command,
                "machine": f"{machine()}, {ranks.count} ranks on {ranks.device.type}",
                "date": datetime.date.today().isoformat(),
                "workers": arguments.workers,
                "ranks": rows,
            }
            print(json.dumps(facts), flush=True)
            print(
                f"K={pack}: {sum(row['packs_per_second'] for row in rows):.1f} packs/s flat out; "
                f"at {rows[0]['seconds_a_pack']} s a pack the next one is ready "
                f"{min(row['ready_share'] for row in rows):.2%} of the time, "
                f"{max(row['memory_gb'] for row in rows)} GB a rank (worst ranks)",
                flush=True,
            )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
    torch.distributed.destroy_process_group()
