"""The doctor names what is missing, with the remedy, and its estimates follow the shapes."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_run import SCENES, SHARD, write_features, write_scene_inputs
from typer.testing import CliRunner

from threedrs.cli import app
from threedrs.config import load_config
from threedrs.demo.write import demo_scenes
from threedrs.doctor import Finding, Setting, data, disk, examine, file_system, machine, software
from threedrs.doctor import stored as doctor_stored
from threedrs.doctor.disk import disk_needed, stage_needs
from threedrs.sizes import FRAME_BYTES, feature_bytes

ROOT = Path(__file__).resolve().parents[2]
EMPTY = Path("nothing/here")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "config" / "config.yaml").read_text()
    return load_config(yaml.safe_load(text), ROOT / "workflow/schemas/config.schema.yaml")


@pytest.fixture
def setting(config: dict, tmp_path: Path) -> Setting:
    """A repository of its own, without results."""
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "results").mkdir()
    return Setting(config=config, root=tmp_path)


def only(check: Callable[[Setting], Any], setting: Setting, status: str) -> Finding:
    """Return the one finding of ``check`` that has ``status``; it is one line with a remedy."""
    (found,) = [finding for finding in check(setting) if finding.status == status]
    assert "\n" not in found.message + found.remedy
    assert bool(found.remedy) == (status != "ok")
    return found


def test_the_demo_needs_nothing_else(config: dict, setting: Setting) -> None:
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    for check in ("data", "python", "disk", "inodes", "file system", "clock", "stores", "results"):
        assert findings[check].status == "ok", findings[check]
    assert findings["stores"].message == findings["results"].message == "none yet"
    assert not list((setting.root / "results").iterdir())


def test_what_cannot_be_looked_at_is_a_finding(
    config: dict, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", "results/.doctor")

    monkeypatch.setattr(Path, "write_bytes", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    monkeypatch.setattr(os, "statvfs", read_only)
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    assert findings["inodes"].message == (
        "results/.doctor: cannot be looked at (Read-only file system)"
    )
    assert "cannot be written (Read-only" in findings["file system"].message
    assert {"disk", "data", "licences"} <= {*findings}


def test_results_that_link_to_nothing(config: dict, setting: Setting) -> None:
    setting.results.rmdir()
    setting.results.symlink_to("nowhere")
    findings = {finding.check: finding for finding in examine(config, setting.root)}
    assert {findings[check].status for check in ("disk", "inodes", "file system")} == {"error"}
    assert "where results/ is a link, make its folder" in findings["disk"].remedy


# Software


def test_another_python(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.14.1")
    found = only(software.check_python, setting, "error")
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
    found = only(software.check_packages, setting, "error")
    assert "numpy 1.26.4 (needs >=2.1)" in found.message
    assert "torch 2.14.0 (needs <2.14,>=2.11)" in found.message
    assert "zarr missing (needs <4,>=3.1)" in found.message
    assert found.remedy == "run `make setup`"
    (setting.root / "pyproject.toml").unlink()
    assert (
        "run threedrs doctor from the" in only(software.check_packages, setting, "warning").remedy
    )


def test_packages_other_than_those_tested(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99.9" if name == "rich" else real(name)
    )
    found = only(software.check_packages, setting, "warning")
    assert found.message.startswith("not as tested: rich 99.9 (locked: ")


# Machine


def test_no_gpu(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "tiny models run on the CPU" in only(machine.check_gpu, setting, "ok").message
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
    before = disk_needed(config, EMPTY)
    config["frames"]["count"] += 1
    scenes = config["data"]["demo"]["scenes"]
    train = len(demo_scenes(scenes)["train"])
    features = feature_bytes(config["teacher"], 768)
    assert disk_needed(config, EMPTY) - before == scenes * FRAME_BYTES + train * features


def test_what_is_there_is_not_needed_again(setting: Setting) -> None:
    before = {need.stage: need.size for need in stage_needs(setting.config, setting.results)}
    scene = demo_scenes(setting.config["data"]["demo"]["scenes"])["train"][0]
    frames = setting.config["frames"]["count"]
    (setting.results / f"scenes/{scene}.zarr").mkdir(parents=True)
    (setting.results / f"scenes/{scene}.zarr/zarr.json").touch()
    (setting.results / f"features/vggt-tiny/train-000.zarr/{scene}").mkdir(parents=True)
    for run in ("3drs", "baseline"):
        (setting.results / "train" / run).mkdir(parents=True)
        (setting.results / "train" / run / "train.json").touch()
    after = {need.stage: need.size for need in stage_needs(setting.config, setting.results)}
    assert before["scenes"] - after["scenes"] == frames * FRAME_BYTES
    features = feature_bytes(setting.config["teacher"], 768)
    assert before["features"] - after["features"] == frames * features
    assert before["models"] > after["models"] == 0


def test_too_little_disk_names_the_stage(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = stage_needs(setting.config, setting.results)
    enough_for_two = needs[0].size + needs[1].size + 1
    usage = types.SimpleNamespace(free=enough_for_two)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    findings = list(disk.check_disk(setting))
    assert [finding.status for finding in findings] == ["ok", "ok", "error", "error", "error"]
    assert findings[2].message.startswith("instructions: about 0.0 GB to write")
    assert f"{enough_for_two / 1e9:.1f} GB free in results/" in findings[2].message
    assert findings[2].remedy == "free space, or make results/ a link to a larger disk"


def test_the_disk_is_that_of_the_results(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    usage = types.SimpleNamespace(free=2**60)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    list(disk.check_disk(setting))
    setting.results.rmdir()
    list(disk.check_disk(setting))
    assert asked == [setting.root / "results", setting.root]


@pytest.mark.parametrize(
    ("total", "free", "status", "words"),
    [
        (0, 0, "ok", "not limited"),
        (10**9, 10**8, "ok", "100,000,000 free"),
        (10**9, 10**7, "warning", "less than 5% of all are left"),
        (10**9, 50, "error", "50 free in results/"),
    ],
)
def test_inodes(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    total: int,
    free: int,
    status: str,
    words: str,
) -> None:
    state = types.SimpleNamespace(f_files=total, f_favail=free)
    monkeypatch.setattr(os, "statvfs", lambda path: state)
    assert words in only(disk.check_inodes, setting, status).message


# File system


@pytest.mark.parametrize(
    ("function", "step"),
    [("fsync", "synced to disk"), ("replace", "renamed over another"), ("write", "written")],
)
def test_file_systems_that_cannot(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, function: str, step: str
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    if function == "fsync":
        monkeypatch.setattr(os, "fsync", fails)
    else:
        method = {"replace": "replace", "write": "write_bytes"}[function]
        monkeypatch.setattr(Path, method, fails)
    found = only(file_system.check_file_system, setting, "error")
    assert f"results: a file cannot be {step} (Operation not supported)" in found.message
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


def test_file_systems_without_atomic_rename(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nuser@host: {tmp_path}/res\\040x fuse.sshfs rw 0 0\n")
    assert file_system.mount_kind(tmp_path / "res x" / "y", mounts) == "fuse.sshfs"
    assert file_system.mount_kind(tmp_path / "res", mounts) == "ext4"
    assert file_system.mount_kind(tmp_path, tmp_path / "absent") == ""
    monkeypatch.setattr(file_system, "mount_kind", lambda folder: "fuse.sshfs")
    found = only(file_system.check_file_system, setting, "warning")
    assert "is on fuse.sshfs, where a rename may not be atomic: a killed job can" in found.message


# Data


def own_data(setting: Setting) -> Path:
    """Turn to data of the user's own: two scenes without any file."""
    setting.config["data"] |= {"demo": None, "root": str(setting.root)}
    (setting.root / "scannet").mkdir()
    for split, scene in (("train", "scene0000_00"), ("val", "scene0001_00")):
        (setting.root / "scannet" / f"scannetv2_{split}.txt").write_text(f"{scene}\n")
    return setting.root


