"""The summary: one row a run, deltas to the baseline, groups of runs that differ in the seed."""

import csv
import json

import pytest

from threedrs.errors import DataError
from threedrs.evaluation.aggregate import _group_name, aggregate
from threedrs.evaluation.compare import write_per_question
from threedrs.metrics.bootstrap import mean_metric
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS


def metrics_file(folder, run, benchmark, values):
    path = folder / run / benchmark / "metrics.json"
    path.parent.mkdir(parents=True)
    metrics = {
        name: {"value": value, "low": None if value is None else value - 1, "high": None}
        for name, value in values.items()
    }
    content = {"format_version": 1, "run": run, "benchmark": benchmark, "n": 3}
    path.write_text(json.dumps({**content, "metrics": metrics, "by_type": {}, "provenance": {}}))
    return path


def question_file(folder, run, benchmark, share):
    """Ten scenes of five questions; the first of each are right."""
    rows = [
        Prediction(id=f"q{i}", benchmark=benchmark, scene=f"scene{i // 5:04d}_00")
        for i in range(50)
    ]
    right = [float(i % 5 < share * 5) for i in range(50)]
    path = folder / run / benchmark / "per_question.npz"
    metrics = {name: mean_metric(right) for name in TASKS[benchmark].metrics}
    write_per_question(path, rows, metrics)
    return path


def config_file(folder, run, seed, teacher="vggt"):
    path = folder / run / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"train": {"seed": seed, "epochs": 1}, "teacher": {"name": teacher}}
    path.write_text(json.dumps({"run": run, **settings, "paths": {"out": f"results/train/{run}"}}))
    return path


def summary_of(folder, files, baseline="baseline", trains=None, configs=None, questions=None):
    return aggregate(
        files,
        per_question_files=questions or {},
        baseline=baseline,
        resamples=200,
        out_latex=folder / "summary.tex",
        out_markdown=folder / "summary.md",
        out_csv=folder / "summary.csv",
        out_json=folder / "summary.json",
        train_summaries=trains or {},
        run_configs=configs or {},
    )


@pytest.fixture
def files(tmp_path):
    grounding = {"baseline": (50.0, 40.0), "3drs": (60.0, 45.5), "3drs-b": (62.0, 46.5)}
    files = {
        (run, "scanrefer"): metrics_file(
            tmp_path, run, "scanrefer", {"acc@0.25": low, "acc@0.5": high}
        )
        for run, (low, high) in grounding.items()
    }
    files["3drs", "sqa3d"] = metrics_file(
        tmp_path, "3drs", "sqa3d", {"em": 60.0, "em_normalised": None}
    )
    return files


def test_the_table_has_one_row_a_run(tmp_path, files):
    summary_of(tmp_path, files)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["baseline", "3drs", "3drs-b"]
    assert rows["3drs"]["scanrefer:acc@0.5"] == "45.5000"
    assert rows["3drs"]["scanrefer:acc@0.5:low"] == "44.5000"
    assert rows["3drs"]["scanrefer:acc@0.5:high"] == ""
    assert rows["3drs"]["sqa3d:em"] == "60.0000"
    assert rows["3drs"]["sqa3d:em_normalised"] == ""
    assert rows["baseline"]["sqa3d:em"] == ""


def test_deltas_training_and_sources(tmp_path, files):
    train = tmp_path / "train.json"
    train.write_text('{"steps": 7}')
    summary = summary_of(tmp_path, files, trains={"3drs": train})
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["benchmarks"] == ["scanrefer", "sqa3d"]
    assert summary["runs"]["3drs"]["deltas"] == {"scanrefer": {"acc@0.25": 10.0, "acc@0.5": 5.5}}
    assert summary["runs"]["baseline"]["deltas"] == {}
    assert summary["runs"]["3drs"]["train"] == {"steps": 7}
    assert summary["runs"]["baseline"]["train"] is None
    assert summary["runs"]["3drs"]["benchmarks"]["sqa3d"]["metrics"]["em"]["value"] == 60.0
    assert set(summary["sources"]) == {f"{run}/{benchmark}" for run, benchmark in files}


def test_runs_that_differ_in_the_seed_form_a_group(tmp_path, files):
    configs = {
        "baseline": config_file(tmp_path, "baseline", 1, teacher="none"),
        "3drs": config_file(tmp_path, "3drs", 1),
        "3drs-b": config_file(tmp_path, "3drs-b", 2),
    }
    groups = summary_of(tmp_path, files, configs=configs)["groups"]
    assert [group["runs"] for group in groups] == [["baseline"], ["3drs", "3drs-b"]]
    assert groups[0]["metrics"]["scanrefer"]["acc@0.25"] == {"mean": 50.0, "std": None}
    assert groups[1]["metrics"]["scanrefer"]["acc@0.25"]["mean"] == 61.0
    assert groups[1]["metrics"]["scanrefer"]["acc@0.25"]["std"] == pytest.approx(2**0.5)
    assert "sqa3d" not in groups[1]["metrics"]


def test_equal_runs_are_no_seeds(tmp_path, files):
    configs = {
        run: config_file(tmp_path, run, seed, teacher)
        for run, seed, teacher in (
            ("baseline", 42, "none"),
            ("3drs", 42, "vggt"),
            ("3drs-b", 42, "vggt"),
        )
    }
    summary = summary_of(tmp_path, files, configs=configs)
    assert sorted(group["runs"] for group in summary["groups"]) == [
        ["3drs"],
        ["3drs-b"],
        ["baseline"],
    ]


