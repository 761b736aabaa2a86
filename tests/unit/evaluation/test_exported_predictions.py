"""Predictions of ours as the field's rows, typed from their description, and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.errors import DataError
from threedrs.evaluation.score import score_file
from threedrs.io.files import write_json
from threedrs.tasks.prediction import (
    Prediction,
    meta_path,
    read_predictions,
    write_predictions,
)
from threedrs.tasks.record import Record, conversation, write_records
from threedrs.tasks.registry import TASKS

SCENE = "scene0011_00"
TRUE = [0.1, 0.2, 0.3, 1.0, 1.0, 1.0]
FAR = [5.0, 5.0, 5.0, 1.0, 1.0, 1.0]
HALF = [0.0999755859375, 0.199951171875, 0.300048828125, 1.0, 1.0, 1.0]  # TRUE in float16
INSTRUCTION = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial "
    "relationships in the video and answer the following questions."
)


def question(benchmark: str, name: str, answer: str, **changes: Any) -> Record:
    turns = conversation("<image> What is it?", answer)
    return Record(id=name, benchmark=benchmark, scene=SCENE, conversations=turns, **changes)


def answered(record: Record, **changes: Any) -> Prediction:
    return Prediction(
        id=record.id,
        benchmark=record.benchmark,
        scene=record.scene,
        question_type=record.question_type,
        references=tuple(record.references or ()),
        **changes,
    )


REFER = question("scanrefer", "7", "<ground>", question_type="unique", object_ids=[1])
MULTI = question("multi3drefer", "8", "<ground>", question_type="mt", object_ids=[1, 2])
CAPTION = question(
    "scan2cap", "30", "A tv", question_type="multiple", references=["a tv", "The TV"]
)
QUESTION = question("scanqa", "scanqa_val-scene0011-0_0", "2", references=["2", "two"])
SITUATED = question("sqa3d", "220602000002", "no", question_type="is", references=["no"])
SCORES, BOXES = np.array([0.25, 0.5, 0.75]), np.array([FAR, TRUE])
# record, our answer, the field's own fields
CASES: list[tuple[Record, dict[str, Any], dict[str, Any]]] = [
    (
        REFER,  # the best proposal, though the zero target is best of all
        {"scores": SCORES, "boxes": BOXES, "gt": np.array([TRUE])},
        {"dataset": "scanrefer", "sample_id": 7, "pred_response": HALF, "gt_response": TRUE},
    ),
    (
        MULTI,
        {"scores": SCORES, "boxes": BOXES, "gt": np.array([TRUE, FAR])},
        {
            "dataset": "multi3drefer",
            "sample_id": 8,
            "scores": [0.25, 0.5, 0.75],
            "objects": [FAR, HALF],
            "gt_response": [TRUE, FAR],
        },
    ),
    (
        CAPTION,
        {"prediction": "a telly"},
        {
            "dataset": "scan2cap",
            "sample_id": 30,
            "pred_response": "a telly",
            "gt_response": ["a tv", "The TV"],
            "scene": f"scannet/{SCENE}",
        },
    ),
    (
        QUESTION,
        {"prediction": "two"},
        {
            "dataset": "scanQA",
            "sample_id": "scanqa_val-scene0011-0_0",
            "pred_response": "two",
            "gt_response": "2",
        },
    ),
    (
        SITUATED,
        {"prediction": "No."},
        {
            "dataset": "sqa3d",
            "sample_id": 220602000002,
            "pred_response": "No.",
            "gt_response": "no",
        },
    ),
]


def write(folder: Path, record: Record, answer: dict[str, Any]) -> tuple[Path, Path]:
    """Write a run's predictions of one question, and the question."""
    records = folder / "records.jsonl"
    write_records(records, [record])
    predictions = folder / "eval/3drs" / record.benchmark / "predictions.jsonl"
    predictions.parent.mkdir(parents=True)
    write_predictions(predictions, [answered(record, **answer)])
    return predictions, records


def command(*arguments: Any) -> str:
    said = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["predictions", *map(str, arguments)])
    if said.exception is not None and not isinstance(said.exception, SystemExit):
        raise said.exception
    assert said.exit_code == 0, said.output
    return said.output