def test_missing_data_is_named_file_by_file(setting: Setting) -> None:
    assert "scannetv2_train.txt" not in str(list(data.check_inputs(setting)))
    own_data(setting)
    findings = list(data.check_inputs(setting))
    lines = [finding.message for finding in findings]
    assert any("scene0000_00.sens: missing" in line for line in lines)
    assert any("scene0001_00_vh_clean_2.ply: missing" in line for line in lines)
    assert {finding.status for finding in findings} == {"error"}
    assert "section `data`" in findings[0].remedy


def test_missing_scene_lists(setting: Setting) -> None:
    setting.config["data"] |= {"demo": None, "root": str(setting.root / "none")}
    found = only(disk.check_disk, setting, "error")
    assert "what is needed is not known: " in found.message
    assert "scannetv2_train.txt: cannot be read" in found.message


def test_locked_and_empty_data(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    root = own_data(setting)
    files = [root / "a.sens", root / "b.txt", root / "c.txt"]
    for file, text in zip(files, ("a", "", "c"), strict=True):
        file.write_text(text)
    monkeypatch.setattr(data, "missing_inputs", lambda *arguments: None)
    monkeypatch.setattr(data, "required_files", lambda *arguments: files)
    monkeypatch.setattr(os, "access", lambda path, mode: path != files[0])
    locked, empty = data.check_inputs(setting)
    assert locked.message == f"{files[0]}: may not be read by this user"
    assert locked.remedy == f"chmod u+r {files[0]}, or ask its owner"
    assert (empty.status, empty.message) == ("error", f"{files[1]}: is empty")
    proposals = root / "scannet/mask/scene0000_00.mask.npz"
    proposals.parent.mkdir()
    proposals.touch()
    assert f"{proposals}: is empty" in [finding.message for finding in data.check_inputs(setting)]


def test_data_in_a_folder_that_may_not_be_entered(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data(setting)
    is_file = Path.is_file

    def locked(path: Path) -> bool:
        if "scans" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", locked)
    lines = [finding.message for finding in data.check_inputs(setting)]
    assert any("scene0000_00.sens: may not be read by this user; ask" in line for line in lines)


# What earlier runs left


@pytest.fixture
def stores(setting: Setting) -> Path:
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(setting.root, scene, seed)
    write_features(setting.root)
    return setting.results


def test_stores_in_order(setting: Setting, stores: Path) -> None:
    found = only(doctor_stored.check_stores, setting, "ok")
    assert found.message == "2 scene stores and 1 feature stores, a sample verified"


@pytest.mark.parametrize("damage", ["metadata", "chunk", "version"])
def test_damaged_scene_stores(setting: Setting, stores: Path, damage: str) -> None:
    store = stores / f"scenes/{SCENES[1]}.zarr"
    metadata = json.loads((store / "zarr.json").read_text())
    if damage == "metadata":
        (store / "pose/zarr.json").write_text("{")
    elif damage == "chunk":
        (chunk,) = (path for path in (store / "rgb/c").rglob("*") if path.is_file())
        content = bytearray(chunk.read_bytes())
        content[1000] ^= 1
        chunk.write_bytes(content)
    else:
        metadata["attributes"]["format_version"] = 0
        (store / "zarr.json").write_text(json.dumps(metadata))
    found = only(doctor_stored.check_stores, setting, "error")
    words = {"metadata": "array pose is damaged", "chunk": "array rgb is damaged"}
    assert words.get(damage, "of format version 0, this release reads") in found.message
    assert str(store) in found.message
    assert "run `snakemake scenes` to remake it" in found.remedy


def test_damaged_feature_stores(setting: Setting, stores: Path) -> None:
    shard = setting.root / SHARD
    (chunk,) = (path for path in (shard / SCENES[0] / "features/c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    found = only(doctor_stored.check_stores, setting, "error")
    assert "array features is damaged" in found.message
    assert "rerun `snakemake features`" in found.remedy
    manifest = json.loads((shard / "manifest.json").read_text())
    (shard / "manifest.json").write_text(json.dumps(manifest | {"format_version": 0}))
    assert "of format version 0" in only(doctor_stored.check_stores, setting, "error").message


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("boxes/train-000.json", {"format_version": 0}, "error", "snakemake scenes"),
        ("boxes/train-000.json", [], "error", "snakemake scenes"),
        ("instructions/scanqa_val.jsonl", {"format_version": 0}, "error", "snakemake instructions"),
        ("instructions/mixes/full.jsonl", {}, "error", "snakemake instructions"),
        ("eval/3drs/scanqa/metrics.json", {"format_version": "1"}, "error", "snakemake scores"),
        ("report/summary.json", {"format_version": 9}, "error", "snakemake report"),
        (
            "train/3drs/model/config.json",
            {"threedrs": {"format_version": 0}},
            "error",
            "snakemake models",
        ),
        (
            "train/3drs/checkpoints/step-00000002/manifest.json",
            {"format_version": 1},
            "warning",
            "let it start afresh",
        ),
    ],
)
def test_results_of_another_version(
    setting: Setting, name: str, content: Any, status: str, words: str
) -> None:
    file = setting.results / name
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    rejected = setting.results / "instructions/scanqa_val.rejected.jsonl"
    rejected.parent.mkdir(exist_ok=True)
    rejected.write_text("no json")
    found = only(doctor_stored.check_versions, setting, status)
    assert f"{file}: is of format version" in found.message
    assert words in found.remedy


def test_results_that_are_cut_off(setting: Setting) -> None:
    file = setting.results / "boxes/train-000.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"format_version": 1')
    found = only(doctor_stored.check_versions, setting, "error")
    assert f"{file}: is not valid JSON (line 1" in found.message


# The command


def run(*options: str) -> tuple[int, list[dict[str, str]]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *options])
    rows = json.loads(result.output)
    assert all(set(row) == {"check", "status", "message", "remedy"} for row in rows)
    return result.exit_code, rows


def test_json_and_exit_status(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(*arguments: object, **options: object) -> list[Finding]:
        assert options == {"slurm": "error" in statuses}
        return [Finding(check="a", status=s, message=s, remedy="do") for s in statuses]

    monkeypatch.setattr("threedrs.doctor.examine", examine)
    statuses: list[Any] = ["ok", "warning"]
    assert run() == (
        0,
        [{"check": "a", "status": s, "message": s, "remedy": "do"} for s in statuses],
    )
    statuses = ["warning", "error"]
    assert run("--slurm")[0] == 1
    result = CliRunner().invoke(app, ["doctor", "--slurm"])
    assert "error   " in result.output
    assert "error: do" in " ".join(result.output.split())


def test_a_wrong_configuration_is_a_finding(
    config: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    for text, words in (
        ("train: {pack: 3}\nfrmaes: {}", "frmaes is not a key; did you mean frames?"),
        ("a: [", "own.yaml: is not YAML"),
    ):
        file.write_text(text)
        code, rows = run("--configfile", str(file))
        assert code == 1
        assert {(row["check"], row["status"]) for row in rows} == {("config", "error")}
        assert words in rows[0]["message"]
    file.write_text("model: {size: 7b, path: no/model}")  # not there yet: the rest is looked at
    code, rows = run("--configfile", str(file))
    assert code == 1
    assert "model.path: no/model is not a folder" in rows[0]["message"]
    assert {"config", "python", "disk", "data", "licences"} <= {row["check"] for row in rows}
    monkeypatch.chdir(tmp_path)
    assert "run threedrs doctor from the repository's folder" in run()[1][0]["message"]
