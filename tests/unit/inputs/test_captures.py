"""Which own captures a configuration names, and which names a line refuses."""

from pathlib import Path
from typing import Any

import pytest

from threedrs.errors import DataError
from threedrs.inputs.captures import capture_files, capture_splits


def config(root: Path, **scenes: dict[str, Any]) -> dict[str, Any]:
    splits = {split: {"questions": None, **given} for split, given in scenes.items()}
    return {"data": {"root": str(root), "scenes": splits}}


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def test_patterns_and_paths_name_folders_streams_and_stores(tmp_path: Path) -> None:
    folders(tmp_path, "in/kitchen", "in/a.b-c_1", "in/.hidden", "in/hall.zarr", "odd/x1")
    (tmp_path / "in/office.sens").touch()
    (tmp_path / "in/LAB.SENS").touch()
    (tmp_path / "in/README.txt").touch()
    (tmp_path / "asked.jsonl").touch()
    found = capture_splits(
        config(
            tmp_path,
            mylab={"captures": ["in/*", "in/kitchen"], "questions": "asked.jsonl"},
            other={"captures": [f"{tmp_path}/odd/x?"]},
        )
    )
    names = {scene: path.name for scene, path in found["mylab"].scenes.items()}
    assert names == {
        "LAB": "LAB.SENS",
        "a.b-c_1": "a.b-c_1",
        "hall": "hall.zarr",
        "kitchen": "kitchen",
        "office": "office.sens",
    }
    assert found["mylab"].questions == tmp_path / "asked.jsonl"
    assert found["other"].scenes == {"x1": tmp_path / "odd/x1"}
    assert found["other"].questions is None


def test_every_fault_has_a_line(tmp_path: Path) -> None:
    folders(tmp_path, "in/kitchen", "in/my lab", "in/scene0000_00", "in/x[1]", "again/kitchen")
    with pytest.raises(DataError) as caught:
        capture_splits(
            config(
                tmp_path,
                mylab={"captures": ["in/*", "in/x[1]", "none/*"], "questions": "asked.jsonl"},
                val={"captures": ["again/kitchen"]},
            )
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 8
    assert "my lab: 'my lab' cannot be the name of a scene; rename it" in lines[0]
    assert "scene0000_00 is the name of a scan of ScanNet; rename it" in lines[1]
    assert all("'x[1]' cannot be" in line for line in lines[2:4])  # it is named twice
    assert f"{tmp_path}/none/*: is not a capture" in lines[4]
    assert "correct data.scenes.mylab.captures" in lines[4]
    assert f"{tmp_path}/asked.jsonl: missing" in lines[5]
    assert "data.scenes.val: val is a split of ScanNet" in lines[6]
    assert f"{tmp_path}/in/kitchen in split mylab is called kitchen too" in lines[7]


def test_a_capture_is_watched_by_its_folders_and_its_own_files(tmp_path: Path) -> None:
    folders(tmp_path, "color", "depth")
    for name in ("frame-000000.color.png", "frame-000000.pose.txt", "trajectory.log"):
        (tmp_path / name).touch()
    assert [path.name for path in capture_files(tmp_path)] == ["color", "depth", "trajectory.log"]
    assert capture_files(tmp_path / "trajectory.log") == []
