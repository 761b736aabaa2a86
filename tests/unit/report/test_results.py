"""What the report reads of a results folder: the files of each run, benchmark and mix."""

from pathlib import Path
from typing import Any

from threedrs.evaluation.aggregate import FORMAT_VERSION
from threedrs.io.files import write_json, write_json_lines
from threedrs.report.results import Results
from threedrs.tasks.prediction import Prediction, write_predictions

RUNS = ("3drs", "baseline")


def results(folder: Path) -> Results:
    return Results(folder=folder, runs=RUNS, benchmarks=("scanqa",), mix_names=("full", "less"))


def test_each_run_has_its_own_answers_and_curves(tmp_path: Path) -> None:
    for run in RUNS:
        rows = [
            Prediction(
                id=question,
                benchmark="scanqa",
                scene="scene0000_00",
                prediction=f"{run} says {question}",
                references=("yes",),
            )
            for question in ("q0", "q1")
        ]
        write_predictions(tmp_path / "eval" / run / "scanqa" / "predictions.jsonl", rows)
        write_json_lines(tmp_path / "train" / run / "log.jsonl", [{"step": 1, "run": run}])
    entries = {run: {"train": {"steps": 1}} for run in RUNS}
    write_json(
        tmp_path / "report/summary.json", {"format_version": FORMAT_VERSION, "runs": entries}
    )
    found = results(tmp_path)
    for run in RUNS:
        answers = found.answers(run, "scanqa", ["q1"])
        assert [(row["id"], row["prediction"]) for row in answers] == [("q1", f"{run} says q1")]
    assert found.histories() == {run: [{"step": 1, "run": run}] for run in RUNS}


def test_each_mix_has_its_own_summary(tmp_path: Path) -> None:
    for name in ("full", "less"):
        write_json(tmp_path / f"instructions/mixes/{name}.summary.json", {"mix": name})
    assert results(tmp_path).mixes() == {name: {"mix": name} for name in ("full", "less")}


def test_trained_runs_that_are_asked_without_their_sentence_are_named(tmp_path: Path) -> None:
    def entry(train: dict[str, int] | None, prompt: str | None) -> dict[str, Any]:
        meta = None if prompt is None else {"decoding": {"prompt": prompt}}
        return {
            "train": train,
            "benchmarks": {"scanqa": {"provenance": {"predictions_meta": meta}}},
        }

    def named(**entries: dict[str, Any]) -> list[str]:
        content = {"format_version": FORMAT_VERSION, "runs": entries}
        write_json(tmp_path / "report/summary.json", content)
        found = Results(folder=tmp_path, runs=(*entries,), benchmarks=("scanqa",), mix_names=())
        return found.asked_as_published

    trained = {"steps": 1}
    assert named(a=entry(trained, "reference"), b=entry(trained, "as_trained")) == ["a"]
    # How a checkpoint from elsewhere was trained is not known; nor how foreign rows were made.
    assert named(a=entry(None, "reference"), b=entry(trained, None)) == []
