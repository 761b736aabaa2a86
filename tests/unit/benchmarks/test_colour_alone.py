"""benchmarks/colour_alone.py: which descriptions count, and what a chosen box is."""

import importlib.util

import numpy as np
import pytest

from fixtures.repository import ROOT
from threedrs.scannet.boxes import BoxSet
from threedrs.tasks import scanrefer
from threedrs.tasks.record import GROUND, Record, conversation

SPEC = importlib.util.spec_from_file_location(
    "colour_alone", ROOT / "benchmarks" / "colour_alone.py"
)
colour_alone = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(colour_alone)

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
