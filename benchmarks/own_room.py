"""Do answers look at the room? Their loss with its own images, without colours, and with others.

    python benchmarks/own_room.py RUN... [--results results] [--scenes 40]

prints for each trained run, each benchmark of texts and each kind of answer: how many held-out
answers (of captions the first reference), and the mean over them of the summed loss of the answer's
tokens, in nats. The other room is the next one of the list, whole or with its images alone in the
places of the own one's. A student that answers from the words alone loses nothing with another
room; an exact answer may not show yet what this difference does.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from learning import kind_of_answer
from run_results import made
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import one_line_errors
from threedrs.io.files import read_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import IGNORE, Pack
from threedrs.models.scene_inputs import SceneInputs
from threedrs.models.student import Student
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import evaluation_name, find_task
from threedrs.training.pack_reader import PackReader
from threedrs.training.sampler import PackPlan

TEXTS = ("scan2cap", "scanqa", "sqa3d")
WAYS = ("own room", "without colours", "another's images", "another room")
ALL = "all"


def by_scene(records: Sequence[Record], most: int) -> dict[str, tuple[int, ...]]:
    """Return the places of all records of each of the first ``most`` scenes."""
    found: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault(record.scene, []).append(place)
    return {scene: tuple(found[scene]) for scene in sorted(found)[:most]}


def losses(student: Student, pack: Pack) -> Iterator[float]:
    """Yield the loss of each answer, summed over its tokens."""
    with torch.no_grad():
        means = student(pack.to(student.device), SupervisionSettings()).text_K.tolist()
    for mean, sample in zip(means, pack.samples, strict=True):
        yield mean * int((sample.labels != IGNORE).sum())


def shown(scene: SceneInputs, another: SceneInputs) -> dict[str, SceneInputs]:
    """Return what a student is shown in each of ``WAYS``."""
    grey_VHW1 = scene.rgb_VHWC.float().mean(-1, keepdim=True).to(torch.uint8)
    without_colours = replace(scene, rgb_VHWC=grey_VHW1.expand_as(scene.rgb_VHWC))
    others_images = replace(scene, rgb_VHWC=another.rgb_VHWC)
    return dict(zip(WAYS, (scene, without_colours, others_images, another), strict=True))


def losses_by_way(student: Student, packs: list[Pack]) -> dict[str, list[float]]:
    """Return each answer's loss in each of the ways; another room is the next pack's."""
    assert len(packs) > 1, "one room has no other"
    found: dict[str, list[float]] = {}
    for pack, another in zip(packs, [*packs[1:], packs[0]], strict=True):
        for way, scene in shown(pack.scene, another.scene).items():
            found.setdefault(way, []).extend(
                losses(student, Pack(scene=scene, samples=pack.samples))
            )
    return found


def rows(results: Path, run: str, scenes: int, device: str) -> Iterator[str]:
    """Yield the lines of a run."""
    config = read_json(made(results, f"train/{run}/config.json"))
    student, tokenizer = load_student(
        ModelSettings(path=made(results, f"train/{run}/model")), teacher_channels=None
    )
    student.eval().to(device)
    for benchmark in TEXTS:
        task, name = find_task(benchmark), evaluation_name(benchmark)
        asked = read_records(made(results, f"instructions/{name}.jsonl"))
        records = [record for record in asked if task.needs_model(record)]
        reader = PackReader(
            records=records,
            scenes=results / "scenes",
            features={},
            boxes=config["boxes"]["train"],
            tokenizer=tokenizer,
            label_chat_tokens=False,
            max_length=2**20,
            grid=student.family.grid,
        )
        places = by_scene(records, scenes)
        packs = [reader.read(PackPlan(scene=s, indices=own)) for s, own in places.items()]
        found = losses_by_way(student, packs)
        kinds = [
            kind_of_answer(records[place].conversations[1]["value"])
            for own in places.values()
            for place in own
        ]
        for kind in (*sorted(set(kinds)), ALL):
            chosen = [place for place, own in enumerate(kinds) if kind in (own, ALL)]
            cells = [
                f"{statistics.mean(values[place] for place in chosen):.3f}"
                for values in found.values()
            ]
            yield f"| {run} | {benchmark} | {kind} | {len(chosen)} | {' | '.join(cells)} |"


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
    print(
        f"| run | benchmark | answer | n | {' | '.join(WAYS)} |\n|---|---|---|---|---|---|---|---|"
    )
    for run in arguments.runs:
        for row in rows(arguments.results, run, arguments.scenes, device):
            print(row, flush=True)


if __name__ == "__main__":
    with one_line_errors("own_room"):
        main()
