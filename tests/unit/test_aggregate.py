"""The summary: one row a run, deltas to the baseline, groups of runs that differ in the seed."""

import csv
import json

import pytest

from threedrs.errors import DataError
from threedrs.evaluation.aggregate import aggregate


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


def config_file(folder, run, seed, teacher="vggt"):
    path = folder / run / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"train": {"seed": seed, "epochs": 1}, "teacher": {"name": teacher}}
    path.write_text(json.dumps({"run": run, **settings, "paths": {"out": f"results/train/{run}"}}))
    return path


def summary_of(folder, files, baseline="baseline", trains=None, configs=None):
    return aggregate(
        files,
        baseline=baseline,
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