@pytest.mark.parametrize(("record", "answer", "published"), CASES)
def test_rows_are_the_fields_and_come_back(
    tmp_path: Path, record: Record, answer: dict[str, Any], published: dict[str, Any]
) -> None:
    predictions, records = write(tmp_path, record, answer)
    theirs, ours = tmp_path / "theirs.jsonl", tmp_path / "ours.jsonl"
    command("export", predictions, "--records", records, "--out", theirs)
    assert json.loads(theirs.read_text()) == {
        **published,
        "prompt": f"<image>\n{INSTRUCTION}\n What is it?",
        "model_id": "3drs",
        "question_type": record.question_type or "unknow",
    }
    said = command("import", theirs, "--records", records, "--out", ours)
    assert said == f"{ours}: answers to 1 of 1 question\n"
    (before,), (after,) = (
        read_predictions(p, TASKS[record.benchmark]) for p in (predictions, ours)
    )
    expected = before.to_json()
    if record is REFER:
        expected |= {"scores": [1.0, 0.0], "boxes": [HALF]}
    elif record is MULTI:
        expected["boxes"] = [FAR, HALF]
    assert after.to_json() == expected
    scores = [
        score_file(record.benchmark, path, tmp_path / "m.json", bootstrap=0, meteor=False)
        for path in (predictions, ours, theirs)
    ]
    assert scores[0]["metrics"] == scores[1]["metrics"]
    if record is not QUESTION:
        assert scores[0]["metrics"] == scores[2]["metrics"]
    else:  # alone, the field's row knows the first answer only
        ems = [score["metrics"]["em"]["value"] for score in scores]
        assert ems == [100.0, 100.0, 0.0]


def test_a_scene_without_proposals_has_a_box_of_no_size(tmp_path: Path) -> None:
    answer = {"scores": np.array([0.5]), "gt": np.array([TRUE])}
    predictions, records = write(tmp_path, REFER, answer)
    command("export", predictions, "--records", records, "--out", tmp_path / "theirs.jsonl")
    assert json.loads((tmp_path / "theirs.jsonl").read_text())["pred_response"] == [0.0] * 6
    result = score_file("scanrefer", tmp_path / "theirs.jsonl", tmp_path / "m.json", bootstrap=0)
    assert result["metrics"]["acc@0.25"]["value"] == 0.0


def test_anothers_references_of_an_object_without_a_box_are_put_right(tmp_path: Path) -> None:
    """The field's evaluation writes the previous row's references where there is no box."""
    _, records = write(tmp_path, CAPTION, {"prediction": ""})
    wrong = {"sample_id": 30, "pred_response": "", "gt_response": ["another object's"]}
    (tmp_path / "theirs.jsonl").write_text(json.dumps(wrong))
    command(
        *("import", tmp_path / "theirs.jsonl", "--records", records),
        *("--out", tmp_path / "ours.jsonl"),
    )
    (row,) = read_predictions(tmp_path / "ours.jsonl", TASKS["scan2cap"])
    assert row.references == ("a tv", "The TV")


@pytest.mark.parametrize("direction", ["export", "import"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"sample_id": 9, "pred_response": "x", "gt_response": "y"}',
            "line 1: .* no question '9'",
        ),
        ('{"sample_id": 7, "gt_response": [1]}', "line 1: 'pred_response' is a required property"),
        ('{"sample_id": 7, "pred_res', "theirs.jsonl: line 1"),
        ('{"other": 1}', "line 1: holds neither sample_id"),
        ("", "holds no predictions"),
    ],
)
def test_damaged_and_foreign_rows_are_one_line(
    tmp_path: Path, direction: str, content: str, message: str
) -> None:
    write_records(tmp_path / "records.jsonl", [replace(SITUATED, id="7")])
    (tmp_path / "theirs.jsonl").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        command(
            *(direction, tmp_path / "theirs.jsonl", "--records", tmp_path / "records.jsonl"),
            *("--out", tmp_path / "out.jsonl"),
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def two_questions(folder: Path, meta: dict[str, Any] | None) -> tuple[Path, Path]:
    """Write two questions, the answer to the first, and the meta file of the answer."""
    predictions, records = write(folder, SITUATED, {"prediction": "No."})
    write_records(records, [SITUATED, replace(SITUATED, id="8")])
    if meta is not None:
        write_json(meta_path(predictions), {"format_version": 1, "n": 1, **meta})
    return predictions, records


@pytest.mark.parametrize("direction", ["export", "import"])
def test_a_part_of_the_answers_is_refused(tmp_path: Path, direction: str) -> None:
    predictions, records = two_questions(tmp_path, None)
    with pytest.raises(DataError, match=r"answers 1 of the 2 questions .*finish it, or give the"):
        command(direction, predictions, "--records", records, "--out", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "meta",
    [
        {"limit": {"questions": 1, "of": 2}},
        {"left_out": {"questions": 1, "scenes": {"scene0001_00": "no depth"}}},
    ],
)
def test_what_was_not_asked_is_said_on_the_way_there_and_back(
    tmp_path: Path, meta: dict[str, Any]
) -> None:
    predictions, records = two_questions(tmp_path, meta)
    theirs, ours = tmp_path / "theirs.jsonl", tmp_path / "ours.jsonl"
    said = command("export", predictions, "--records", records, "--out", theirs)
    assert ("the first 1 of 2 questions only, which gives no score" in said) == ("limit" in meta)
    command("import", theirs, "--records", records, "--out", ours)
    for path in (theirs, ours):
        result = score_file("sqa3d", path, tmp_path / "m.json", bootstrap=0, meteor=False)
        assert {name: result.get(name) for name in meta} == meta
