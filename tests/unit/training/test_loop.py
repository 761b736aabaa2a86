"""Whole training runs: what they leave, interrupted, on several ranks, and with errors."""

import json
import math
import shutil
import signal
import sys

import psutil
import pytest

from fixtures.forked_jobs import forked_python
from fixtures.repository import ROOT
from fixtures.training_process import (
    TORCHRUN,
    assert_same_curve,
    finish,
    loss_rows,
    spread_zero3,
    start,
    wait_for_row,
)
from fixtures.training_run import (
    SCENES,
    edit_config,
    run,
    write_evaluation,
    write_features,
    write_run,
)
from threedrs.errors import StoreError
from threedrs.io.files import write_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.model_settings import ModelSettings
from threedrs.tasks.record import read_record_lines
from threedrs.train import main
from threedrs.training import run_setup
from threedrs.training.loop import StoppedError
from threedrs.training.pack_reader import RecordTable
from threedrs.training.recipe import RunPaths
from threedrs.training.run_log import growing_log, read_rows


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_run(folder, samples=18, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        run(folder, patch)
    return folder


@pytest.mark.slow
def test_whole_run_leaves_model_numbers_and_curves(whole_run):
    out = whole_run / "results/train/3drs"

    numbers = json.loads((out / "train.json").read_text())
    assert (numbers["steps"], numbers["samples"]) == (10, 36)
    assert numbers["model_flops_utilisation"] is None
    assert "CPU" in numbers["model_flops_utilisation_basis"]
    assert "fewer scenes" in numbers["packing"]
    assert numbers["teacher_frames"] == {
        "rule": "by_frame",
        "scenes": 2,
        "other_frames": 0,
        "unproven": 0,
        "unsupervised": 0,
        "frames": 2,
        "frames_left_out": 0,
        "notes": [],
    }
    assert numbers["samples_per_second"] > 0
    assert [row["step"] for row in loss_rows(whole_run)] == list(range(1, 11))
    assert loss_rows(whole_run)[-1]["loss"] < loss_rows(whole_run)[0]["loss"]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "model/README.md").read_text()
    assert "vggt-tiny" in card
    assert "the published code does not load it: its projection head has 2048 channels" in card
    assert list((out / "tensorboard").iterdir())
    student, tokenizer = load_student(ModelSettings(path=out / "model"))
    assert student.proj_3d is not None
    assert tokenizer.convert_tokens_to_ids("<ground>") is not None


@pytest.mark.slow
def test_interrupted_run_equals_the_uninterrupted_one(whole_run, tmp_path, monkeypatch, capsys):
    config = write_run(tmp_path, samples=18, epochs=2)
    edit_config(config, save_every=2, workers=1)
    checkpoints = tmp_path / "results/train/3drs/checkpoints"

    # As the kernel does where memory runs out; the process ends by itself.
    process = start(tmp_path)
    wait_for_row(tmp_path, process, 3)
    loaders = psutil.Process(process.pid).children(recursive=True)
    assert loaders
    for loader in loaders:
        loader.kill()
    status, text = finish(process)
    assert status == 1
    assert text.splitlines()[-1].startswith("train: rank 0: a loader process was lost (")
    assert text.splitlines()[-1].endswith("and run the same command to go on")
    assert "Traceback" not in text

    with pytest.raises(StoppedError, match="stopped by SIGUSR1, saved at step"):
        run(tmp_path, monkeypatch, stop_in=3)
    assert "goes on from step-" in capsys.readouterr().err
    newest = max(path for path in checkpoints.iterdir() if path.name.startswith("step-"))
    (newest / "state/rank-00000-000.safetensors").write_bytes(b"damaged")
    run(tmp_path, monkeypatch)

    assert f"{newest.name} is not used" in capsys.readouterr().err
    assert loss_rows(tmp_path) == loss_rows(whole_run)
    assert (tmp_path / "results/train/3drs/model/model.safetensors").read_bytes() == (
        whole_run / "results/train/3drs/model/model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_run_of_task_groups_takes_steps_of_one_group_on_a_schedule_of_one_more(
    tmp_path, monkeypatch
):
    # Nine samples of each group: runs of 4, 4 and 1, of which the last is dropped.
    write_run(tmp_path, samples=27, epochs=1, pack=1, batches="task_groups", learning_rate=3e-3)

    run(tmp_path, monkeypatch)

    rows = loss_rows(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["samples"] for row in rows] == [4, 8, 12, 16, 20, 24]
    assert all((row["text"] is None) != (row["grounding"] is None) for row in rows)
    assert sum(row["text"] is None for row in rows) == 2
    # One step of warm-up, then a cosine over the six that are left of seven.
    cosine = [3e-3 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(5)]
    assert [row["lr"] for row in rows] == pytest.approx([0, *cosine])


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """Return the folder of a run of two ranks with ZeRO-3, stopped by a signal in its third step.

    It evaluates on the way.
    """
    folder = tmp_path_factory.mktemp("stopped")
    config = write_run(folder, samples=18, epochs=2)
    edit_config(config, deepspeed=spread_zero3(folder), eval_every=4, eval_samples=3)
    write_evaluation(folder, config)
    process = start(folder, 2, python=forked_python())
    wait_for_row(folder, process, 3)
    process.send_signal(signal.SIGTERM)
    status, text = finish(process)
    assert status == 1
    assert "stopped by SIGTERM, saved at step" in text.splitlines()[-1]
    return folder


