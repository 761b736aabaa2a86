"""benchmarks/learning.py: the table over seeds."""

import json
import sys
from pathlib import Path

from fixtures.repository import ROOT
from threedrs.tasks.record import Record, conversation
from threedrs.tasks.registry import headline_columns

sys.path.append(str(ROOT / "benchmarks"))

import learning

PROMPT = "<image> {question} Answer the question simply."


def record(number: int, question: str, answer: str, benchmark: str = "scanqa") -> dict:
    return Record(
        id=f"{benchmark}_{number}",
        benchmark=benchmark,
        scene="scene0000_00",
        conversations=conversation(PROMPT.format(question=question), answer),
        references=[answer],
    ).to_json()


TRAINED = [
    record(1, "What color is the bed?", "red"),
    record(2, "How many beds are in this room?", "two"),
    record(3, "How many chairs are in this room?", "two"),
    record(4, "How many chairs are there?", "three"),
]
# As the workflow writes it; chance is not defined for answers in words.
VALUES = {"scanrefer": {"chance": 3.3}, "sqa3d": {"one answer": 7.0, "first words": 12.5}}
TRIVIAL: dict = {column.benchmark: {} for column in headline_columns()} | {
    column.benchmark: {
        way: {column.metric: value} for way, value in VALUES[column.benchmark].items()
    }
    for column in reversed(headline_columns())
    if column.benchmark in VALUES
}


def write_run(results: Path, run: str, accuracy: float) -> None:
    """All five benchmarks of a run with one question each, and metrics as given."""
    for benchmark in {column.benchmark for column in headline_columns()}:
        folder = results / "eval" / run / benchmark
        folder.mkdir(parents=True)
        metrics = {c.metric: {"value": accuracy} for c in headline_columns()}
        (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "n": 1}))
    row = {"id": "scanqa_9", "prediction": "x", "references": ["two"]}
    (results / f"eval/{run}/scanqa/predictions.jsonl").write_text(json.dumps(row) + "\n")
    (results / "instructions").mkdir(exist_ok=True)
    asked = [record(9, "How many beds are in this room?", "two")]
    for name, records in (("scanqa_val", asked), ("scanqa_train", TRAINED)):
        lines = "".join(json.dumps(one) + "\n" for one in records)
        (results / f"instructions/{name}.jsonl").write_text(lines)
    content = {"format_version": 1, "benchmarks": TRIVIAL}
    (results / "trivial_answers.json").write_text(json.dumps(content))


def test_table_means_over_seeds(tmp_path: Path) -> None:
    for run, accuracy in {
        "3drs": 50.0,
        "3drs-seed43": 60.0,
        "baseline": 40.0,
        "untrained": 1.0,
    }.items():
        write_run(tmp_path, run, accuracy)
    lines = learning.table(tmp_path).splitlines()
    cells = {
        name: [cell.strip() for cell in line[len(name) :].strip("|").split("|")]
        for line in lines
        for name in ("| SQA3D | EM ", "| ScanRefer | Acc@0.25 ")
        if line.startswith(name)
    }
    # What anyone scores without looking is what the workflow has computed, to the digit.
    assert list(cells.values()) == [
        ["1", "3.3", "", "", "1.0", "55.0 ± 7.1", "40.0"],
        ["1", "", "7.0", "12.5", "1.0", "55.0 ± 7.1", "40.0"],
    ]
    assert "| chance | one answer | first words | untrained |" in lines[0]
    assert "3drs (2 seeds)" in lines[0]


def test_exact_answers_by_kind() -> None:
    given = [("red", "red"), ("blue", "red"), ("2", "two"), ("left", "right"), ("bed", "bed")]
    rows = [
        {"prediction": prediction, "references": [answer, "2"] if answer == "two" else [answer]}
        for prediction, answer in given
    ]
    assert learning.exact_by_kind(rows) == {
        "colour": (2, 50.0),
        "number": (1, 100.0),
        "side": (1, 0.0),
        "other": (1, 100.0),
    }


def test_table_of_kinds_means_over_seeds(tmp_path: Path) -> None:
    for run in ("3drs", "3drs-seed43", "baseline"):
        write_run(tmp_path, run, 0.0)
    lines = learning.table_of_kinds(tmp_path).splitlines()
    assert lines[0] == "| scanqa: answer | n | first words | 3drs | baseline |"
    assert lines[2:] == ["| number | 1 | 100.0 | 0.0 ± 0.0 | 0.0 |"]
