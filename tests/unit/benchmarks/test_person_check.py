"""benchmarks/person_check.py: the questions that a person is asked, and how answers are counted."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.io.files import write_json_lines
from threedrs.tasks.record import Record, conversation

ANSWERS = {"scanqa": ["red", "two", "left", "yes", "bed", "blue"], "sqa3d": ["no", "one", "bed"]}
FILES = {"scanqa": "scanqa_val", "sqa3d": "sqa3d_test"}


@pytest.fixture
def person_check(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    spec = importlib.util.spec_from_file_location(
        "person_check", ROOT / "benchmarks/person_check.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The frames of a room are the scene store's own subject.
    monkeypatch.setattr(module, "sheet", lambda store: module.Image.new("RGB", (4, 4)))
    return module


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two rooms; run `a` says "red" to everything."""
    for benchmark, answers in ANSWERS.items():
        records = [
            Record(
                id=f"{scene}-{number}",
                benchmark=benchmark,
                scene=scene,
                conversations=conversation(f"<image> What, {number}?", answer),
                references=[answer],
            )
            for scene in ("scene0001_00", "scene0002_00")
            for number, answer in enumerate(answers)
        ]
        path = tmp_path / "results/instructions" / f"{FILES[benchmark]}.jsonl"
        write_json_lines(path, [record.to_json() for record in records])
        said = [{"id": record.id, "prediction": "red"} for record in records]
        write_json_lines(tmp_path / "results/eval/a" / benchmark / "predictions.jsonl", said)
    return tmp_path / "results"


def test_answers_are_counted_by_kind(person_check, results, tmp_path, capsys) -> None:
    folder = tmp_path / "check"
    person_check.ask(folder, results, rooms=1, each=1)
    with (folder / "questions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # One room of the two; one question of a kind, and two that have a situation.
    assert [row["room"] for row in rows] == ["scene0001_00"] * 7
    kinds = ["colour", "number", "other", "side", "yes or no", "situated", "situated"]
    assert [row["kind"] for row in rows] == kinds
    assert (folder / "scene0001_00.png").exists()
    assert not list(folder.glob("*2_00.png"))
    # The person answers four: rightly to colour (in capitals) and number, wrongly to the other two.
    for row, said in zip(rows, ["", "Two", "chair", "right", "", "", ""], strict=True):
        row["answer"] = said
    colour = ANSWERS["scanqa"][int(rows[0]["id"].rpartition("-")[2])]
    rows[0]["answer"] = colour.upper()
    with (folder / "questions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, person_check.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)

    person_check.score(folder, results)

    said = capsys.readouterr().out.splitlines()
    red = int(colour == "red")
    assert said[:7] == [
        "| kind | questions | person | a |",
        "|---|---|---|---|",
        f"| colour | 1 | 1 | {red} |",
        "| number | 1 | 1 | 0 |",
        "| other | 1 | 0 | 0 |",
        "| side | 1 | 0 | 0 |",
        f"| all | 4 | 2 | {red} |",
    ]
    assert said[7:] == ["3. What, 4? chair; ['bed']", "4. What, 2? right; ['left']"]
