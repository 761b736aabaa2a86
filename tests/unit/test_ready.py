"""Processed files that users have already: LLaVA-style arrays, ready box files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_mix import record

from threedrs.errors import DataError
from threedrs.inputs import Ready, missing_inputs
from threedrs.instructions.llava import write_llava
from threedrs.instructions.ready import take_ready
from threedrs.instructions.record import read_records
from threedrs.layout import DataLayout
from threedrs.scannet.boxes import read_boxes_file
from threedrs.scannet.ready_boxes import take_boxes

SCENES = frozenset({"scene0000_00", "scene0001_00"})
BOX = [0.5, 0.25, 1.0, 1.0, 2.0, 0.5]


def test_one_benchmark_of_an_array(tmp_path: Path) -> None:
    refer = [record("scanrefer", n, "<ground>", object_ids=[n], box=BOX) for n in range(2)]
    answers = [record("scanqa", 0), record("scanqa", 1, scene="scene0707_00")]
    write_llava(tmp_path / "all.json", [*refer, *answers])
    out = tmp_path / "scanqa_train.jsonl"
    summary = take_ready("scanqa", "train", tmp_path / "all.json", SCENES, out, 0.5)
    assert list(read_records(out)) == answers[:1]
    assert (summary.rows, summary.records, summary.rejected) == (2, 1, 1)
    assert summary.reasons == {"scene missing": 1}
    (rejected,) = map(json.loads, (tmp_path / "scanqa_train.rejected.jsonl").open())
    assert rejected["detail"] == "scanqa_1: scene0707_00 is not in the split's scene list"
    assert json.loads((tmp_path / "scanqa_train.summary.json").read_text())["records"] == 1
    take_ready("scanrefer", "train", tmp_path / "all.json", SCENES, tmp_path / "refer.jsonl")
    assert list(read_records(tmp_path / "refer.jsonl")) == refer


@pytest.mark.parametrize(
    ("records", "split", "message"),
    [
        ([record("sqa3d", 0)], "train", "holds no entries of scanqa"),
        ([record("scanqa", 0)], "val", "scanqa_0 has no references"),
        ([record("scanqa", 0, references=["yes"])], "train", "has references: an evaluation"),
        ([record("scanqa", 0, scene="scene0707_00")], "train", "1 of 1 scanqa entries rejected"),
    ],
)
def test_refused_arrays(tmp_path: Path, records: list[Any], split: str, message: str) -> None:
    write_llava(tmp_path / "all.json", records)
    with pytest.raises(DataError) as error:
        take_ready("scanqa", split, tmp_path / "all.json", SCENES, tmp_path / "out.jsonl")
    assert message in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_boxes_of_both_forms(tmp_path: Path) -> None:
    gt = {"scene0000_00": [BOX, [0, 0, 0, 1, 1, 1]], "scene0009_00": [BOX]}
    pred = {"scene0000_00": {"boxes": [BOX], "ids": [7], "labels": ["chair"]}}
    for name, content in (("gt", gt), ("pred", pred)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = {name: tmp_path / f"{name}.json" for name in ("gt", "pred")}
    take_boxes(["scene0000_00", "scene0001_00"], files, tmp_path / "boxes.json")
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
        ([], "expected a JSON object, scene to boxes"),
        ({"scene0000_00": 3}, "scene0000_00: expected a list of boxes"),
        ({"scene0000_00": [[1, 2, 3]]}, "boxes[0] is not 6 finite numbers"),
        ({"scene0000_00": {"boxes": [BOX], "ids": [1, 2]}}, "1 boxes, 2 ids"),
    ],
)
def test_malformed_boxes(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        take_boxes(["scene0000_00"], {"gt": tmp_path / "gt.json"}, tmp_path / "boxes.json")
    assert message in str(error.value)
    assert "gt.json" in str(error.value)
    assert not (tmp_path / "boxes.json").exists()


def test_ready_files_replace_what_they_stand_for(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    for split, scene in (("train", "scene0000_00"), ("val", "scene0001_00")):
        layout.split_file(split).parent.mkdir(parents=True, exist_ok=True)
        layout.split_file(split).write_text(f"{scene}\n")
        for file in (layout.scan(scene).sens, layout.scan(scene).meta):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    layout.labels_file.touch()
    array = tmp_path / "train.json"
    ready = Ready(instructions={"train": array, "val": array}, boxes="boxes/{split}_{set}.json")
    with pytest.raises(DataError) as error:
        missing_inputs(layout, [("scanqa", "train"), ("scanqa", "val")], ready=ready)
    said = str(error.value)
    assert "train.json: missing" in said
    assert "boxes/train_gt.json: missing" in said
    assert "boxes/val_pred.json: missing" in said
    assert "ScanQA" not in said
    assert "vh_clean" not in said
    (tmp_path / "boxes").mkdir()
    for name in ("train_gt", "val_gt", "val_pred"):
        (tmp_path / "boxes" / f"{name}.json").write_text("{}")
    array.touch()
    missing_inputs(layout, [("scanqa", "train"), ("scanqa", "val")], ready=ready)
    assert set(ready.box_files(layout, "train")) == {"gt"}
    with pytest.raises(DataError, match="ScanQA"):
        missing_inputs(layout, [("scanqa", "train"), ("scanqa", "val")])
