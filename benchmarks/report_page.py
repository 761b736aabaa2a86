"""How long the report page of a full study takes to build, and how large it is.

    python benchmarks/report_page.py --out DIR [--runs 12] [--questions 3000] [--rooms 141]

writes a results folder of generated answers (settings of three seeds each, five benchmarks), scores
it, and builds the page. Answers repeat as those of models do: two in three are among 200 frequent
ones. Rooms are of one frame each, as neither time nor size of the page depends on what they show.
Times are of the processor, because the machine is shared.
"""

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threedrs.evaluation.aggregate import aggregate
from threedrs.evaluation.score import score_file
from threedrs.io.files import write_json, write_json_lines
from threedrs.report.page import ReportSettings, build_report
from threedrs.report.room_files import write_rooms
from threedrs.scannet.boxes import make_box_set
from threedrs.scenes.store import SceneContents, write_scene_store
from threedrs.tasks.prediction import Prediction, write_predictions
from threedrs.tasks.record import Record, conversation, write_records
from threedrs.tasks.registry import TASKS, evaluation_name

WORDS = (
    *("the", "a", "chair", "table", "brown", "black", "near", "left", "right", "of", "window"),
    *("door", "white", "bed", "desk", "lamp"),
)
PROPOSALS = 40  # of a room
INTRINSIC = np.array([[500.0, 0, 320, 0], [0, 500, 240, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TYPES = {
    "scanrefer": ("unique", "multiple"),
    "multi3drefer": ("zt_w_d", "st_w_d", "st_wo_d", "mt"),
    "sqa3d": ("what", "is", "how", "can", "which", "other"),
}
SEEDS = 3


def write_room(folder: Path, scene: str, boxes_N6: np.ndarray) -> None:
    """Write a store of one grey frame, 3 m ahead, with the boxes as proposals and as true ones."""
    image = io.BytesIO()
    Image.new("RGB", (640, 480), "#909090").save(image, format="JPEG")
    boxes = make_box_set([(box, number, "chair") for number, box in enumerate(boxes_N6)])
    masks = np.ones((len(boxes_N6), 1, 27, 27), bool), np.ones((len(boxes_N6), 1, 14, 14), bool)
    contents = SceneContents(
        rgb=np.full((1, 384, 384, 3), 144, np.uint8),
        jpegs=[image.getvalue()],
        depth=np.full((1, 384, 384), 3000, np.uint16),
        poses=np.eye(4)[None],
        depth_intrinsic=INTRINSIC,
        depth_size=(640, 480),
        patch_xyz=np.zeros((1, 14, 14, 3), np.float32),
        boxes={"gt": boxes, "pred": boxes},
        masks={"gt": masks, "pred": masks},
        attributes={"scene": scene, "split": "val", "frame_ids": [7], "invalid_depth": "reference"},
    )
    write_scene_store(folder / f"{scene}.zarr", contents)


class Study:
    """A generated study; every draw follows from the seed."""

    def __init__(self, results: Path, runs: int, questions: int, rooms: int) -> None:
        self.results, self.questions = results, questions
        self.random = np.random.default_rng(0)
        self.rooms = {
            f"scene{number:04d}_00": self.random.uniform(0.3, 3, (PROPOSALS, 6))
            for number in range(rooms)
        }
        names = ("baseline", "3drs", "dinov2", "cosine", "layers", "mae", "flare", "lora")
        self.runs = tuple(
            f"{names[number // SEEDS]}{f'-seed{seed}' if (seed := number % SEEDS + 1) > 1 else ''}"
            for number in range(runs)
        )
        self.frequent = [self.text(int(length)) for length in self.random.integers(1, 4, 200)]

    def text(self, words: int) -> str:
        """Return so many words at random."""
        return " ".join(self.random.choice(WORDS, words))

    def record(self, benchmark: str, number: int) -> Record:
        """Return a question about a room and one of its boxes."""
        scene = list(self.rooms)[number % len(self.rooms)]
        boxes, task = self.rooms[scene], TASKS[benchmark]
        mine = int(self.random.integers(PROPOSALS))
        kinds = TYPES.get(benchmark)
        references = None if task.grounding else [self.text(12 if task.box_input else 2)] * 2
        return Record(
            id=f"{benchmark}_{scene}_{number}",
            benchmark=benchmark,
            scene=scene,
            conversations=conversation(f"<image> {self.text(14)} {number}?", "brown"),
            question_type=kinds[number % len(kinds)] if kinds else None,
            object_ids=[mine] if task.grounding else None,
            box_input=boxes[mine].tolist() if task.box_input else None,
            references=references,
        )

    def prediction(self, record: Record) -> Prediction:
        """Return an answer to a question."""
        shared: dict[str, Any] = {
            "id": record.id,
            "benchmark": record.benchmark,
            "scene": record.scene,
        }
        if record.references is None:
            boxes = self.rooms[record.scene]
            # Four in ten answers choose the true box.
            scores = self.random.uniform(0, 0.4, PROPOSALS + 1)
            true = (record.object_ids or [0])[0]
            scores[true if self.random.random() < 0.4 else int(self.random.integers(40))] = 0.9
            return Prediction(
                **shared,
                question_type=record.question_type,
                scores=scores.round(4),
                boxes=boxes,
                gt=boxes[[true]],
            )
        kind = self.random.integers(3)
        long = TASKS[record.benchmark].box_input
        text = record.references[0] if kind == 0 else self.frequent[self.random.integers(200)]
        if kind == 2 and long:
            text = self.text(12)
        return Prediction(
            **shared,
            question_type=record.question_type,
            prediction=text,
            references=tuple(record.references),
        )

    def write(self) -> None:
        """Write scenes, questions, answers, scores and training logs."""
        for scene, boxes in self.rooms.items():
            write_room(self.results / "scenes", scene, boxes)
        for benchmark in TASKS:
            records = [self.record(benchmark, number) for number in range(self.questions)]
            name = evaluation_name(benchmark)
            write_records(self.results / "instructions" / f"{name}.jsonl", records)
            for run in self.runs:
                place = self.results / "eval" / run / benchmark
                rows = [self.prediction(record) for record in records]
                write_predictions(place / "predictions.jsonl", rows)
                score_file(
                    benchmark,
                    place / "predictions.jsonl",
                    place / "metrics.json",
                    bootstrap=100,
                    meteor=False,
                    run=run,
                    per_question=place / "per_question.npz",
                )
        for number, run in enumerate(self.runs):
            self.write_training(run, number)
        (self.results / "benchmarks").mkdir()

    def write_training(self, run: str, number: int) -> None:
        """Write what the training of a run leaves."""
        folder, setting = self.results / "train" / run, run.split("-seed")[0]
        config = {
            "run": run,
            "teacher": {"name": "none" if setting == "baseline" else setting},
            "paths": {"out": run},
            "model": {"name": "llava-video", "size": "7b"},
            "supervision": {"weight": 1.0, "loss": "l2", "layer": "last"},
            "train": {"seed": number % SEEDS + 1, "lora": None},
        }
        write_json(folder / "config.json", config)
        speeds = {"samples_per_second": 4.0, "tokens_per_second": 100.0, "peak_memory_gib": 60.0}
        summary = {"device": "H100", "ranks": 8, "steps": 5000, "samples": 8, "seconds": 2.0}
        summary |= {"rank_seconds": 2.0, "model_flops_utilisation": 0.4}
        write_json(folder / "train.json", {**summary, **speeds})
        noise = self.random.normal(0, 0.1, (5000, 3))
        fall = np.exp(-np.arange(5000) / 1500)
        rows = [
            {
                "step": step + 1,
                "text": 0.8 + fall[step] + noise[step, 0],
                "grounding": 0.5 + fall[step] + noise[step, 1],
                "supervision": (setting != "baseline") * (0.6 + fall[step] + noise[step, 2]),
                "samples_per_second": 4.0,
            }
            for step in range(5000)
        ]
        write_json_lines(folder / "log.jsonl", rows)

    def summarise(self) -> None:
        """Write the summaries of all runs."""
        places = {(run, b): self.results / "eval" / run / b for run in self.runs for b in TASKS}
        report = self.results / "report"
        aggregate(
            {key: place / "metrics.json" for key, place in places.items()},
            per_question_files={key: place / "per_question.npz" for key, place in places.items()},
            baseline="baseline",
            train_summaries={run: self.results / "train" / run / "train.json" for run in self.runs},
            run_configs={run: self.results / "train" / run / "config.json" for run in self.runs},
            out=report / "summary.json",
        )


def main() -> None:
    """Build the page of a generated study and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--rooms", type=int, default=141)
    asked = parser.parse_args()
    study = Study(asked.out / "results", asked.runs, asked.questions, asked.rooms)
    if not (study.results / "report").is_dir():
        study.write()
        study.summarise()
    settings = ReportSettings(
        title="A generated study",
        baseline="baseline",
        runs=study.runs,
        benchmarks=tuple(TASKS),
        teachers=(),
        mixes=(),
        demo=True,
        feature_shard=None,
    )
    starts = [time.process_time()]
    build_report(study.results, settings)
    starts.append(time.process_time())
    write_rooms(study.results / "scenes", study.rooms, asked.out / "rooms")
    starts.append(time.process_time())
    whole, rooms = np.diff(starts)
    megabytes = (study.results / "report" / "index.html").stat().st_size / 1e6
    print(
        f"{whole - rooms:.1f} s and {megabytes:.2f} MB without the rooms, {rooms:.1f} s for these"
    )


if __name__ == "__main__":
    main()
