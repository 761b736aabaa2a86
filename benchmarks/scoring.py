"""How long scoring takes: five synthetic prediction sets of the full benchmarks' sizes.

    python benchmarks/scoring.py [--meteor]

prints the table of results/scoring.md. The sets hold as many questions as ScanNet's validation
(SQA3D: test) questions, over 141 scenes (SQA3D: 67), with 50 proposals a scene and captions and
answers of usual length. Timed is `score_file`: reading, checking, metrics, 1,000 resamples, files.
"Without looking" is `write_trivial_answers` for the same questions, with as many training records
as ScanNet has, which happens once for all runs.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.evaluation.score import score_file
from threedrs.evaluation.trivial_answers import write_trivial_answers
from threedrs.tasks.record import Record, conversation, write_records

QUESTIONS = {
    "scanrefer": 9508,
    "multi3drefer": 11120,
    "scan2cap": 2068,
    "scanqa": 4675,
    "sqa3d": 3519,
}
SCENES = {"sqa3d": 67}
TRAINING = {"scan2cap": 36_665, "scanqa": 26_515, "sqa3d": 79_445}
TYPES = {
    "scanrefer": ["unique", "multiple"],
    "multi3drefer": ["zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"],
    "sqa3d": ["what", "is", "how", "can", "which", "others"],
}
WORDS = [f"{first}{second}" for first in ("ch", "t", "br", "wi", "de") for second in "aeiouxyz"]
PROPOSALS = 50


def _text(generator: np.random.Generator, low: int, high: int) -> str:
    return " ".join(generator.choice(WORDS, size=generator.integers(low, high)))


def _row(
    benchmark: str, number: int, boxes: np.ndarray, generator: np.random.Generator
) -> dict[str, Any]:
    """Return what one question adds to the fields that all rows share."""
    if benchmark in ("scanrefer", "multi3drefer"):
        true = 1 if benchmark == "scanrefer" else int(generator.integers(0, 4))
        gt = boxes[generator.integers(0, PROPOSALS, size=true)] + generator.normal(
            0, 0.05, (true, 6)
        )
        scores = generator.normal(0.2, 0.2, PROPOSALS + 1).clip(-1, 1)
        return {"scores": scores.tolist(), "boxes": boxes.tolist(), "gt": np.abs(gt).tolist()}
    low, high, references = (10, 30, 5) if benchmark == "scan2cap" else (1, 4, 2)
    truths = [_text(generator, low, high) for _ in range(references)]
    said = truths[0] if number % 3 == 0 else _text(generator, low, high)
    return {"prediction": said, "references": truths}


def write_set(path: Path, benchmark: str) -> None:
    """Write the synthetic predictions of a benchmark."""
    generator = np.random.default_rng(len(benchmark))
    scenes = SCENES.get(benchmark, 141)
    boxes = generator.uniform(0.2, 2.0, (scenes, PROPOSALS, 6))
    types = TYPES.get(benchmark, [None])
    with path.open("w", encoding="utf-8") as stream:
        for number in range(QUESTIONS[benchmark]):
            scene = number % scenes
            row = {
                "format_version": 1,
                "id": f"q{number}",
                "benchmark": benchmark,
                "scene": f"scene{scene:04d}_00",
                "question_type": types[number % len(types)],
                **_row(benchmark, number, boxes[scene], generator),
            }
            stream.write(json.dumps(row) + "\n")


def write_questions(path: Path, benchmark: str, count: int) -> Path:
    """Write records with as many questions of random words."""
    generator = np.random.default_rng(count)
    box = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0] if benchmark == "scan2cap" else None
    low, high = (10, 30) if benchmark == "scan2cap" else (1, 4)
    write_records(
        path,
        (
            Record(
                id=f"q{number}",
                benchmark=benchmark,
                scene=f"scene{number % 500:04d}_00",
                conversations=conversation(
                    f"<image> {_text(generator, 5, 12)}?", _text(generator, low, high)
                ),
                box_input=box,
            )
            for number in range(count)
        ),
    )
    return path


def without_looking(folder: Path, benchmark: str, predictions: Path) -> float:
    """Return the seconds that `write_trivial_answers` takes for a benchmark."""
    asked = write_questions(folder / f"{benchmark}_val.jsonl", benchmark, QUESTIONS[benchmark])
    training = {}
    if benchmark in TRAINING:
        file = folder / f"{benchmark}_train.jsonl"
        training[benchmark] = write_questions(file, benchmark, TRAINING[benchmark])
    began = time.perf_counter()
    write_trivial_answers(
        {benchmark: [predictions]}, {benchmark: asked}, training, folder / "trivial.json"
    )
    return time.perf_counter() - began


def main() -> None:
    """Write the sets, score them, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--meteor", action="store_true", help="with METEOR (needs Java)")
    meteor = parser.parse_args().meteor
    print(f"cores: {len(os.sched_getaffinity(0))}\n")
    print("| benchmark | questions | file, MB | scoring, s | without looking, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    total = blind_total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for benchmark, questions in QUESTIONS.items():
            path = Path(folder) / f"{benchmark}.jsonl"
            write_set(path, benchmark)
            began = time.perf_counter()
            score_file(
                benchmark,
                path,
                Path(folder) / "metrics.json",
                meteor=meteor,
                per_question=Path(folder) / "per_question.npz",
            )
            seconds = time.perf_counter() - began
            blind = without_looking(Path(folder), benchmark, path)
            total, blind_total = total + seconds, blind_total + blind
            size = path.stat().st_size / 1e6
            print(
                f"| {benchmark} | {questions:,} | {size:.1f} | {seconds:.1f} | {blind:.1f} |",
                flush=True,
            )
    print(f"| together | {sum(QUESTIONS.values()):,} | | {total:.1f} | {blind_total:.1f} |")


if __name__ == "__main__":
    main()
