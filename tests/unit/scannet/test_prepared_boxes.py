"""Prepared box files: both forms of an entry, both spellings of a scene, and malformed ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.scannet.boxes import extract_boxes, read_boxes_file
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.scannet.prepared_boxes import listed_scenes, read_prepared_boxes

BOX = [1.5, 2.0, 0.5, 0.25, 0.5, 1.0]


def scans(root: Path, *scenes: str) -> list[ScanFiles]:
    return [DataLayout(root=root).scan(scene) for scene in scenes]


def test_keys_as_published_and_without_their_prefix(tmp_path: Path) -> None:
    path = tmp_path / "scannet_train_gt_box.json"
    path.write_text(json.dumps({"scannet/scene0000_00": [BOX, BOX], "scene0001_00": [BOX]}))
    found = read_prepared_boxes(path, ["scene0000_00", "scene0001_00", "scene0002_00"])
    assert found == {
        "scene0000_00": {"boxes": [BOX, BOX], "ids": [0, 1], "labels": ["", ""]},
        "scene0001_00": {"boxes": [BOX], "ids": [0], "labels": [""]},
    }
    assert listed_scenes(path) == {"scene0000_00", "scene0001_00"}
    path.write_text(json.dumps({"scannet/scene0000_00": [], "scene0000_00": [BOX]}))
    with pytest.raises(DataError, match=r"scene0000_00 stands there with and without scannet/"):
        read_prepared_boxes(path, ["scene0000_00"])
    path.write_text("[")
    assert listed_scenes(path) == frozenset()


def test_masks_alone_are_of_no_use(tmp_path: Path) -> None:
    (scan,) = scans(tmp_path, "scene0000_00")
    scan.proposals.parent.mkdir(parents=True)
    scan.proposals.touch()
    gt = tmp_path / "gt.json"
    gt.write_text(json.dumps({"scannet/scene0000_00": [BOX]}))
    extract_boxes([scan], tmp_path / "boxes.json", {"gt": gt})
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert content["left_out"] == []
    assert len(content["scenes"]["scene0000_00"]["gt"]["boxes"]) == 1
    notes = [row["note"] for row in content["notes"]]
    assert notes == ["no mesh or point cloud for scene0000_00.mask.npz: no pred boxes"]


def test_boxes_of_both_forms(tmp_path: Path) -> None:
    gt = {"scene0000_00": [BOX, [0, 0, 0, 1, 1, 1]], "scene0009_00": [BOX]}
    pred = {"scene0000_00": {"boxes": [BOX], "ids": [7], "labels": ["chair"]}}
    for name, content in (("gt", gt), ("pred", pred)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = {name: tmp_path / f"{name}.json" for name in ("gt", "pred")}
    extract_boxes(scans(tmp_path, "scene0000_00", "scene0001_00"), tmp_path / "boxes.json", files)
    found = read_boxes_file(tmp_path / "boxes.json")
    np.testing.assert_array_equal(found["scene0000_00"]["gt"].boxes[0], np.float32(BOX))
    assert found["scene0000_00"]["gt"].ids.tolist() == [0, 1]
    assert found["scene0000_00"]["pred"].ids.tolist() == [7]
    assert found["scene0000_00"]["pred"].labels == ("chair",)
    assert len(found["scene0001_00"]["pred"]) == 0
    notes = json.loads((tmp_path / "boxes.json").read_text())["notes"]
    assert {"scene": "scene0001_00", "note": "not in pred.json: no pred boxes"} in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "[] is not of type 'object'"),
        ({"scene0000_00": 3}, "scene0000_00: 3 is not of type 'object'"),
        ({"scene0000_00": [[1, 2, 3]]}, "boxes.0: List should have at least 6 items"),
        ({"scene0000_00": {"boxes": [BOX], "ids": [1, 2]}}, "1 boxes, 2 ids"),
        ({"scene0000_00": {"boxes": [BOX], "labels": ["\ud800"]}}, "half a surrogate pair"),
    ],
)
def test_malformed_boxes(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        extract_boxes(
            scans(tmp_path, "scene0000_00"), tmp_path / "boxes.json", {"gt": tmp_path / "gt.json"}
        )
    assert message in str(error.value)
    assert "gt.json" in str(error.value)
    assert not (tmp_path / "boxes.json").exists()
