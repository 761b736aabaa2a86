"""benchmarks/colour_alone.py: which descriptions count, and what a chosen box is."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fixtures.repository import ROOT
from threedrs.io.files import write_json_lines
from threedrs.scannet.boxes import BoxSet
from threedrs.tasks import scanrefer
from threedrs.tasks.record import GROUND, Record, conversation, write_records

sys.path.append(str(ROOT / "benchmarks"))

import colour_alone

# Two chairs side by side, a desk behind.
BOXES = BoxSet(
    boxes=np.array([[0, 0, 0, 1, 1, 1], [3, 0, 0, 1, 1, 1], [0, 3, 0, 1, 1, 1]], np.float32),
    ids=np.array([4, 5, 6], np.int32),
    labels=("chair", "chair", "desk"),
)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The red office chair in the room.", "office chair"),
        ("This is an orange box.", "box"),
        ("There is a blue chair.", "chair"),
        ("The blue chair next to the bed.", "chair next to the bed"),
        ("The chair in the room.", None),
        ("This is a red chair. it is in a corner.", None),
    ],
)
def test_a_description_by_colour_alone(text: str, label: str | None) -> None:
    prompt = scanrefer.PROMPT.format(description=text)
    record = Record(
        id="0", benchmark="scanrefer", scene="scene0000_00",
        conversations=conversation(prompt, GROUND),
    )  # fmt: skip
    assert colour_alone.class_by_colour(record) == label


def test_a_chosen_box_is_the_object_that_it_covers() -> None:
    near = [0.1, 0, 0, 1, 1, 1]  # IoU 0.9 / 1.1 with the first chair
    assert colour_alone.outcome(near, 4, "chair", BOXES) == (True, True)
    assert colour_alone.outcome(near, 5, "chair", BOXES) == (True, False)
    assert colour_alone.outcome([0, 3, 0, 1, 1, 1], 4, "chair", BOXES) == (False, False)
    # 0.35 / 1.65 is less than a quarter.
    assert colour_alone.outcome([0.65, 0, 0, 1, 1, 1], 4, "chair", BOXES) == (False, False)


def test_a_row_counts_descriptions_that_need_the_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SimpleNamespace(boxes=lambda kind: BOXES)
    monkeypatch.setattr(colour_alone.SceneStore, "open", lambda path: store)
    # The one desk of the room needs no colour, and the second description names none.
    asked = [
        ("the red chair.", 4),
        ("a chair.", 5),
        ("this is a blue chair.", 5),
        ("the red desk.", 6),
    ]
    records = [
        Record(
            id=str(number), benchmark="scanrefer", scene="scene0000_00", object_ids=(target,),
            conversations=conversation(scanrefer.PROMPT.format(description=text), GROUND),
        )
        for number, (text, target) in enumerate(asked)
    ]  # fmt: skip
    (tmp_path / "instructions").mkdir()
    write_records(tmp_path / "instructions/scanrefer_val.jsonl", records)
    answers = tmp_path / "eval" / "student" / "scanrefer" / "predictions.jsonl"
    answers.parent.mkdir(parents=True)
    boxes = BOXES.boxes.tolist()
    rows = [{"id": str(n), "boxes": boxes, "scores": [0.1, 0.7, 0.2]} for n in range(4)]
    write_json_lines(answers, rows)
    # Both choose the second chair, which is meant once.
    assert colour_alone.row(tmp_path, "student") == "| student | 2 | 100.0 | 50.0 | 50.0 | 50.0 |"
    write_json_lines(answers, rows[3:])
    assert colour_alone.row(tmp_path, "student") == "| student | 0 | | | | |"