def test_wrong_inputs_are_named(tmp_path, files):
    with pytest.raises(DataError, match="no metrics files"):
        summary_of(tmp_path, {})
    with pytest.raises(DataError, match="baseline 'none' has no metrics; choose one of baseline"):
        summary_of(tmp_path, files, baseline="none")
    swapped = {**files, ("3drs", "scanrefer"): files["baseline", "scanrefer"]}
    with pytest.raises(DataError, match="run is 'baseline', expected '3drs'"):
        summary_of(tmp_path, swapped)
    lacking = metrics_file(tmp_path, "x", "scanrefer", {"acc@0.25": 1.0})
    with pytest.raises(DataError, match=r"has no metric 'acc@0.5'"):
        summary_of(tmp_path, {**files, ("x", "scanrefer"): lacking})
    lacking.write_text("[]")
    with pytest.raises(DataError, match="is not a metrics file of format version 1"):
        summary_of(tmp_path, {**files, ("x", "scanrefer"): lacking})
    assert not (tmp_path / "summary.csv").exists()


@pytest.fixture
def compared(tmp_path, files):
    """All three runs with questions; 3drs_x & co answer 4 of 5, the baseline 2 of 5."""
    shares = {"baseline": 0.4, "3drs": 0.8, "3drs-b": 0.6}
    questions = {
        (run, "scanrefer"): question_file(tmp_path, run, "scanrefer", share)
        for run, share in shares.items()
    }
    configs = {
        "baseline": config_file(tmp_path, "baseline", 1, teacher="none"),
        "3drs": config_file(tmp_path, "3drs", 1),
        "3drs-b": config_file(tmp_path, "3drs-b", 2),
    }
    scanrefer = {key: path for key, path in files.items() if key[1] == "scanrefer"}
    return summary_of(tmp_path, scanrefer, configs=configs, questions=questions)


def test_a_group_has_the_shortest_of_its_names() -> None:
    assert _group_name(["3drs-seed43", "3drs", "3drs-seed44"]) == "3drs (3 seeds)"
    assert _group_name(["3drs"]) == "3drs"


def test_runs_and_groups_are_compared_with_the_baseline(tmp_path, compared):
    assert compared["runs"]["baseline"]["comparison"] == {}
    run = compared["runs"]["3drs"]["comparison"]["scanrefer"]["acc@0.25"]
    assert run["difference"] == pytest.approx(40)
    assert (run["p"], run["scenes"]) == (pytest.approx(2 / 201), 10)
    assert run["p_holm"] == pytest.approx(4 / 201)  # two headline metrics
    base, group = compared["groups"]
    assert (base["runs"], base["comparison"]) == (["baseline"], {})
    assert (group["name"], group["seeds"]) == ("3drs (2 seeds)", [1, 2])
    assert group["comparison"]["scanrefer"]["acc@0.5"]["difference"] == pytest.approx(30)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert rows["3drs"]["scanrefer:acc@0.25:difference"] == "40.0000"
    assert rows["3drs"]["scanrefer:acc@0.25:p"] == "0.0100"
    assert rows["baseline"]["scanrefer:acc@0.25:p"] == ""


def test_the_tables_paste_into_a_paper(tmp_path, compared):
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert lines[0] == "| run | ScanRefer Acc@0.25 | ScanRefer Acc@0.5 |"
    assert lines[2] == "| baseline | 50.0 | 40.0 |"
    assert lines[3] == r"| 3drs (2 seeds) | 61.0 ± 1.4\*\* | 46.0 ± 0.7\*\* |"
    latex = (tmp_path / "summary.tex").read_text()
    assert r"\multicolumn{2}{c}{ScanRefer}" in latex
    assert r"baseline & 50.0 & 40.0 \\" in latex
    assert r"\textbf{61.0} {\scriptsize $\pm$1.4}$^{**}$" in latex
    assert latex.count("{") == latex.count("}")


def test_names_are_escaped_for_latex_and_markdown(tmp_path):
    name = "a_b|50%"
    files = {
        (run, "sqa3d"): metrics_file(tmp_path, run, "sqa3d", {"em": 0.0, "em_normalised": 0.0})
        for run in ("base", name)
    }
    summary_of(tmp_path, files, baseline="base")
    assert r"a\_b|50\% & \textbf{0.0} \\" in (tmp_path / "summary.tex").read_text()
    assert r"| a_b\|50% | 0.0 |" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("rule", "mark"), [("as_published", "†"), ("by_frame", "")])
def test_features_of_other_frames_are_said_where_the_scores_stand(tmp_path, files, rule, mark):
    trains = {}
    for run, other in (("3drs", 4), ("baseline", 0)):
        trains[run] = tmp_path / run / "train.json"
        frames = {"rule": rule, "other_frames": other, "notes": ["Four of 9."] if other else []}
        trains[run].write_text(json.dumps({"teacher_frames": frames}))
    summary_of(tmp_path, files, trains=trains)
    markdown = (tmp_path / "summary.md").read_text()
    assert f"| 3drs{mark} |" in markdown
    assert "| baseline |" in markdown
    assert ("† 3drs: Four of 9." in markdown) == bool(mark)
    assert ("3drs\\textdagger &" in (tmp_path / "summary.tex").read_text()) == bool(mark)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        notes = {row["run"]: row["notes"] for row in csv.DictReader(stream)}
    assert notes == {"3drs": "Four of 9.", "3drs-b": "", "baseline": ""}
