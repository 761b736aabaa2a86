"""Exact match of ScanQA and SQA3D, and SQA3D's normalisation row by row."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.real_data import shipped_and_whole
from fixtures.scored_rows import score_rows
from threedrs.metrics.exact_match import exact_match_normalised, normalise_answer
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Brown", "brown"),
        ("  brown   table ", "brown table"),
        ("brown.", "brown"),
        ("yes!?", "yes"),
        ("it's 3:30, half-past", "it's three:30, half-past"),
        ("café", "caf"),
        ("letf", "left"),
        ("let", "left"),
        ("letter", "letter"),
        ("tehre", "there"),
        ("brigth", "right"),
        ("rght", "right"),
        ("behine", "behind"),
        ("tv", "TV"),
        ("tvs", "tvs"),
        ("chai", "chair"),
        ("chairs", "chairs"),
        ("wasing machine", "washing machine"),
        ("waslked", "walked"),
        ("10 oclock", "ten o'clock"),
        ("3 o' clock.", "three o'clock"),
        ("none", "zero"),
        ("23", "twenty-three"),
        ("21", "21"),
        ("120", "120"),
        ("mat2", "mat"),
        ("mat22", "mat22"),
        ("room1 door", "room door"),
        ("a chair", "chair"),
        ("an oven", "oven"),
        ("the sink", "sink"),
        ("the 2 chairs", "two chairs"),
        ("banana split", "banana split"),
        ("backwards", "backward"),
        ("go backwards", "go backward"),
        ("", ""),
    ],
)
def test_normalisation_row_by_row(text, normal):
    assert normalise_answer(text) == normal


def test_digits_become_words():
    for number, word in enumerate(NUMBERS.split()):
        assert normalise_answer(str(number)) == word
        assert normalise_answer(f"{number} chairs") == f"{word} chairs"


def test_the_order_of_the_table_shows():
    # Characters are dropped after spaces are trimmed: a space before a full stop stays.
    assert normalise_answer("left .") == "left "
    # A number becomes a word before an article is looked for.
    assert normalise_answer("a 1") == "one"
    # The article goes once per place, as one pass over the text does it.
    assert normalise_answer("a the chair") == "chair"


def test_exact_match():
    assert exact_match_normalised("The Brown chair.", ["brown chair"])
    assert exact_match_normalised("2", ["two", "three"])
    assert not exact_match_normalised("brown", ["dark"])


@given(st.text(max_size=30))
def test_any_text_matches_itself(text):
    assert exact_match_normalised(text, [text])


def rows_of(benchmark, *rows):
    return [
        Prediction(
            id=str(index),
            benchmark=benchmark,
            scene=f"scene{index:04d}_00",
            question_type=kind,
            prediction=prediction,
            references=tuple(references),
        )
        for index, (prediction, references, kind) in enumerate(rows)
    ]


def test_sqa3d_scores_by_hand():
    rows = rows_of(
        "sqa3d",
        ("Left", ["left"], "which"),
        ("2", ["two"], "how"),
        ("three", ["two"], "how"),
        ("", ["yes"], "is"),
    )
    result = score_rows(rows, TASKS["sqa3d"])
    assert result["metrics"]["em"] == {"value": 50.0, "low": None, "high": None}
    assert result["metrics"]["em_normalised"]["value"] == 50.0
    by_type = {name: group["metrics"]["em"]["value"] for name, group in result["by_type"].items()}
    assert by_type == {"how": 50.0, "is": 0.0, "which": 100.0}


def test_scanqa_tells_verbatim_from_normalised():
    rows = rows_of(
        "scanqa",
        ("brown", ["brown", "dark brown"], None),
        ("brown.", ["brown"], None),
        ("2 chairs", ["two chairs"], None),
        ("", ["brown"], None),
    )
    result = score_rows(rows, TASKS["scanqa"])
    assert result["metrics"]["em"]["value"] == 25.0
    assert result["metrics"]["em_normalised"]["value"] == 75.0
    assert result["by_type"] == {}
    assert list(result["metrics"]) == list(TASKS["scanqa"].metrics)


@pytest.mark.parametrize(("folder", "questions"), shipped_and_whole("sqa3d", 100, 3519))
def test_published_sqa3d_answers_score_100_against_themselves(folder: Path, questions: int) -> None:
    file = folder / "v1_balanced_sqa_annotations_test_scannetv2.json"
    answers = [row["answers"][0]["answer"] for row in json.loads(file.read_text())["annotations"]]
    assert len(answers) == questions
    rows = rows_of("sqa3d", *((f" The {text}.", [text], "what") for text in answers))
    result = score_rows(rows, TASKS["sqa3d"])
    assert result["metrics"]["em"]["value"] > 99.0
