"""Do answers look at the room? Their loss with the room's own pictures and with another room's.

    python benchmarks/own_room.py RUN... [--results results] [--scenes 40]

prints for each trained run and each benchmark of texts: how many held-out answers (of captions the
first reference), and the mean over them of the summed loss of the answer's tokens, in nats. The
other room is the next one of the list. A student that answers from the words alone loses nothing
with another room's pictures; an exact answer may not show yet what this difference does.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch

from threedrs.config.schema import SupervisionSettings
from threedrs.evaluation.answerer import needs_model
from threedrs.io.files import read_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import IGNORE, Pack
from threedrs.models.student import Student
from threedrs.tasks.record import read_records
from threedrs.tasks.registry import evaluation_name, find_task
from threedrs.training.pack_reader import PackReader
from threedrs.training.sampler import PackPlan

TEXTS = ("scan2cap", "scanqa", "sqa3d")


def packs_of(reader: PackReader, most: int) -> list[Pack]:
    """Return all records of each of the first ``most`` scenes as one pack."""
    of_scene: dict[str, list[int]] = {}
    for index, record in enumerate(reader.records):
        of_scene.setdefault(record.scene, []).append(index)
    plans = [PackPlan(scene=s, indices=tuple(of_scene[s])) for s in sorted(of_scene)[:most]]
    return [reader.read(plan) for plan in plans]


def losses(student: Student, pack: Pack) -> Iterator[float]:
    """Yield the loss of each answer, summed over its tokens."""
    with torch.no_grad():
        means = student(pack.to(student.device), SupervisionSettings()).text_K.tolist()
    for mean, sample in zip(means, pack.samples, strict=True):
        yield mean * int((sample.labels != IGNORE).sum())


def own_and_other(student: Student, packs: list[Pack]) -> list[tuple[float, float]]:
    """Return each answer's loss with its own room's pictures and with the next pack's."""
    assert len(packs) > 1, "one room has no other"
    pairs: list[tuple[float, float]] = []
    for pack, another in zip(packs, [*packs[1:], packs[0]], strict=True):
        swapped = Pack(scene=another.scene, samples=pack.samples)
        pairs += zip(losses(student, pack), losses(student, swapped), strict=True)
    return pairs


def rows(results: Path, run: str, scenes: int, device: str) -> Iterator[str]:
    """Yield the lines of a run."""
    config = read_json(results / "train" / run / "config.json")
    student, tokenizer = load_student(
        ModelSettings(path=results / "train" / run / "model"), teacher_channels=None
    )
    student.eval().to(device)
    for benchmark in TEXTS:
        task, file = find_task(benchmark), f"{evaluation_name(benchmark)}.jsonl"
        reader = PackReader(
            records=[
                r for r in read_records(results / "instructions" / file) if needs_model(r, task)
            ],
            scenes=results / "scenes",
            features={},
            boxes=config["boxes"]["train"],
            tokenizer=tokenizer,
            label_chat_tokens=False,
            max_length=2**20,
            grid=student.family.grid,
        )
        pairs = own_and_other(student, packs_of(reader, scenes))
        own, other = (statistics.mean(values) for values in zip(*pairs, strict=True))
        error = statistics.stdev(there - here for here, there in pairs) / len(pairs) ** 0.5
        yield (
            f"| {run} | {benchmark} | {len(pairs)} | {own:.3f} | {other:.3f} | "
            f"{other - own:.3f} ± {error:.3f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--scenes", type=int, default=40)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print("| run | benchmark | answers | own room | another | difference and its standard error |")
    print("|---|---|---|---|---|---|")
    for run in arguments.runs:
        for row in rows(arguments.results, run, arguments.scenes, device):
            print(row, flush=True)


if __name__ == "__main__":
    main()
