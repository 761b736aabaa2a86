"""The GPU benchmarks run, small, on CPU."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from fixtures.benchmark_scripts import ENVIRONMENT, TORCHRUN, run_forked, run_script
from fixtures.forked_jobs import forked_python
from fixtures.repository import ROOT
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import empty_student
from threedrs.training.full_pack import GIB, FullPack
from threedrs.training.recipe import TrainSettings


@pytest.mark.slow
def test_training_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "rows.jsonl"
    options = ["--size", "tiny", "--frames", "1", "--repeats", "1", "--out", str(out)]
    options += ["--run", "sdpa:0:1,2", "--run", "sdpa:2:2"]
    run_script(monkeypatch, "training_step", *options)
    text = capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["kept_layers"], row["pack"]) for row in rows] == [(0, 1), (0, 2), (2, 2)]
    assert rows[0]["tokens"] == 24 + 210 + 64
    assert rows[1]["tokens"] == 24 + 210 + 2 * 64
    assert all(row["samples_per_second"] > 0 for row in rows)
    assert "| sdpa | 0 | 2 |" in text


def test_a_pack_is_planned_without_what_only_the_optimizer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("training_step")
    student = empty_student(ModelSettings(name="llava-video", size="small"), 8)
    settings = TrainSettings(gradient_checkpointing=True, kept_layers=0, pack=1)
    pack = FullPack(student=student, settings=settings, frames=1)
    numbers = sum(parameter.numel() for parameter in student.parameters())
    expected = 2 * 4 * numbers + sum(pack.activations().values())  # weights and gradients
    assert script.planned(student, 0, 1, 1) == pytest.approx(expected / GIB)


@pytest.mark.slow
def test_small_student() -> None:
    options = ["--size", "tiny", "--samples", "10", "--frames", "1", "--rounds", "1"]
    text = run_forked("small_student", *options, "--way", "plain", "--way", "plain")
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    speed, counts = cells[1:3], {row[0]: list(map(int, row[1:])) for row in cells[4:]}
    assert [float(row[-1]) for row in speed] == [0, 0]
    assert all(float(row[3]) > 0 for row in speed)
    assert all(first == second > 0 for first, second in counts.values())
    assert sum(first for first, _ in counts.values()) == 2 * counts["together"][0]
    assert counts["gradients"][0] > 50  # one sum for each of the parameters


@pytest.mark.slow
def test_zero3(tmp_path: Path) -> None:
    options = ["--size", "tiny", "--frames", "1", "--steps", "1", "--accumulation", "1"]
    options += ["--measure", "1:0", "--measure", "2:all"]
    text = run_forked("zero3", *options, "--folder", str(tmp_path), launcher=TORCHRUN)
    report = json.loads(text[text.index("{\n") :])
    assert [(run["pack"], run["kept_layers"]) for run in report["runs"]] == [(1, "0"), (2, "all")]
    assert [run["samples_a_step"] for run in report["runs"]] == [1, 2]
    assert all(run["samples_per_second"] > 0 for run in report["runs"])
    assert report["resumed_equal"]
    assert report["export_files"] == ["model.safetensors"]
    assert report["checkpoint_gb"] > 0
    assert (tmp_path / "model/config.json").is_file()


@pytest.mark.slow
def test_the_papers_run_crashes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = ["--gpus", "1", "--size", "tiny", "--scenes", "2", "--frames", "1"]
    options += ["--save-every", "3", "--steps", "6"]
    options += ["--set", "workers=1", "--set", "global_batch=2"]
    options += ["--resume-gpus", "1", "--resume-set", "kept_layers=1"]
    for name, value in ENVIRONMENT.items():  # of the processes that the script starts
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(forked_python()))
    monkeypatch.setenv("PYTHON_EXEC", str(forked_python()))  # of which torchrun makes its ranks
    run_script(monkeypatch, "paper_run", str(tmp_path), *options)
    text = capsys.readouterr().out
    report = json.loads(text[text.rindex("\n{\n") :])
    # Asked to stop after step 4, it saves after the step that it is in.
    killed_at = len(report["ranks_before"][0]["step_seconds"])
    assert killed_at in (5, 6)
    assert report["resumed_status"] == 0
    assert set(report["equal"].values()) == {True}
    assert report["step_made_twice"]["step"] == [killed_at, killed_at]
    (rank,) = report["ranks"]
    stages = [name for name, _ in rank["stages"]]
    assert stages[:4] == ["prepare", "find_checkpoint", "start_student", "build_engine"]
    assert stages[4:] == ["load_checkpoint", "save_checkpoint", "export_run"]
    assert len(rank["step_seconds"]) == 3
    assert len(rank["pack_waits"]) == 3 * 2
    assert json.loads(report["loaded"])["finite"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["train"]["learning_rate"] == 1e-5
    assert config["frames"]["count"] == 1

    # The same inputs serve the loader's benchmark.
    sizes = ["--scenes", "2", "--frames", "1", "--samples", "16", "--workers", "1", "--steps", "4"]
    text = run_forked("loader", str(tmp_path), *sizes, "--packs", "2", "--seconds", "0.01")
    (row,) = json.loads(text.splitlines()[0])["ranks"]
    assert row["pack"] == 2
    assert row["pack_mb"] > 1
    assert 0 <= row["ready_share"] <= 1
    assert row["packs_per_second"] > 0

    # So they do the benchmark of several GPUs, which the trained model answers here.
    options = ["--gpus", "1", "--model", str(tmp_path / "run/model"), "--scenes", "2"]
    options += ["--frames", "1", "--questions", "3", "--tokens", "2"]
    run_script(monkeypatch, "several_gpus", "predict", str(tmp_path), *options)
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["gpus"], row["questions"], row["same bytes"]) == (1, 6, True)
    assert row["rate after the first scene"] > 0


def test_the_rate_of_several_ranks_leaves_out_their_first_scenes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two ranks of two scenes of 10 questions: the first ones end at 10 and 5 s, the last at 12.5 s.
    log = """predict: a, 1 of 2 scenes, 10 of 20 questions, 1.0 a second, 10 s left
predict: b, 1 of 2 scenes, 10 of 20 questions, 2.0 a second, 5 s left
predict: c, 2 of 2 scenes, 20 of 20 questions, 1.6 a second, 0 s left
predict: d, 2 of 2 scenes, 20 of 20 questions, 2.5 a second, 0 s left"""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    steady_rate = importlib.import_module("several_gpus").steady_rate
    assert steady_rate(log, 40) == pytest.approx(20 / (12.5 - 10))
