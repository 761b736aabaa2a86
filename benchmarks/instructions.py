"""Time and memory of converting and balancing instruction data at full scale.

Makes annotation files with the published numbers of rows (36,665 ScanRefer, 43,838 Multi3DRefer,
25,563 ScanQA and 26,623 SQA3D training rows: 223,128 records of five benchmarks), then, in a
process of its own whose peak memory the operating system tells, converts the five and draws the
mix: everything, and everything under caps:

    python benchmarks/instructions.py
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import machine
from threedrs.distributed.ranks import peak_resident
from threedrs.io.files import write_json
from threedrs.scannet.layout import DataLayout

SCENES = [f"scene{number:04d}_00" for number in range(562)]
OBJECTS = 33
NAMES = ("chair", "table", "office_chair", "trash_can", "window", "door", "couch", "bookshelf")
WORDS = (
    *NAMES,
    "the",
    "a",
    "brown",
    "white",
    "wooden",
    "round",
    "left",
    "right",
    "near",
    "it",
    "is",
)
CAPS = {"max_per_scene": 500, "max_per_answer": 1000, "max_per_object": 40}


def make_data(root: Path) -> None:
    """Write the label table, four benchmarks' training files and the boxes."""
    generator = np.random.default_rng(0)
    # a few scenes and answers are far more frequent than the others, as in the real files
    scene_weights = generator.gamma(2.0, size=len(SCENES))
    scene_weights /= scene_weights.sum()

    def text(words: int) -> str:
        return " ".join(WORDS[i] for i in generator.integers(0, len(WORDS), words)).capitalize()

    def scenes(count: int) -> list[str]:
        return [SCENES[i] for i in generator.choice(len(SCENES), count, p=scene_weights)]

    def answer() -> str:
        return f"answer {min(int(generator.zipf(1.6)), 4000)}"

    layout = DataLayout(root=root)
    layout.labels_file.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        f"{n}\t{name.replace('_', ' ')}\tx\t{n + 3}\n" for n, name in enumerate(NAMES, start=1)
    )
    layout.labels_file.write_text(f"id\traw_category\tcategory\tnyu40id\n{rows}")
    folder = layout.benchmark_folder
    write_json(
        folder / "scanrefer" / "ScanRefer_filtered_train.json",
        [
            {
                "scene_id": scene,
                "object_id": str(number % OBJECTS),
                "object_name": NAMES[number % len(NAMES)],
                "ann_id": str(number),
                "description": text(20),
                "token": [],
            }
            for number, scene in enumerate(scenes(36_665))
        ],
    )
    write_json(
        folder / "multi3drefer" / "multi3drefer_train.json",
        [
            {
                "scene_id": scene,
                "object_ids": [int(i) for i in range(number % 4)],
                "object_name": NAMES[number % len(NAMES)],
                "ann_id": number,
                "description": text(16),
                "eval_type": ("zt_w_d", "st_w_d", "mt", "mt")[number % 4],
            }
            for number, scene in enumerate(scenes(43_838))
        ],
    )
    write_json(
        folder / "scanqa" / "ScanQA_v1.0_train.json",
        [
            {
                "scene_id": scene,
                "question_id": f"train-{number}",
                "question": f"{text(9)}?",
                "answers": [answer() for _ in range(2 if number < 952 else 1)],
            }
            for number, scene in enumerate(scenes(25_563))
        ],
    )
    questions, annotations = [], []
    for number, scene in enumerate(scenes(26_623)):
        questions.append(
            {
                "scene_id": scene,
                "question_id": number,
                "situation": text(22),
                "alternative_situation": [text(22) for _ in range(1 if number < 424 else 2)],
                "question": f"What {text(8)}?",
            }
        )
        annotations.append(
            {"scene_id": scene, "question_id": number, "answers": [{"answer": answer()}]}
        )
    for kind, value in (("questions", questions), ("annotations", annotations)):
        name = "questions" if kind == "questions" else "sqa_annotations"
        write_json(
            folder / "sqa_task" / "balanced" / f"v1_balanced_{name}_train_scannetv2.json",
            {kind: value},
        )
    boxes = generator.uniform(0.1, 3, (OBJECTS, 6)).round(4).tolist()
    box_set = {"boxes": boxes, "ids": list(range(OBJECTS)), "labels": [""] * OBJECTS}
    write_json(
        root / "boxes.json",
        {
            "format_version": 1,
            "scenes": {scene: {"gt": box_set, "pred": box_set} for scene in SCENES},
            "notes": [],
        },
    )


def convert_and_balance(root: Path) -> None:
    """Convert the five benchmarks, draw both mixes, and print the figures as JSON."""
    from threedrs.config.schema import Caps
    from threedrs.instructions.convert import convert
    from threedrs.instructions.mix import build_mix
    from threedrs.instructions.mix_settings import MixSettings
    from threedrs.scannet.boxes import read_boxes_file
    from threedrs.tasks.registry import TASKS

    start, start_cpu = time.perf_counter(), time.process_time()
    boxes = read_boxes_file(root / "boxes.json")
    files = [root / f"{name}_train.jsonl" for name in TASKS]
    records = sum(
        convert(name, "train", DataLayout(root=root), boxes, file).records
        for name, file in zip(TASKS, files, strict=True)
    )
    converted, converted_cpu = time.perf_counter(), time.process_time()
    seconds, processor = {}, {"convert": converted_cpu - start_cpu}
    for name, caps in (("all", Caps()), ("capped", Caps(**CAPS))):
        before, before_cpu = time.perf_counter(), time.process_time()
        summary = build_mix(
            files,
            MixSettings(balance="all", caps=caps),
            held_out_scenes=["scene0800_00"],
            out_jsonl=root / f"{name}.jsonl",
            out_summary=root / f"{name}.summary.json",
        )
        seconds[name] = time.perf_counter() - before
        processor[name] = time.process_time() - before_cpu
    print(
        json.dumps(
            {
                "records": records,
                "convert": converted - start,
                **seconds,
                "kept": summary["samples"],
                "cpu": processor,
                "peak": peak_resident() / 2**20,
            }
        )
    )


def main() -> None:
    """Make the files, measure a child process, print one table row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        convert_and_balance(Path(arguments.measure))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        answer = subprocess.run(
            [sys.executable, __file__, "--measure", folder],
            check=True,
            capture_output=True,
            text=True,
        )
    found = json.loads(answer.stdout.splitlines()[-1])
    cpu = found["cpu"]
    print(
        f"| `python benchmarks/instructions.py` | {machine()} (1 used) | "
        f"{datetime.date.today().isoformat()} | {found['records']:,} records: conversion "
        f"{found['convert']:.1f} s ({cpu['convert']:.1f} s of processor time), mix of all "
        f"{found['all']:.1f} s ({cpu['all']:.1f}), mix under three caps (to {found['kept']:,}) "
        f"{found['capped']:.1f} s ({cpu['capped']:.1f}); peak {found['peak']:.0f} MB |"
    )


if __name__ == "__main__":
    main()
