"""Scores of rows that hold a part of the true answers, with and without the annotation file."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.errors import ConfigError, DataError
from threedrs.tasks.record import Record, conversation, write_records

SCANQA = [
    {
        "scene_id": "scene0011_00",
        "question_id": "val-scene0011-0",
        "question": "What is the colour of the chair?",
        "answers": ["dark brown", "brown"],
    },
    {
        "scene_id": "scene0011_00",
        "question_id": "val-scene0011-1",
        "question": "How many chairs are there?",
        "answers": ["4"],
    },
]
IDS = ["scanqa_val-scene0011-0_0", "scanqa_val-scene0011-1_0"]


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_rows(path: Path, *rows: tuple[Any, str, Any]) -> Path:
    keys = ("sample_id", "pred_response", "gt_response")
    lines = (json.dumps(dict(zip(keys, row, strict=True))) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def score(benchmark: str, rows: Path, *options: Any) -> tuple[dict[str, Any], str]:
    out = rows.with_name("metrics.json")
    arguments = ["score", benchmark, rows, "--out", out, "--bootstrap", "0", "--no-meteor"]
    said = CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, [*arguments, *options])))
    if isinstance(said.exception, Exception):
        raise said.exception
    return json.loads(out.read_text()), " ".join(said.output.split())


def test_scanqa_rows_with_the_first_answer_alone(tmp_path: Path) -> None:
    """By hand: "brown" is the second of two true answers, "4" the one and only."""
    rows = write_rows(
        tmp_path / "rows.jsonl", (IDS[0], "brown", "dark brown"), (IDS[1], "4", ["4"])
    )
    alone, said = score("scanqa", rows)
    assert alone["metrics"]["em"]["value"] == 50.0
    assert "no row holds more than one true answer, and ScanQA has questions with several" in said
    file = write(tmp_path / "of_any_name.json", SCANQA)
    whole, said = score("scanqa", rows, "--annotations", file)
    assert whole["metrics"]["em"]["value"] == 100.0
    assert "2 rows are scored against the true answers of of_any_name.json" in said
    assert "1 of them held fewer true answers than that" in said
    assert "no row holds" not in said
    check = whole["provenance"]["annotations"]
    assert (check["questions"], check["fewer"], check["other"]) == (2, 1, 0)
    # The rows name no scene, which the file does.
    provenance = whole["provenance"]
    assert (alone["provenance"]["rows_without_scene"], provenance["rows_without_scene"]) == (2, 0)


def test_rows_with_all_answers_and_rows_of_a_part_of_the_questions(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", (IDS[0], "brown", ["brown", "Dark brown "]))
    assert "true answer" not in score("scanqa", rows)[1]
    _, said = score("scanqa", rows, "--annotations", write(tmp_path / "a.json", SCANQA))
    assert "fewer" not in said
    assert "it has 2 questions: the answers to a part of them are not a score" in said


def test_sqa3d_takes_both_of_its_files_from_one_folder(tmp_path: Path) -> None:
    questions = [
        {"scene_id": "scene0011_00", "question_id": 220602000002, "situation": "I am standing."}
        | {"question": "Is it brown?", "alternative_situation": ["I stand.", "I wait."]}
    ]
    answers = [{"question_id": 220602000002, "answers": [{"answer": "yes"}, {"answer": "sure"}]}]
    name = "v1_balanced_{}_test_scannetv2.json"
    write(tmp_path / name.format("sqa_annotations"), {"annotations": answers})
    file = write(tmp_path / name.format("questions"), {"questions": questions})
    rows = write_rows(tmp_path / "rows.jsonl", (220602000002, "Sure.", "yes"))
    alone, said = score("sqa3d", rows)
    assert alone["metrics"]["em"]["value"] == 0.0
    assert "true answer" not in said  # the published file has one answer a question
    whole, _ = score("sqa3d", rows, "--annotations", file)
    assert whole["metrics"]["em"]["value"] == 100.0
    assert {name: group["n"] for name, group in whole["by_type"].items()} == {"is": 1}
    (tmp_path / name.format("sqa_annotations")).unlink()
    with pytest.raises(
        DataError, match=r"sqa_annotations_test_scannetv2\.json: cannot be read \(No such"
    ):
        score("sqa3d", rows, "--annotations", file)


def test_scan2cap_takes_the_descriptions_without_scans_or_labels(tmp_path: Path) -> None:
    """Rows of objects without a box hold another object's descriptions, as published."""
    described = [("3", "a brown chair"), ("3", "the chair by the desk"), ("5", "a long table")]
    scanrefer = [
        {"scene_id": "scene0011_00", "object_id": object_id, "object_name": "thing"}
        | {"ann_id": str(number), "description": text}
        for number, (object_id, text) in enumerate(described)
    ]
    rows = write_rows(
        tmp_path / "rows.jsonl",
        (0, "the chair by the desk", ["a brown chair"]),
        (2, "", ["a brown chair"]),
    )
    alone, said = score("scan2cap", rows)
    assert "no row holds more than one true answer" in said
    file = write(tmp_path / "ScanRefer_filtered_val.json", scanrefer)
    whole, said = score("scan2cap", rows, "--annotations", file)
    assert whole["metrics"]["bleu4"]["value"] > alone["metrics"]["bleu4"]["value"]
    assert "1 of them held fewer true answers than that" in said
    assert "1 of them held true answers that it does not have" in said


