"""The doctor on the machine: software, GPUs, Slurm, disk and file system, each with its remedy."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import types
from pathlib import Path

import pytest
import torch

from fixtures.doctor_setting import only
from threedrs.demo.write import demo_scenes
from threedrs.doctor import file_system, machine
from threedrs.doctor.file_system import stage_needs
from threedrs.doctor.finding import Setting
from threedrs.planning.disk import FRAME_BYTES, feature_bytes

EMPTY = Path("nothing/here")


# Software


def test_another_python(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.14.1")
    found = only(machine.check_python, setting, "error")
    assert "3.14.1, pyproject.toml asks for <3.13,>=3.11" in found.message.replace(
        ">=3.11,<3.13", "<3.13,>=3.11"
    )
    assert "make setup" in found.remedy


def test_packages(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "1.26.4", "torch": "2.14.0+cu130"}
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = only(machine.check_packages, setting, "error")
    assert "numpy 1.26.4 (needs >=2.1)" in found.message
    assert "torch 2.14.0 (needs <2.14,>=2.11)" in found.message
    assert "zarr missing (needs <4,>=3.1.2)" in found.message
    assert found.remedy == "run `make setup`"
    (setting.root / "pyproject.toml").unlink()
    assert "run threedrs doctor from the" in only(machine.check_packages, setting, "warning").remedy


def test_packages_other_than_those_tested(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99.9" if name == "rich" else real(name)
    )
    found = only(machine.check_packages, setting, "warning")
    assert found.message.startswith("not as tested: rich 99.9 (locked: ")


# Machine


def test_no_gpu(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "models of this size run on the CPU" in only(machine.check_gpu, setting, "ok").message
    setting.config["model"] |= {"size": "7b", "random_weights": True}
    found = only(machine.check_gpu, setting, "warning")
    assert found.message == "none here; models of size 7b need GPU nodes"
    assert "--profile slurm" in found.remedy
    on_slurm = Setting(config=setting.config, root=setting.root, slurm=True)
    assert only(machine.check_gpu, on_slurm, "ok").message == found.message


def test_flash_attention(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert "torch's own attention" in only(machine.check_attention, setting, "ok").message
    setting.config["runs"]["baseline"]["model"] = {"attention": "flash"}
    found = only(machine.check_attention, setting, "error")
    assert "model.attention of baseline asks for it" in found.message
    assert "pip install --no-build-isolation -e '.[flash-attn]'" in found.remedy


def test_no_java(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = only(machine.check_java, setting, "warning")
    assert found.message == "missing: METEOR of scan2cap and scanqa is reported as unavailable"
    assert "default-jre-headless" in found.remedy
    setting.config["eval"]["benchmarks"] = ["scanrefer"]
    assert "no benchmark needs it" in only(machine.check_java, setting, "ok").message


def test_no_slurm(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    on_slurm = Setting(config=setting.config, root=setting.root, slurm=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "--profile slurm needs them" in only(machine.check_slurm, setting, "ok").message
    found = only(machine.check_slurm, on_slurm, "error")
    assert found.message == "sbatch, squeue, sinfo not here"
    assert "login node" in found.remedy

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    answers = {"stdout": "", "stderr": "slurm_load_partitions: \n no contact"}
    monkeypatch.setattr(subprocess, "run", lambda *a, **o: types.SimpleNamespace(**answers))
    found = only(machine.check_slurm, on_slurm, "error")
    assert "sinfo names no partition: slurm_load_partitions: no contact" in found.message
    assert only(machine.check_slurm, setting, "warning").message == found.message
    answers["stdout"] = "gpu*\ncpu\n"
    assert only(machine.check_slurm, on_slurm, "ok").message == "partitions gpu*, cpu"

    def hangs(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("sinfo", 30)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert "timed out" in only(machine.check_slurm, on_slurm, "error").message


# Disk


def test_disk_grows_with_frames_and_teachers(config: dict) -> None:
    before = sum(stage_needs(config, EMPTY).values())
    config["frames"]["count"] += 1
    scenes = config["data"]["demo"]["scenes"]
    train = len(demo_scenes(scenes)["train"])
    features = feature_bytes(config["teacher"], 768)
    after = sum(stage_needs(config, EMPTY).values())
    assert after - before == scenes * FRAME_BYTES + train * features


def test_what_is_there_is_not_needed_again(setting: Setting) -> None:
    before = stage_needs(setting.config, setting.results)
    scene = demo_scenes(setting.config["data"]["demo"]["scenes"])["train"][0]
    frames = setting.config["frames"]["count"]
    (setting.results / f"scenes/{scene}.zarr").mkdir(parents=True)
    (setting.results / f"scenes/{scene}.zarr/zarr.json").touch()
    (setting.results / f"features/vggt-tiny/train-000.zarr/{scene}").mkdir(parents=True)
    for run in ("3drs", "baseline"):
        (setting.results / "train" / run).mkdir(parents=True)
        (setting.results / "train" / run / "train.json").touch()
    after = stage_needs(setting.config, setting.results)
    assert before["scenes"] - after["scenes"] == frames * FRAME_BYTES
    features = feature_bytes(setting.config["teacher"], 768)
    assert before["features"] - after["features"] == frames * features
    assert before["models"] > after["models"] == 0


def test_too_little_disk_names_the_stage(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = stage_needs(setting.config, setting.results)
    enough_for_two = needs["scenes"] + needs["features"] + 1
    usage = types.SimpleNamespace(free=enough_for_two)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    findings = list(file_system.check_disk(setting))
    assert [finding.status for finding in findings] == ["ok", "ok", "error", "error", "error"]
    assert findings[2].message.startswith("instructions: about 0.0 GB to write")
    assert f"{enough_for_two / 1e9:.1f} GB free in results/" in findings[2].message
    assert findings[2].remedy == "free space, or make results/ a link to a larger disk"


def test_the_disk_is_that_of_the_results(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    usage = types.SimpleNamespace(free=2**60)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    list(file_system.check_disk(setting))
    setting.results.rmdir()
    list(file_system.check_disk(setting))
    assert asked == [setting.root / "results", setting.root]


# File system


@pytest.mark.parametrize(
    ("place", "function"), [(os, "fsync"), (Path, "replace"), (Path, "write_text")]
)
def test_file_systems_that_cannot(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, place: object, function: str
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(place, function, fails)
    found = only(file_system.check_file_system, setting, "error")
    assert "results: a file cannot be written, synced and renamed (Operation not" in found.message
    assert found.remedy.startswith("make results/ a link to a folder of yours")
    assert not list(setting.results.iterdir())


@pytest.mark.parametrize(("ahead", "words"), [(30, "before"), (-30, "after")])
def test_clock_skew(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, ahead: int, words: str
) -> None:
    real = file_system.time.time
    monkeypatch.setattr(file_system.time, "time", lambda: real() + ahead)
    found = only(file_system.check_file_system, setting, "warning")
    assert found.check == "clock"
    assert f"30 s {words} this machine's clock: finished stages may run again" in found.message
    assert "NTP" in found.remedy