@pytest.mark.slow
def test_two_ranks_with_zero3_that_are_stopped_and_evaluate_on_the_way_equal_one(
    whole_run, stopped_run, tmp_path
):
    shutil.copytree(stopped_run, tmp_path, dirs_exist_ok=True)
    edit_config(tmp_path / "results/train/3drs/config.json", deepspeed=spread_zero3(tmp_path))
    status, text = finish(start(tmp_path, 2, TORCHRUN, forked_python()))
    assert status == 0, text
    assert "goes on from step-0000" in text
    assert "step 8 scanqa/cider" in text
    assert_same_curve(tmp_path, whole_run)
    evaluated = {row["step"]: row["eval"] for row in loss_rows(tmp_path) if "eval" in row}
    assert sorted(evaluated) == [4, 8, 10]
    card = (tmp_path / "results/train/3drs/model/README.md").read_text()
    value = evaluated[10]["scanrefer"]["acc@0.25"]
    assert f"| scanrefer acc@0.25 | {value:.1f} |" in card
    assert "| after step 10, first 3 questions a benchmark | % |" in card
    for scores in evaluated.values():
        assert set(scores) == {"scanqa", "scanrefer"}
        assert set(scores["scanrefer"]) == {"acc@0.25", "acc@0.5"}
        assert all(0 <= value <= 100 for value in scores["scanrefer"].values())


@pytest.mark.slow
def test_run_goes_on_with_other_ranks_and_another_zero_stage(
    whole_run, stopped_run, tmp_path, monkeypatch, capsys
):
    shutil.copytree(stopped_run, tmp_path, dirs_exist_ok=True)
    zero2 = str(ROOT / "config/deepspeed/zero2.json")
    edit_config(tmp_path / "results/train/3drs/config.json", deepspeed=zero2)
    run(tmp_path, monkeypatch)
    assert "goes on from step-0000" in capsys.readouterr().err
    assert_same_curve(tmp_path, whole_run)
    numbers = json.loads((tmp_path / "results/train/3drs/train.json").read_text())
    assert 1 < numbers["rank_seconds"] / numbers["seconds"] < 2  # of two ranks, then of one


@pytest.mark.slow
def test_a_failed_evaluation_costs_no_step_and_is_made_up_for(
    whole_run, tmp_path, monkeypatch, capsys
):
    config = write_run(tmp_path, samples=18, epochs=2)
    edit_config(config, eval_every=4, eval_samples=3, save_every=4, log_every=3)
    write_evaluation(tmp_path, config)
    value = json.loads(config.read_text())
    value["evaluation"]["settings"]["boxes"] = "pred"  # training reads those of gt
    write_json(config, value)
    masks = tmp_path / f"results/scenes/{SCENES[0]}.zarr/masks/pred/fine/c"
    masks.rename(tmp_path / "aside")
    checkpoints = tmp_path / "results/train/3drs/checkpoints"

    with pytest.raises(StoreError, match="masks/pred/fine"):
        run(tmp_path, monkeypatch)
    assert (checkpoints / "step-00000004").is_dir()
    assert [row["step"] for row in loss_rows(tmp_path)] == [3]

    (tmp_path / "aside").rename(masks)
    run(tmp_path, monkeypatch)
    assert "goes on from step-00000004" in capsys.readouterr().err
    rows = loss_rows(tmp_path)
    assert [row["step"] for row in rows if row.pop("eval", None)] == [4, 8, 10]
    # Evaluated steps are logged too; evaluating changes no loss.
    assert [row["step"] for row in rows] == [3, 4, 6, 8, 9, 10]
    expected = {row["step"]: row for row in loss_rows(whole_run)}
    assert rows == [expected[row["step"]] for row in rows]


@pytest.mark.slow
def test_finished_run_exports_again_without_training(whole_run, monkeypatch, capsys):
    out = whole_run / "results/train/3drs"
    rows, numbers = loss_rows(whole_run), json.loads((out / "train.json").read_text())
    shutil.rmtree(out / "model")  # as Snakemake does before it runs a job again
    for name in ("train.json", "log.jsonl", "loss.png"):
        (out / name).unlink()

    run(whole_run, monkeypatch)

    assert "goes on from step-00000010" in capsys.readouterr().err
    assert read_rows(out / "log.jsonl") == read_rows(growing_log(out))
    assert loss_rows(whole_run) == rows
    again = json.loads((out / "train.json").read_text())
    assert (again["steps"], again["seconds"]) == (numbers["steps"], numbers["seconds"])


def test_failure_is_one_line_and_status_one(tmp_path, monkeypatch, capsys):
    config = write_run(tmp_path)
    edit_config(config, precision="fp8")
    monkeypatch.setattr(sys, "argv", ["train", "--config", str(config)])

    with pytest.raises(SystemExit, match="1"):
        main()

    printed = capsys.readouterr().err
    assert printed.startswith(
        "train: rank 0: train.precision is 'fp8'; choose one of: float32, bfloat16"
    )
    assert printed.count("\n") == 1


def test_other_frames_are_counted_and_the_rule_counts_where_there_are_any(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = json.loads(write_run(tmp_path).read_text())
    paths = RunPaths(**config["paths"])
    records = RecordTable(read_record_lines(paths.mix))

    def read(rule):
        section = config["teacher"] | {"other_frames": rule}
        return run_setup._read_hashes(records, paths, section)[1:]

    (same, counts), (published, _) = read("by_frame"), read("as_published")
    assert same == published
    assert counts.notes() == []
    write_features(tmp_path, (0,), (5,))
    (by_frame, counts), (published, _) = read("by_frame"), read("as_published")
    assert by_frame != published
    assert (counts.other_frames, counts.unsupervised, counts.frames_left_out) == (2, 2, 2)
