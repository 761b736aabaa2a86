"""Small annotation files and boxes, for the tests of the converters."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.instructions.convert import ConversionSummary, convert
from threedrs.instructions.record import Record, read_records
from threedrs.scannet.boxes import BoxSet
from threedrs.scannet.layout import DataLayout

SCENE, OTHER_SCENE = "scene0000_00", "scene0001_00"
LABELS = (
    "id\traw_category\tcategory\tnyu40id\n"
    "1\toffice chair\tchair\t5\n2\tarmchair\tchair\t5\n3\tdesk\tdesk\t14\n4\tbook\tbook\t23\n"
)


def box_set(boxes: dict[int, Sequence[float]]) -> BoxSet:
    """Boxes by object id."""
    return BoxSet(
        boxes=np.array(list(boxes.values()), np.float32).reshape(-1, 6),
        ids=np.array(list(boxes), np.int32),
        labels=tuple("" for _ in boxes),
    )


# Object 7's row is 2: ids are not rows.
GROUND_TRUTH = {1: [0, 0, 0, 1, 1, 1], 2: [3, 0, 0, 2, 1, 1], 7: [6, 0, 0.1, 2, 2, 2]}
# IoU with object 1: 0.8 and 0.5; with object 2: 0.48; with object 7: none.
PROPOSALS = {0: [0, 0, 0, 2, 1, 1], 3: [0, 0, 0, 0.8, 1, 1], 4: [3.7, 0, 0, 2, 1, 1]}
BOXES = {
    SCENE: {"gt": box_set(GROUND_TRUTH), "pred": box_set(PROPOSALS)},
    OTHER_SCENE: {"gt": box_set({1: [1, 1, 1, 2, 2, 2]}), "pred": box_set({})},
}


def write_annotations(root: Path, path: str, value: Any) -> Path:
    """Write an annotation file below the benchmark folder, and the label table."""
    labels = DataLayout(root=root).labels_file
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text(LABELS)
    file = root / "benchmark" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def write_sqa3d(root: Path, split: str, questions: list[Any], annotations: list[Any]) -> None:
    """Write SQA3D's two files."""
    folder = "sqa_task/balanced/v1_balanced"
    write_annotations(root, f"{folder}_questions_{split}_scannetv2.json", {"questions": questions})
    write_annotations(
        root, f"{folder}_sqa_annotations_{split}_scannetv2.json", {"annotations": annotations}
    )


def description(object_id: int, annotation: int, text: str, **changes: Any) -> dict[str, Any]:
    """A row of ScanRefer's files."""
    return {
        "scene_id": SCENE,
        "object_id": str(object_id),
        "object_name": "office_chair",
        "ann_id": str(annotation),
        "description": text,
        "token": text.split(),
        **changes,
    }


SCANREFER = "scanrefer/ScanRefer_filtered_train.json"
MULTI3DREFER = "multi3drefer/multi3drefer_train.json"
SCANQA = "scanqa/ScanQA_v1.0_train.json"
QUESTIONS = "sqa_task/balanced/v1_balanced_questions_train_scannetv2.json"
ANNOTATIONS = "sqa_task/balanced/v1_balanced_sqa_annotations_train_scannetv2.json"
GOOD = {
    SCANREFER: description(1, 0, "a chair"),
    MULTI3DREFER: {
        "scene_id": SCENE,
        "object_ids": [1],
        "ann_id": 0,
        "eval_type": "mt",
        "description": "x",
    },
    SCANQA: {"scene_id": SCENE, "question_id": "a", "question": "What?", "answers": ["b"]},
}


def run(
    root: Path, benchmark: str, split: str, **options: Any
) -> tuple[list[Record], ConversionSummary]:
    """Convert with the boxes above; return the records read back, and the summary."""
    out = root / "out" / f"{benchmark}_{split}.jsonl"
    options = {"max_reject_fraction": 1.0, **options}
    summary = convert(benchmark, split, DataLayout(root=root), BOXES, out, **options)
    return list(read_records(out)), summary


def rejected(root: Path, benchmark: str, split: str) -> list[dict[str, Any]]:
    """The rejected rows of a conversion that ``run`` made."""
    text = (root / "out" / f"{benchmark}_{split}.rejected.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def reasons(root: Path, benchmark: str, split: str = "train") -> list[tuple[str, int, str, str]]:
    lines = rejected(root, benchmark, split)
    return [(line["file"], line["row"], line["reason"], line["detail"]) for line in lines]
