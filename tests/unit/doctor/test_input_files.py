"""The doctor on data: missing and locked inputs, damaged stores, results of another version."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.doctor_setting import only
from fixtures.saved_students import saved as saved  # a fixture
from fixtures.training_run import SCENES, SHARD, write_features, write_scene_inputs
from threedrs.doctor import earlier_results, file_system, input_files
from threedrs.doctor.finding import Setting

# Data


def own_data(setting: Setting) -> Path:
    """Turn to data of the user's own: two scenes without any file."""
    setting.config["data"] |= {"demo": None, "root": str(setting.root)}
    (setting.root / "scannet").mkdir()
    for split, scene in (("train", "scene0000_00"), ("val", "scene0001_00")):
        (setting.root / "scannet" / f"scannetv2_{split}.txt").write_text(f"{scene}\n")
    return setting.root


def test_missing_data_is_named_file_by_file(setting: Setting) -> None:
    assert "scannetv2_train.txt" not in str(list(input_files.check_inputs(setting)))
    own_data(setting)
    findings = list(input_files.check_inputs(setting))
    lines = [finding.message for finding in findings]
    assert any("scene0000_00.sens: missing" in line for line in lines)
    assert any("scene0001_00_vh_clean_2.ply: missing" in line for line in lines)
    assert {finding.status for finding in findings} == {"error"}
    assert "section `data`" in findings[0].remedy


def test_missing_scene_lists_are_named_with_all_else(setting: Setting) -> None:
    root = own_data(setting)
    for split in ("train", "val"):
        (root / f"scannet/scannetv2_{split}.txt").unlink()
    lines = [finding.message for finding in input_files.check_inputs(setting)]
    for name in ("scannetv2_train.txt", "scannetv2_val.txt", "ScanRefer_filtered_val.json"):
        assert any(f"{name}: missing" in line for line in lines), name


def test_missing_scene_lists(setting: Setting) -> None:
    setting.config["data"] |= {"demo": None, "root": str(setting.root / "none")}
    found = only(file_system.check_disk, setting, "error")
    assert found.message == "what is needed is not known"
    assert "scannetv2_train.txt: cannot be read" in found.remedy


def test_locked_and_empty_data(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    root = own_data(setting)
    files = [root / "a.sens", root / "b.txt", root / "c.txt"]
    for file, text in zip(files, ("a", "", "c"), strict=True):
        file.write_text(text)
    monkeypatch.setattr(input_files, "missing_inputs", lambda *arguments: None)
    monkeypatch.setattr(input_files, "required_files", lambda *arguments: files)
    monkeypatch.setattr(os, "access", lambda path, mode: path != files[0])
    locked, empty = input_files.check_inputs(setting)
    assert locked.message == f"{files[0]}: may not be read by this user"
    assert locked.remedy == f"chmod u+r {files[0]}, or ask its owner"
    assert (empty.status, empty.message) == ("error", f"{files[1]}: is empty")
    proposals = root / "scannet/mask/scene0000_00.mask.npz"
    proposals.parent.mkdir()
    proposals.touch()
    assert f"{proposals}: is empty" in [
        finding.message for finding in input_files.check_inputs(setting)
    ]


def test_a_root_that_is_missing_is_left_to_the_configuration(setting: Setting) -> None:
    setting.config["data"] |= {"demo": None, "root": str(setting.root / "none")}
    assert list(input_files.check_inputs(setting)) == []


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
    lines = [finding.message for finding in input_files.check_inputs(setting)]
    assert any("scene0000_00.sens: may not be read by this user; ask" in line for line in lines)


def test_a_checkpoint_that_no_job_could_load_is_named(setting: Setting, saved: Path) -> None:
    setting.config["runs"] = {"own": {"checkpoint": str(saved)}}
    assert not [*input_files.check_models(setting)], "the demo's student ships here"
    setting.config["data"]["demo"] = None
    assert str(saved) in only(input_files.check_models, setting, "ok").message
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "mm_projector_type": "linear"}))
    wrong = only(input_files.check_models, setting, "error")
    assert wrong.message.startswith(f"runs.own: {saved}/config.json: mm_projector_type is 'linear'")
    (saved / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "vocab.json"):
        (saved / name).unlink()
    assert "tokenizer" in only(input_files.check_models, setting, "error").message


# What earlier runs left


@pytest.fixture
def stores(setting: Setting) -> Path:
    for seed, scene in enumerate(SCENES):
        write_scene_inputs(setting.root, scene, seed)
    write_features(setting.root)
    return setting.results


def test_stores_in_order(setting: Setting, stores: Path) -> None:
    found = only(earlier_results.check_stores, setting, "ok")
    assert found.message == "2 scene stores and 1 feature stores, which open"


@pytest.mark.parametrize("damage", ["metadata", "version"])
def test_damaged_scene_stores(setting: Setting, stores: Path, damage: str) -> None:
    store = stores / f"scenes/{SCENES[1]}.zarr"
    metadata = json.loads((store / "zarr.json").read_text())
    if damage == "metadata":
        (store / "pose/zarr.json").write_text("{")
    else:
        metadata["attributes"]["format_version"] = 0
        (store / "zarr.json").write_text(json.dumps(metadata))
    found = only(earlier_results.check_stores, setting, "error")
    words = {"metadata": "array pose is damaged"}
    assert words.get(damage, "of format version 0, this release reads") in found.message
    assert str(store) in found.message
    assert "threedrs verify --repair" in found.remedy


def test_damaged_feature_stores(setting: Setting, stores: Path) -> None:
    shard = setting.root / SHARD
    manifest = json.loads((shard / "manifest.json").read_text())
    (shard / "manifest.json").write_text(json.dumps(manifest | {"format_version": 0}))
    found = only(earlier_results.check_stores, setting, "error")
    assert "of format version 0" in found.message
    assert "run `snakemake --cores all features`" in found.remedy


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("boxes/train-000.json", {"format_version": 0}, "error", "snakemake --cores all scenes"),
        ("boxes/train-000.json", [], "error", "snakemake --cores all scenes"),
        (
            "instructions/scanqa_val.jsonl",
            {"format_version": 0},
            "error",
            "snakemake --cores all instructions",
        ),
        ("instructions/mixes/full.jsonl", {}, "error", "snakemake --cores all instructions"),
        (
            "eval/3drs/scanqa/metrics.json",
            {"format_version": "1"},
            "error",
            "snakemake --cores all scores",
        ),
        ("report/summary.json", {"format_version": 9}, "error", "snakemake --cores all report"),
        (
            "train/3drs/model/config.json",
            {"threedrs": {"format_version": 0}},
            "error",
            "snakemake --cores all models",
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
    found = only(earlier_results.check_versions, setting, status)
    assert f"{file}: is of format version" in found.message
    assert words in found.remedy


def test_results_that_are_cut_off(setting: Setting) -> None:
    file = setting.results / "boxes/train-000.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"format_version": 1')
    found = only(earlier_results.check_versions, setting, "error")
    assert f"{file}: is not valid JSON (Expecting" in found.message