def test_files_of_other_questions_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", SCANQA)
    rows = write_rows(tmp_path / "rows.jsonl", (IDS[0], "a", "dark brown"), ("q7", "b", "b"))
    with pytest.raises(DataError, match=r"line 2: .*a\.json has no question 'q7', its first is"):
        score("scanqa", rows, "--annotations", file)
    rows = write_rows(tmp_path / "rows.jsonl", (IDS[0], "brown", "green"))
    with pytest.raises(DataError, match=r"a\.json: no row of .* has its true answers there"):
        score("scanqa", rows, "--annotations", file)
    grounding = {"sample_id": 1, "pred_response": [0.0] * 6, "gt_response": [0.0] * 6}
    rows.write_text(json.dumps(grounding))
    with pytest.raises(ConfigError, match="ScanRefer compares with the boxes of the rows"):
        score("scanrefer", rows, "--annotations", file)
    assert not (tmp_path / "metrics.json").exists()


def test_records_with_fewer_answers_than_the_imported_rows(tmp_path: Path) -> None:
    turns = conversation("<image> What is it?", "dark brown")
    record = Record(id=IDS[0], benchmark="scanqa", scene="scene0011_00", conversations=turns)
    fields = {name: getattr(record, name) for name in record.__slots__}
    records = tmp_path / "records.jsonl"
    write_records(records, [Record(**{**fields, "references": ["dark brown"]})])
    rows = write_rows(tmp_path / "rows.jsonl", (IDS[0], "brown", ["dark brown", "brown"]))
    command = ["predictions", "import", rows, "--records", records, "--out", tmp_path / "o.jsonl"]
    said = CliRunner(env={"COLUMNS": "300"}).invoke(app, list(map(str, command)))
    assert "for 1 of them" in said.output, said.output
    assert "has fewer true answers than" in said.output


@pytest.mark.parametrize(
    "ids",
    [
        ["val-scene0011-0", "val-scene0011-1"],
        ["scanqa_val-scene0011-0_1", "scanqa_val-scene0011-1_0"],
    ],
)
def test_rows_may_name_scanqas_own_ids_or_another_answer(tmp_path: Path, ids: list[str]) -> None:
    """By hand: the first row gives the second of two true answers, the other a wrong one."""
    rows = write_rows(tmp_path / "rows.jsonl", (ids[0], "brown", "brown"), (ids[1], "5", "4"))
    annotations = write(tmp_path / "ScanQA_v1.0_val.json", SCANQA)
    found, _ = score("scanqa", rows, "--annotations", annotations)
    assert found["metrics"]["em"]["value"] == 50.0
