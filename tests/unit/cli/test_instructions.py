"""``threedrs instructions``: one summary line, or one line of error."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.instruction_files import SCENE, write_annotations
from threedrs.cli.instructions import app
from threedrs.errors import DataError
from threedrs.instructions.llava_format import load_records
from threedrs.tasks.record import conversation, read_records

runner = CliRunner(env={"COLUMNS": "200"})


def write_questions(root: Path) -> None:
    row = {"scene_id": SCENE, "question_id": "a", "question": "What?", "answers": ["b", "c"]}
    write_annotations(root, "scanqa/ScanQA_v1.0_train.json", [row, {**row, "question": ""}])


def test_convert_and_export(tmp_path: Path) -> None:
    write_questions(tmp_path)
    out = tmp_path / "scanqa_train.jsonl"
    arguments = ["convert", "scanqa", "train", "--data", str(tmp_path), "--out", str(out)]
    result = runner.invoke(app, [*arguments, "--max-reject-fraction", "0.5"])
    assert result.exit_code == 0
    assert result.output == ("scanqa train: 2 records from 2 rows, 1 rejected; empty text: 1\n")
    arguments = ["export", str(out), "--style", "llava", "--out", str(tmp_path / "x.json")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "2 entries" in result.output
    assert list(load_records(tmp_path / "x.json")) == list(read_records(out))
    assert json.loads((tmp_path / "x.json").read_text())[0]["metadata"]["dataset"] == "scanQA"


@pytest.mark.parametrize(("name", "text"), [("empty.jsonl", ""), ("empty.json", "[]")])
def test_a_file_without_records_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    out = tmp_path / "x.json"
    with pytest.raises(DataError, match=rf"{name}: holds no records; convert"):
        runner.invoke(
            app, ["export", str(tmp_path / name), "--out", str(out)], catch_exceptions=False
        )
    assert not out.exists()


def test_options_reach_the_conversion(tmp_path: Path) -> None:
    write_questions(tmp_path)
    out = tmp_path / "scanqa_train.jsonl"
    arguments = ["convert", "scanqa", "train", "--data", str(tmp_path), "--out", str(out)]
    for options, message in (
        ([], "1 row rejected of 2, more than max_reject_fraction 0.01"),
        (["--on-reject", "fail"], "row 1: empty text"),
    ):
        result = runner.invoke(app, [*arguments, *options])
        assert result.exit_code == 1
        assert message in str(result.exception)
    assert not out.exists()


def test_export_of_half_a_surrogate_pair(tmp_path: Path) -> None:
    write_questions(tmp_path)
    array, out = tmp_path / "a.json", tmp_path / "x.json"
    entry = {
        "video": f"scannet/{SCENE}",
        "conversations": conversation("<image> What?", "\ud800"),
        "metadata": {"dataset": "scanQA"},
    }
    array.write_text(json.dumps([entry]))
    result = runner.invoke(app, ["export", str(array), "--out", str(out)])
    assert isinstance(result.exception, DataError)
    assert f"{array}: entry 0: conversations.1.value: holds half" in str(result.exception)
    assert not out.exists()


def test_unknown_style(tmp_path: Path) -> None:
    result = runner.invoke(app, ["export", "x.jsonl", "--style", "coco", "--out", "x.json"])
    assert result.exit_code == 2
    assert "'coco' is not" in result.output


@pytest.mark.parametrize("command", ["convert", "export"])
def test_help(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--out" in result.output
