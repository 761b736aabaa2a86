"""The field's own predictions files: detected, converted, scored like ours, explained by line."""

import json

import pytest
from typer.testing import CliRunner

from threedrs.errors import DataError
from threedrs.evaluation.external_predictions import read_any_predictions
from threedrs.evaluation.score import score_file
from threedrs.tasks.registry import TASKS

BOX, FAR = [0, 0, 0, 1, 1, 1], [5, 5, 5, 1, 1, 1]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(**fields):
    row = {"sample_id": 7, "pred_response": "brown", "gt_response": ["brown", "dark brown"]}
    return {**row, "question_type": "what", **fields}


def grounding(**fields):
    row = {"sample_id": "scene0011_00_3", "pred_response": None, "gt_response": BOX}
    return {**row, "scores": [0.9, 0.2, 0.1], "objects": [BOX, FAR], **fields}


def test_text_rows(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        text(),
        # The published code writes this word for each question of ScanQA, which has no types.
        text(
            sample_id="x", gt_response="red", video="scannet/scene0011_00", question_type="unknow"
        ),
    )
    rows, form = read_any_predictions(path, TASKS["scanqa"])
    assert form == "field"
    assert [row.id for row in rows] == ["7", "x"]
    assert rows[0].references == ("brown", "dark brown")
    assert rows[1].references == ("red",)
    assert [row.scene for row in rows] == ["7", "scene0011_00"]
    assert [row.question_type for row in rows] == ["what", None]
    result = score_file("scanqa", path, tmp_path / "m.json", bootstrap=10, meteor=False)
    assert result["metrics"]["em"]["value"] == 50.0
    assert result["provenance"]["predictions_form"] == "field"
    assert result["provenance"]["rows_without_scene"] == 1


def test_grounding_rows(tmp_path):
    rows = [
        grounding(),
        grounding(
            sample_id="scene0011_00_4", gt_response=[BOX], scores=[0.1, 0.8]
        ),  # no zero target
        grounding(sample_id="scene0012_00_1", gt_response=[FAR], scores=[0.1, 0.2, 0.9]),
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    result = score_file("scanrefer", path, tmp_path / "m.json", bootstrap=0)
    # right; wrong; right, because ScanRefer never picks the zero target
    assert result["metrics"]["acc@0.5"]["value"] == pytest.approx(200 / 3)
    rows = [
        grounding(),
        grounding(sample_id="b", gt_response=[], scores=[0.1, 0.2, 0.9]),
        grounding(sample_id="c", gt_response=[BOX, FAR], scores=[0.5, 0.5, 0.1]),
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    result = score_file("multi3drefer", path, tmp_path / "m.json", bootstrap=0)
    # 1; 1; one of two: the best proposal alone reaches 0.4 of the probability: F1 2/3
    assert result["metrics"]["f1@0.25"]["value"] == pytest.approx(100 * (1 + 1 + 2 / 3) / 3)


def test_our_own_rows_are_still_ours(tmp_path):
    row = {"format_version": 1, "id": "q", "benchmark": "sqa3d", "scene": "scene0000_00"}
    path = write(tmp_path / "a.jsonl", {**row, "prediction": "a", "references": ["a"]})
    assert read_any_predictions(path, TASKS["sqa3d"])[1] == "threedrs"


@pytest.mark.parametrize(
    ("benchmark", "row", "message"),
    [
        ("scanqa", text(pred_response=None), "line 2: pred_response: None is not of type 'string'"),
        (
            "scanqa",
            text(pred_response=3),
            "line 2: pred_response: 3 is not of type 'string'; ",
        ),
        ("scanqa", text(gt_response=[""]), "line 2: gt_response: holds no text"),
        ("scanqa", text(), "line 2: id '7' already stands on line 1"),
        ("scanqa", {"id": 1}, "line 2: has no sample_id, unlike the first row"),
        (
            "scanrefer",
            grounding(gt_response=[BOX, FAR]),
            "line 2: ScanRefer has exactly one true box a question, found 2",
        ),
        ("scanrefer", grounding(objects=[[1, 2]]), "line 2: objects.0: expected six numbers"),
        ("scanrefer", grounding(scores=None), "line 2: scores: None is not of type 'array'"),
        (
            "multi3drefer",
            grounding(scores=[1, 2]),
            "line 2: expected 3 scores (2 boxes and the zero",
        ),
    ],
)
def test_a_malformed_row_is_explained_by_its_line(tmp_path, benchmark, row, message):
    first = text() if benchmark == "scanqa" else grounding(sample_id="first")
    path = write(tmp_path / "a.jsonl", first, row)
    with pytest.raises(DataError) as caught:
        read_any_predictions(path, TASKS[benchmark])
    assert message in str(caught.value)


def test_the_command_says_what_the_intervals_rest_on(tmp_path):
    import typer

    from threedrs.cli.evaluate import score

    app = typer.Typer()
    app.command()(score)
    path = write(tmp_path / "a.jsonl", text(), text(sample_id=8))
    arguments = ["scanqa", path, "--out", tmp_path / "m.json", "--no-meteor"]
    said = CliRunner().invoke(app, list(map(str, arguments)))
    assert said.exit_code == 0, said.output
    words = " ".join(said.output.split())
    assert "no scene is named in 2 of 2 rows" in words
    assert "add a field scene, or take the scenes of the records by threedrs predictions" in words


@pytest.mark.parametrize("row", [{"question_id": "a", "answer_top10": ["b"]}, ["a"]])
def test_rows_of_no_known_form_name_both(tmp_path, row):
    path = write(tmp_path / "a.jsonl", row)
    with pytest.raises(DataError, match="neither sample_id, as rows of published code, nor format"):
        read_any_predictions(path, TASKS["scanqa"])
