"""What the conversion counts and leaves out, the published sizes, and boxes taken from scans."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from fixtures.instruction_files import (
    GOOD,
    MULTI3DREFER,
    SCANQA,
    SCANREFER,
    SCENE,
    description,
    reasons,
    rejected,
    run,
    write_annotations,
)
from threedrs.errors import DataError
from threedrs.instructions.convert import convert
from threedrs.io.files import sha256_of_file
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.annotation_rows import PublishedSize
from threedrs.tasks.record import read_records
from threedrs.tasks.registry import TASKS, annotation_files


def test_repeated_annotations_stay_apart(tmp_path: Path) -> None:
    write_annotations(tmp_path, SCANQA, [GOOD[SCANQA], GOOD[SCANQA]])
    records, summary = run(tmp_path, "scanqa", "train")
    assert [record.id for record in records] == ["scanqa_a_0", "scanqa_a_0#2"]
    assert summary.repeated_ids == 1


def test_summary_file(tmp_path: Path) -> None:
    path = write_annotations(tmp_path, SCANQA, [GOOD[SCANQA], {}])
    _, summary = run(tmp_path, "scanqa", "train")
    written = json.loads((tmp_path / "out" / "scanqa_train.summary.json").read_text())
    assert written == {"format_version": 1, **summary.to_json()}
    assert written == {
        "format_version": 1,
        "benchmark": "scanqa",
        "split": "train",
        "rows": 2,
        "records": 1,
        "rejected": 1,
        "reasons": {"malformed row": 1},
        "repeated_ids": 0,
        "inputs": {SCANQA: sha256_of_file(path)},
        "published_records": None,
        "left_out": {},
    }


LEFT_OUT = {"scene0005_00": "mesh and segments are not of the same scan version"}


@pytest.mark.parametrize(
    ("path", "split", "records"),
    [(SCANREFER, "train", 1), (MULTI3DREFER, "train", 1), (SCANQA, "train", 2), (SCANQA, "val", 1)],
)
def test_rows_of_a_left_out_scene_are_listed_counted_and_stop_nothing(
    tmp_path: Path, path: str, split: str, records: int
) -> None:
    path = path.replace("train", split)
    benchmark = path.split("/")[0]
    good = GOOD[path.replace(split, "train")]
    gone = {**good, "scene_id": "scene0005_00"}
    if benchmark == "scanqa":
        gone |= {"answers": ["a", "b"]}
    write_annotations(tmp_path, path, [gone, good])
    options = {"left_out": LEFT_OUT, "max_reject_fraction": 0.0, "on_reject": "fail"}
    kept, summary = run(tmp_path, benchmark, split, **options)
    assert [record.scene for record in kept] == [SCENE]
    assert summary.left_out == {"scene0005_00": records}
    assert (summary.rejected, summary.reasons) == (1, {"scene left out": 1})
    detail = f"scene0005_00: {LEFT_OUT['scene0005_00']}"
    assert reasons(tmp_path, benchmark, split) == [(path, 0, "scene left out", detail)]
    (line,) = rejected(tmp_path, benchmark, split)
    assert set(line) == {"format_version", "file", "row", "reason", "detail"}


def test_a_faulty_row_of_a_left_out_scene_is_still_faulty(tmp_path: Path) -> None:
    gone = {**GOOD[SCANREFER], "scene_id": "scene0005_00", "description": ""}
    write_annotations(tmp_path, SCANREFER, [gone, GOOD[SCANREFER]])
    with pytest.raises(DataError, match="1 row rejected of 2, more than max_reject_fraction 0"):
        run(tmp_path, "scanrefer", "train", left_out=LEFT_OUT, max_reject_fraction=0.0)


def test_captions_of_a_left_out_scene_count_once_an_object(tmp_path: Path) -> None:
    rows = [
        description(1, 0, "a chair", scene_id="scene0005_00"),
        description(1, 1, "the same chair", scene_id="scene0005_00"),
        description(6, 0, "a desk", scene_id="scene0005_00"),
        description(1, 0, "a chair"),
    ]
    write_annotations(tmp_path, "scanrefer/ScanRefer_filtered_val.json", rows)
    records, summary = run(tmp_path, "scan2cap", "val", left_out=LEFT_OUT, max_reject_fraction=0.0)
    assert [record.scene for record in records] == [SCENE]
    assert summary.left_out == {"scene0005_00": 2}
    assert (summary.rejected, summary.reasons) == (3, {"scene left out": 3})


def test_published_file_must_give_the_published_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(rows: int, records: int) -> None:
        sizes = {"train": PublishedSize(rows=rows, records=records)}
        monkeypatch.setitem(TASKS, "scanqa", replace(TASKS["scanqa"], published_sizes=sizes))

    write_annotations(tmp_path, SCANQA, [{**GOOD[SCANQA], "answers": ["a", "b"]}])
    publish(rows=1, records=2)
    assert run(tmp_path, "scanqa", "train")[1].published_records == 2
    publish(rows=7, records=3)
    assert run(tmp_path, "scanqa", "train")[1].published_records is None
    publish(rows=1, records=3)
    with pytest.raises(DataError, match="has the published file's 1 row but gives 2 records"):
        run(tmp_path, "scanqa", "train")


def test_published_training_sizes() -> None:
    sizes = [benchmark.published_sizes["train"].records for benchmark in TASKS.values()]
    assert sizes == [36_665, 43_838, 36_665, 26_515, 79_445]
    assert sum(sizes) == 223_128


def test_annotation_files(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    names = [path.name for path in annotation_files(layout, "sqa3d")]
    assert names == [
        "v1_balanced_questions_train_scannetv2.json",
        "v1_balanced_sqa_annotations_train_scannetv2.json",
        "v1_balanced_questions_test_scannetv2.json",
        "v1_balanced_sqa_annotations_test_scannetv2.json",
    ]
    assert annotation_files(layout, "scan2cap", "val") == [
        tmp_path / "benchmark/scanrefer/ScanRefer_filtered_val.json"
    ]
    assert TASKS["sqa3d"].evaluation_split == "test"


def test_boxes_come_from_the_scans_where_none_are_given(tmp_path: Path) -> None:
    write_annotations(tmp_path, SCANREFER, [description(1, 0, "a")])
    layout, out = DataLayout(root=tmp_path), tmp_path / "out" / "scanrefer_train.jsonl"
    with pytest.raises(DataError, match=r"scans: is not a folder; object boxes come from"):
        convert("scanrefer", "train", layout, None, out)
    scan = layout.scan(SCENE)
    scan.mesh.parent.mkdir(parents=True)
    scan.aggregation.write_text("{}")
    convert("scanrefer", "train", layout, None, out, max_reject_fraction=1.0)
    ((_, row, reason, detail),) = reasons(tmp_path, "scanrefer")
    assert (row, reason) == (0, "scene unreadable")
    assert SCENE in detail


def write_scan(root: Path) -> None:
    """A scan of two cubes, sides 1 m (object 4) and 2 m (object 6), and one proposal: the first."""
    scan = DataLayout(root=root).scan(SCENE)
    scan.mesh.parent.mkdir(parents=True)
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    vertices = np.concatenate([corners, corners * 2 + 5])
    lines = [
        "ply",
        "format ascii 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        "element face 1",
        "property list uchar int vertex_indices",
        "end_header",
        *(" ".join(map(str, vertex)) for vertex in vertices),
        "3 0 1 2",
    ]
    scan.mesh.write_text("\n".join(lines) + "\n")
    scan.segments.write_text(json.dumps({"segIndices": [10] * 8 + [20] * 8}))
    groups = [
        {"objectId": object_id, "label": "chair", "segments": [segment]}
        for object_id, segment in ((4, 10), (6, 20))
    ]
    scan.aggregation.write_text(json.dumps({"segGroups": groups}))
    scan.meta.write_text("axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    scan.proposals.parent.mkdir(parents=True)
    masks = scipy.sparse.csr_matrix(np.repeat([[True, False]], 8, axis=1))
    scipy.sparse.save_npz(scan.proposals, masks)


def test_boxes_of_a_scan(tmp_path: Path) -> None:
    write_scan(tmp_path)
    rows = [description(4, 0, "a"), description(6, 0, "b"), description(1, 0, "c")]
    write_annotations(tmp_path, "scanrefer/ScanRefer_filtered_val.json", rows)
    out = tmp_path / "out" / "scan2cap_val.jsonl"
    layout = DataLayout(root=tmp_path)
    convert("scan2cap", "val", layout, None, out, max_reject_fraction=0.5)
    small, large = read_records(out)
    assert small.box == small.box_input == [0.5, 0.5, 0.5, 1, 1, 1]
    assert (large.box, large.box_input) == ([6, 6, 6, 2, 2, 2], None)
    assert [line[1:3] for line in reasons(tmp_path, "scan2cap", "val")] == [
        (2, "object without a box")
    ]
