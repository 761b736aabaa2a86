"""benchmarks/learning.py: answers without a look at the room, and the table over seeds."""

import importlib.util
import json
from pathlib import Path

import pytest

from fixtures.repository import ROOT
from threedrs.tasks.registry import headline_columns

SPEC = importlib.util.spec_from_file_location("learning", ROOT / "benchmarks" / "learning.py")
learning = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(learning)


def record(question: str, answer: str) -> dict:
    turns = [{"from": "human", "value": f"<image> {question}"}, {"from": "gpt", "value": answer}]
    return {"conversations": turns}


TRAINED = [
    record("What color is the bed? Answer the question simply.", "red"),
    record("What color is the desk? Answer the question simply.", "red"),
    record("What color is the chair by the door? Answer the question simply.", "blue"),
    record("How many beds are in this room? Answer the question simply.", "two"),
    record("How many chairs are in this room? Answer the question simply.", "two"),
    record("How many chairs are there? Answer the question simply.", "two"),
]


def test_opening_of_the_question_itself() -> None:
    situated = "<image> I sit. The bed is behind me. Is there a lamp on my left? Answer shortly."
    assert learning.opening(situated, 4) == "is there a lamp"
    assert learning.opening("<image> What color is the bed? Answer simply.", 3) == "what color is"


def test_answers_from_words_alone() -> None:
    answers = learning.Answers(TRAINED)
    assert answers.most_frequent() == "two"
    assert answers.by_words("<image> What color is the lamp? Answer the question simply.") == "red"
    assert answers.by_words("<image> How many lamps are here? Answer.") == "two"
    assert answers.by_words("<image> Where is it? Answer.") == "two"  # no opening word in common


def test_guesses_keep_what_is_asked_and_are_the_same_each_time() -> None:
    rows = [
        {"id": "a", "benchmark": "scanqa", "scores": None, "references": ["red"]},
        {"id": "b", "benchmark": "scanrefer", "scores": [0.9, 0.1, 0.0], "boxes": [[0] * 6] * 2},
    ]
    questions = {"a": "<image> What color is the bed? Answer.", "b": "<image> The bed."}
    answers = learning.Answers(TRAINED)
    guessed = learning.without_looking(rows, questions, answers, words=True)
    assert guessed[0] == {**rows[0], "prediction": "red"}
    assert len(guessed[1]["scores"]) == 3
    assert guessed[1]["scores"] != rows[1]["scores"]
    assert guessed == learning.without_looking(rows, questions, answers, words=True)
    constant = learning.without_looking(rows, questions, answers, words=False)
    assert constant[0]["prediction"] == "two"


TYPES = {"scanrefer": "unique", "multi3drefer": "st_wo_d", "sqa3d": "what"}


def write_run(results: Path, run: str, accuracy: float) -> None:
    """All five benchmarks of a run: one question each, metrics as given."""
    names = {column.benchmark for column in headline_columns()}
    for benchmark in names:
        folder = results / "eval" / run / benchmark
        folder.mkdir(parents=True)
        grounding = benchmark in ("scanrefer", "multi3drefer")
        box = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
        row = {
            "format_version": 1,
            "id": "a",
            "benchmark": benchmark,
            "scene": "scene0000_00",
            "question_type": TYPES.get(benchmark),
            "prediction": None if grounding else "x",
            "references": [] if grounding else ["two"],
            "scores": [0.5, 0.1] if grounding else None,
            "boxes": [box] if grounding else [],
            "gt": [box] if grounding else [],
        }
        (folder / "predictions.jsonl").write_text(json.dumps(row) + "\n")
        metrics = {c.metric: {"value": accuracy} for c in headline_columns()}
        (folder / "metrics.json").write_text(json.dumps({"metrics": metrics}))
        instructions = results / "instructions"
        instructions.mkdir(exist_ok=True)
        split = "test" if benchmark == "sqa3d" else "val"
        asked = record("How many beds are in this room? Answer.", "two") | {"id": "a"}
        (instructions / f"{benchmark}_{split}.jsonl").write_text(json.dumps(asked) + "\n")
        lines = "".join(json.dumps(row) + "\n" for row in TRAINED)
        (instructions / f"{benchmark}_train.jsonl").write_text(lines)


def test_table_means_over_seeds(tmp_path: Path) -> None:
    for run, accuracy in {
        "3drs": 50.0,
        "3drs-seed43": 60.0,
        "baseline": 40.0,
        "untrained": 1.0,
    }.items():
        write_run(tmp_path, run, accuracy)
    lines = learning.table(tmp_path).splitlines()
    row = next(line for line in lines if line.startswith("| SQA3D | EM"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == ["1", "100.0", "100.0", "1.0", "55.0 ± 7.1", "40.0"]
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
    assert lines[0] == "| scanqa: answer | n | words alone | 3drs | baseline |"
    assert lines[2:] == ["| number | 1 | 100.0 | 0.0 ± 0.0 | 0.0 |"]


@pytest.mark.parametrize("method", ["3drs", "baseline"])
def test_small_configuration_names_its_seeds_as_the_table_reads_them(method: str) -> None:
    import yaml

    runs = yaml.safe_load((ROOT / "config" / "small.yaml").read_text())["runs"]
    seeds = [run for run in runs if run.startswith(f"{method}{learning.MARK}")]
    assert len(seeds) == 2
    assert all(runs[run]["train"]["seed"] == int(run.rpartition("seed")[2]) for run in seeds)
