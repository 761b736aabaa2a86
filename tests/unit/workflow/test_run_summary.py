"""The last lines of a run: scores, the report's statement, warnings and the page."""

import json
import os
from collections import Counter
from pathlib import Path

from fixtures.run_events import begun, ended, job
from fixtures.summary_files import study
from threedrs.workflow.run_events import RunState
from threedrs.workflow.run_summary import end_of_run, head


def finished() -> RunState:
    state = RunState()
    for each in [*begun(build_report=1), job(1, "build_report"), ended(1, 106.0)]:
        state.take(each)
    state.take(ended(0, 107.0))
    return state


def test_scores_come_with_the_statement_and_the_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "report").mkdir(parents=True)
    study(results / "report", {"baseline": ("none", 0, 0.4), "3drs": ("vggt", 0, 0.6)})
    lines = end_of_run(finished(), ["score", "score", "all"], results)
    assert lines[1:5] == [
        ("stages", "report 5 s"),
        ("reused", "scores 2"),
        ("scores", "baseline: ScanRefer Acc@0.25 40.0"),
        ("scores", "3drs: ScanRefer Acc@0.25 60.0"),
    ]
    said = json.loads((results / "report/summary.json").read_text())
    assert said["groups"][0]["name"] == "baseline"
    (answer,) = (text for label, text in lines if label == "answer")
    assert "one training" in answer.lower()
    assert lines[-1] == ("page", str(results / "report/index.html"))


def test_answers_and_scenes_come_with_their_place(tmp_path: Path) -> None:
    state = RunState()
    plan = begun(scene_report=1, answer_questions=1)
    for each in [*plan, job(1, "scene_report"), job(2, "answer_questions")]:
        state.take(each)
    for each in [ended(1, 106.0), ended(2, 109.0)]:
        state.take(each)
    for split, written in (("mylab", 108.0), ("former", 20.0)):
        file = tmp_path / "eval" / "3drs" / split / "answers.jsonl"
        file.parent.mkdir(parents=True)
        file.touch()
        # A minute before the start may be the clock of a file server.
        os.utime(file, (written, written))
    page = ("page", str(tmp_path / "scenes/report.html"))
    assert end_of_run(state, [], tmp_path)[-2:] == [
        ("answers", str(tmp_path / "eval/3drs/mylab/answers.jsonl")),
        page,
    ]
    reused = RunState()
    reused.nothing_to_do = True
    assert end_of_run(reused, ["scene_report"], tmp_path)[-1] == page
    state.stopping = True
    assert page not in end_of_run(state, [], tmp_path)


def test_three_warnings_are_repeated_and_the_others_counted(tmp_path: Path) -> None:
    state = finished()
    state.warnings = ["a", "b", "a", "c", "d", "e"]
    shown = [text for label, text in end_of_run(state, [], tmp_path) if label == "warning"]
    assert shown == ["a", "b", "c", "and 2 more, in results/logs"]
    state.warnings = ["train-000: scene0001_00: x", "train-001: scene0007_00: x", "b"]
    shown = [text for label, text in end_of_run(state, [], tmp_path) if label == "warning"]
    assert shown == ["train-000: scene0001_00: x", "b", "and 1 more, in results/logs"]


def test_one_job_is_no_jobs() -> None:
    state = finished()
    assert head(state, 0, failed=True).endswith(": 1 of 1 job is done")
    state.planned, state.done = Counter(train=1), Counter()
    assert head(state, 0, failed=True).endswith(": 0 of 1 job is done")
    state.planned = Counter(train=2)
    assert head(state, 0, failed=True).endswith(": 0 of 2 jobs are done")
    state.nothing_to_do = True
    assert head(state, 1, failed=False).endswith("the results of 1 job are up to date")
    assert head(state, 3, failed=False).endswith("the results of all 3 jobs are up to date")


def test_without_a_summary_nothing_is_said_of_scores(tmp_path: Path) -> None:
    assert not [text for label, text in end_of_run(finished(), [], tmp_path) if label == "scores"]
