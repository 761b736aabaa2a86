"""Runs that answer most questions alike: what is counted, and when and how it is said."""

from dataclasses import replace

import numpy as np
import pytest

from threedrs.evaluation.alike_answers import alike_answers, count_alike
from threedrs.evaluation.tables import run_notes
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS

SCENE = "scene0000_00"


def test_answers_that_are_alike_are_counted():
    texts = [
        Prediction(id=f"{i}", benchmark="scanqa", scene=SCENE, prediction=text)
        for i, text in enumerate(("no", "no", "", "yes"))
    ]
    assert count_alike(TASKS["scanqa"], texts) == {"most_frequent": "no", "count": 2, "of": 4}
    assert count_alike(TASKS["scan2cap"], texts) == {"most_frequent": "no", "count": 2, "of": 4}
    # Some descriptions are empty since no model was asked, others since it said nothing.
    empty = [replace(text, prediction="") for text in texts]
    found = count_alike(TASKS["scan2cap"], empty[:3] + texts[3:], not_asked=1)
    assert found == {"most_frequent": "", "count": 2, "of": 3}
    found = count_alike(TASKS["scan2cap"], empty, not_asked=4)
    assert found == {"most_frequent": "", "count": 0, "of": 0}
    boxes = [
        Prediction(
            id="q",
            benchmark="multi3drefer",
            scene=SCENE,
            scores=np.array([1.0, 0, 0]),
            boxes=np.zeros((2, 6)),
        )
        for _ in range(2)
    ]
    boxes[0].scores[:] = 0, 0, 1
    assert count_alike(TASKS["multi3drefer"], boxes) == {"no_object_first": 1, "of": 2}
    assert count_alike(TASKS["scanqa"], []) == {"most_frequent": "", "count": 0, "of": 0}


@pytest.mark.parametrize(
    ("alike", "said"),
    [
        ({"most_frequent": "no", "count": 51, "of": 100}, '"no" is the answer to 51 of 100 '),
        ({"most_frequent": "no", "count": 50, "of": 100}, None),
        ({"most_frequent": "", "count": 0, "of": 0}, None),
        ({"most_frequent": "", "count": 12, "of": 12}, "ScanQA: (no answer) to 12 of 12 questions"),
        ({"no_object_first": 9, "of": 9}, '"no object" ranks first for all 9 questions'),
        ({"no_object_first": 8, "of": 9}, None),
    ],
)
def test_a_run_that_answers_alike_gets_a_sentence(alike, said):
    entry = {"benchmarks": {"scanqa": {"alike": alike}}, "train": None}
    sentences = run_notes(entry)
    assert bool(sentences) == bool(said)
    if said:
        assert sentences[0].startswith("ScanQA: ")
        assert '""' not in sentences[0]
        assert said in sentences[0]


def test_most_is_enough_where_no_object_may_be_meant():
    counts = {"alike": {"no_object_first": 8, "of": 9}}
    found = alike_answers({"benchmarks": {"multi3drefer": counts, "scanrefer": counts}})
    assert list(found) == ["multi3drefer"]
    assert found["multi3drefer"].counted == "8 of 9 questions"
