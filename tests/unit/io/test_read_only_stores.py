"""Inputs that nobody may write to: stages that read them work, those that write say what to do."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.inference_run import SCENES as ASKED
from fixtures.inference_run import Fake, question, write_store
from fixtures.inference_run import run as predict
from fixtures.scan_files import BOXES, SETTINGS, build_scene, make_scan
from fixtures.training_run import SHARD, write_run, write_scene_inputs
from fixtures.training_run import run as train
from threedrs.distributed.ranks import AgreedError
from threedrs.errors import StoreError
from threedrs.io.files import write_json
from threedrs.scenes.store import SceneStore
from threedrs.tasks.prediction import read_predictions
from threedrs.tasks.record import write_records
from threedrs.tasks.registry import TASKS
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.teacher import TeacherSettings
from threedrs.workflow.job_log import job_log


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write below ``folder`` away for the time of the block.

    For the superuser, who may write whatever the modes say, by a read-only mount.
    """
    if os.geteuid() == 0:
        mount = ["mount", "--bind", str(folder), str(folder)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"the superuser may not mount here: {done.stderr.strip()}")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    try:
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_the_right_to_write_is_taken_and_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with read_only(folder), pytest.raises(OSError, match=r"Read-only|Permission denied"):
        (folder / "b").touch()
    (folder / "b").touch()


@pytest.mark.slow
def test_training_only_reads_its_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, max_steps=1)
    results = tmp_path / "results"
    inputs = [results / "scenes", (tmp_path / SHARD).parent, results / "instructions"]
    with read_only(inputs[0]), read_only(inputs[1]), read_only(inputs[2]):
        train(tmp_path, monkeypatch)
    assert (results / "train/3drs/train.json").is_file()


@pytest.mark.slow
def test_training_without_a_place_for_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, max_steps=1)
    with read_only(tmp_path / "results/train"), pytest.raises(AgreedError) as caught:
        train(tmp_path, monkeypatch)
    line = str(caught.value)
    assert "results/train/3drs" in line
    assert "make the folder writable for this user" in line or "free disk space" in line
    assert "\n" not in line


def test_prediction_only_reads_its_inputs(tmp_path: Path) -> None:
    scenes, model, records = (tmp_path / name for name in ("scenes", "model", "records"))
    for folder in (scenes, model, records):
        folder.mkdir()
    for scene in ASKED:
        write_store(scenes, scene)
    (model / "weights").write_text("1")
    file, out = records / "scanqa_val.jsonl", tmp_path / "out/predictions.jsonl"
    questions = [question(i, "scanqa", ASKED[i % 3], references=["yes"]) for i in range(6)]
    write_records(file, questions)
    with read_only(scenes), read_only(model), read_only(records):
        predict(model, file, scenes, out, Fake())
        for scene in ASKED:
            SceneStore.open(scenes / f"{scene}.zarr").verify()
    assert len(read_predictions(out, TASKS["scanqa"])) == 6


def test_the_scene_stage_says_file_and_remedy(tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "data")
    stores = tmp_path / "scenes"
    stores.mkdir()
    with read_only(stores), pytest.raises(StoreError) as caught:
        build_scene(scan, BOXES, SETTINGS, stores / "scene0000_00.zarr", "train")
    assert f"{stores / 'scene0000_00.zarr'}: cannot be written (" in str(caught.value)
    assert "; make the folder writable for this user, or results/ a link" in str(caught.value)
    build_scene(scan, BOXES, SETTINGS, stores / "scene0000_00.zarr", "train").verify()


def test_the_feature_stage_says_file_and_remedy(tmp_path: Path) -> None:
    write_scene_inputs(tmp_path, "scene0000_00", 0)
    store = tmp_path / "results/scenes/scene0000_00.zarr"
    features = tmp_path / "features"
    features.mkdir()
    settings = TeacherSettings(name="pointmap")
    with read_only(features), read_only(store.parent), pytest.raises(StoreError) as caught:
        extract_shard([store], settings, features / "train-000.zarr")
    assert f"{features / 'train-000.zarr'}: cannot be written (" in str(caught.value)
    assert "; make the folder writable for this user, or results/ a link" in str(caught.value)
    with read_only(store.parent):
        extract_shard([store], settings, features / "train-000.zarr")
        assert verify_store(features / "train-000.zarr") == []


def test_other_stages_say_file_and_remedy_in_their_log(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, log = tmp_path / "out", tmp_path / "logs/score.log"
    folder.mkdir()
    with read_only(folder), pytest.raises(SystemExit) as ended, job_log(log, "score"):
        write_json(folder / "metrics.json", {})
    assert ended.value.code == 1
    (line,) = log.read_text().splitlines()
    assert f"score: {folder}" in line
    assert "make the folder writable for this user" in line
    assert line.endswith(f"(log: {log})")
    assert "Traceback" not in capsys.readouterr().err
