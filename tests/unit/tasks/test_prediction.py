"""The prediction row: what is read back equals what was written, and what is wrong is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.prediction_files import BOX, GROUNDING, error_of
from threedrs.errors import ConfigError
from threedrs.tasks.prediction import (
    Prediction,
    meta_path,
    read_predictions,
    write_predictions,
)
from threedrs.tasks.registry import TASKS, find_task

HALF = "holds half a surrogate pair, which is not a character; mend the row"
TEXT = {
    "format_version": 1,
    "id": "a",
    "benchmark": "scanqa",
    "scene": "scene0000_00",
    "question_type": None,
    "prediction": "brown",
    "references": ["brown", "dark brown"],
    "scores": None,
    "boxes": [],
    "gt": [],
}


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_come_back_as_written(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [
        Prediction(
            id=name,
            benchmark="multi3drefer",
            scene="scene0001_00",
            question_type="mt",
            scores=np.array([0.1, 0.7, -0.2]),
            boxes=np.array([BOX, BOX]),
            gt=np.zeros((0, 6)),
        )
        for name in ("x", "y")
    ]
    assert write_predictions(path, rows) == 2
    read = read_predictions(path, TASKS["multi3drefer"])
    assert [row.to_json() for row in read] == [row.to_json() for row in rows]
    assert read[0].gt.shape == (0, 6)
    assert list(json.loads(path.read_text().splitlines()[0])) == list(GROUNDING)


def test_text_rows_need_no_boxes(tmp_path):
    bare = {name: TEXT[name] for name in TEXT if name not in ("scores", "boxes", "gt")}
    path = write_lines(tmp_path / "p.jsonl", bare, {**TEXT, "id": "b", "prediction": ""})
    rows = read_predictions(path, TASKS["scanqa"])
    assert [row.prediction for row in rows] == ["brown", ""]
    assert rows[0].references == ("brown", "dark brown")
    assert rows[0].scores is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format_version": 2},
            "format_version: 2 is greater than the maximum of 1; mend the row",
        ),
        ({"format_version": True}, "format_version: True is not of type 'integer'; "),
        ({"scores": [0.5]}, "expected 2 scores (1 boxes and the zero target), found 1; "),
        ({"scores": None}, "scores: None is not of type 'array'; "),
        ({"scores": [0.5, "x"]}, "scores.1: 'x' is not of type 'number'; "),
        ({"scores": [0.5, float("nan")]}, "scores.1 is nan; expected a finite number; "),
        ({"scores": [0.5, float("inf")]}, "scores.1 is inf; expected a finite number; "),
        ({"boxes": [BOX[:5]]}, "boxes.0: expected six numbers, centre and size"),
        ({"boxes": [[]]}, "boxes.0: expected six numbers"),
        ({"boxes": [BOX, BOX[:5]]}, "boxes.1: expected six numbers"),
        (
            {"gt": [[0, 0, 0, -1, 1, 1]]},
            "gt.0: expected six numbers, centre and size, and no",
        ),
        ({"gt": [[0, 0, 0, 1, float("nan"), 1]]}, "gt.0.4 is nan; expected a finite number"),
        ({"benchmark": "scanqa"}, "is a row of 'scanqa', expected 'scanrefer'; "),
        ({"id": 7}, "id: 7 is not of type 'string'; "),
        ({"scene": ""}, "scene: '' should be non-empty; "),
        ({"question_type": 3}, "question_type: 3 is not of type 'string', 'null'; "),
        ({"question_type": "\ud800"}, f"question_type: {HALF}"),
        ({"id": "a\udc00"}, f"id: {HALF}"),
    ],
)
def test_a_wrong_grounding_row_is_named_by_line(tmp_path, change, message):
    path = write_lines(tmp_path / "p.jsonl", GROUNDING, {**GROUNDING, "id": "b", **change})
    assert error_of(path, "scanrefer").startswith(f"{path}: line 2: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": None}, "prediction: None is not of type 'string'; "),
        ({"references": "brown"}, "references: 'brown' is not of type 'array'; "),
        ({"references": []}, "references: holds no text to compare with; "),
        ({"references": [" "]}, "references: holds no text to compare with; "),
        ({"prediction": "a \ud800"}, f"prediction: {HALF}"),
        ({"references": ["a", "\ud800"]}, f"references.1: {HALF}"),
    ],
)
def test_a_wrong_text_row_is_named_by_line(tmp_path, change, message):
    path = write_lines(tmp_path / "p.jsonl", {**TEXT, **change})
    assert error_of(path, "scanqa").startswith(f"{path}: line 1: {message}")


@pytest.mark.parametrize("name", ["format_version", "id", "benchmark", "scene", "scores", "boxes"])
def test_a_missing_field_is_named(tmp_path, name):
    row = {key: value for key, value in GROUNDING.items() if key != name}
    path = write_lines(tmp_path / "p.jsonl", row)
    start = f"{path}: line 1: '{name}' is a required property; mend the row"
    assert error_of(path, "scanrefer").startswith(start)


def test_malformed_json_is_named_by_line(tmp_path):
    path = write_lines(tmp_path / "p.jsonl", TEXT)
    with path.open("a") as stream:
        stream.write('{"format_version": 1, "id": "b", "pred')
    assert error_of(path, "scanqa") == (
        f"{path}: line 2 is not valid JSON; mend that place, or unpack, download or make the file "
        "again"
    )
    assert "line 1: [1] is not of type 'object'" in error_of(write_lines(path, [1]), "scanqa")


def test_repeated_ids_and_empty_files_are_refused(tmp_path):
    path = write_lines(tmp_path / "p.jsonl", TEXT, TEXT)
    assert error_of(path, "scanqa") == (
        f"{path}: line 2: id 'a' already stands on line 1; keep one of them"
    )
    assert error_of(write_lines(path), "scanqa") == f"{path}: holds no predictions; make them again"
    assert "cannot be read" in error_of(tmp_path / "none.jsonl", "scanqa")


def test_a_partial_file_is_not_scored(tmp_path):
    path = write_lines(tmp_path / "predictions.jsonl", TEXT)
    meta = meta_path(path)
    assert meta.name == "predictions.meta.json"
    assert len(read_predictions(path, TASKS["scanqa"])) == 1
    meta.write_text('{"format_version": 1, "n": 1}')
    assert len(read_predictions(path, TASKS["scanqa"])) == 1
    meta.write_text('{"format_version": 1, "n": 3}')
    assert "holds 1 of 3 questions" in error_of(path, "scanqa")
    meta.write_text('{"format_version": 1}')
    assert "holds 1 of None questions" in error_of(path, "scanqa")
    meta.write_text('{"format_version": 9, "n": 1}')
    assert "is of format version 9, expected 1" in error_of(path, "scanqa")


def test_an_unknown_benchmark_is_named_with_the_valid_ones():
    with pytest.raises(ConfigError, match="'scanref'; choose one of: scanrefer, multi3drefer, "):
        find_task("scanref")
