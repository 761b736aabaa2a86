"""What the rules expand over on a published data folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fixtures.published_files import embodiedscan_entry, save_infos, save_torch, scene_cloud
from fixtures.repository import ROOT
from threedrs.config.load import load_config
from threedrs.demo.write import write_marker
from threedrs.errors import DataError
from threedrs.inputs.required_files import prepared_records
from threedrs.workflow.targets import Targets

TRAIN, BARE, VAL = "scene0000_00", "scene0001_00", "scene0002_00"


def build(root: Path, **sections: dict[str, Any]) -> Targets:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    published = yaml.safe_load((ROOT / "config/published.yaml").read_text())
    for layer in (published, {"data": {"root": str(root)}}, sections):
        for name, keys in layer.items():
            config[name] = config[name] | keys
    return Targets(load_config(config))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published tree with a train scene that has no point cloud, and without scene lists."""
    monkeypatch.chdir(ROOT)
    for split, scene in (("train", TRAIN), ("val", VAL)):
        save_torch(tmp_path / f"scannet/pcd_with_object_aabbs/{split}/{scene}.pth", scene_cloud())
    save_infos(
        tmp_path / "embodiedscan/embodiedscan_infos_train.pkl",
        *(embodiedscan_entry(scene, [0]) for scene in (TRAIN, BARE)),
    )
    save_infos(tmp_path / "embodiedscan/embodiedscan_infos_val.pkl", embodiedscan_entry(VAL, [0]))
    for scene in (TRAIN, BARE, VAL):
        folder = tmp_path / "scannet/posed_images" / scene
        folder.mkdir(parents=True)
        for name in ("intrinsic.txt", "depth_intrinsic.txt"):
            np.savetxt(folder / name, np.eye(4))
    (tmp_path / "scannet/posed_images_3d_feature_vggt").mkdir()
    published = yaml.safe_load((ROOT / "config/published.yaml").read_text())
    arrays = {a for of in published["instructions"]["ready"].values() for a in of.values()}
    for name in (
        *arrays,
        "metadata/scannet_val_pred_box.json",
        "metadata/scannet_train_gt_box.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_scenes_and_records_without_scans_and_lists(root: Path) -> None:
    found = build(root)
    assert found.scenes == {"train": [TRAIN], "val": [VAL]}
    assert found.held_out() == [VAL]
    assert found.infos() == ["results/candidates/train.json", "results/candidates/val.json"]
    assert [path.name for path in found.box_files("train-000")] == [f"{TRAIN}.pth"]
    assert {name: path.name for name, path in found.layout.prepared_boxes("val").items()} == {
        "pred": "scannet_val_pred_box.json"
    }
    array = prepared_records(found.layout, "scanrefer", "train")
    assert array == root / "processed/scanrefer_vg_train_llava_style.json"
    # Frames that are evenly spaced need no voxels.
    assert (found.coverage_files("train-000"), found.selected_frames()) == ([], [])
    assert found.voxels("train-000") == []


def test_a_list_leaves_a_scene_of_the_published_folder_out(root: Path) -> None:
    """What the messages about one bad scene advise (`threedrs.scannet.layout.LEAVE_OUT`)."""
    clouds = root / "scannet/pcd_with_object_aabbs/train"
    (clouds / f"{BARE}.pth").hardlink_to(clouds / f"{TRAIN}.pth")
    assert build(root).scenes["train"] == sorted([TRAIN, BARE])
    (root / "scannet/scannetv2_train.txt").write_text(f"{TRAIN}\n")
    assert build(root).scenes == {"train": [TRAIN], "val": [VAL]}


def test_what_coverage_reads(root: Path) -> None:
    (root / "scannet/scannetv2_train.txt").write_text(f"{TRAIN}\n{BARE}\n")
    coverage = {"strategy": "coverage"}
    found = build(root, frames=coverage)
    assert [path.name for path in found.coverage_files("train-000")] == [f"{TRAIN}.pth"]
    assert (found.voxels("train-000"), found.selected_frames()) == ([], [])
    for name in ("pcd_discrete_0.1.pkl", "scannet_select_frames.json"):
        (root / "metadata" / name).touch()
    found = build(root, frames=coverage)
    assert found.voxels("train-000") == ["results/voxels.npz"]
    assert found.voxels("val-000") == []
    assert found.selected_frames() == [root / "metadata/scannet_select_frames.json"]


def test_a_table_that_converted_records_need_is_asked_for(root: Path) -> None:
    """ScanRefer's own files without `eval_type` need ScanNet's label table."""
    for split in ("train", "val"):
        (root / f"processed/scanrefer_vg_{split}_llava_style.json").unlink()
        path = root / f"benchmark/scanrefer/ScanRefer_filtered_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]")
    with pytest.raises(DataError, match=r"^\S+scannetv2-labels\.combined\.tsv: missing"):
        build(root)


def test_every_path_of_the_data_may_be_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    data = {
        "demo": None,
        "root": str(tmp_path),
        "scans": "a/scans",
        "posed_images": "a/frames",
        "candidates": "b/{split}.pkl",
        "masks": "c/masks",
        "labels": "d/labels.tsv",
        "splits": "e/{split}.txt",
        "benchmark": "f",
    }
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for source in ("sens", "posed_images"):
        config["data"] |= data | {"source": source}
        config["instructions"]["benchmarks"] = config["eval"]["benchmarks"] = ["scanqa", "scan2cap"]
        needed: list[str] = ["b/train.pkl", "b/val.pkl", "d/labels.tsv"]
        for split, scene in (("train", TRAIN), ("val", VAL)):
            (tmp_path / "e").mkdir(exist_ok=True)
            (tmp_path / f"e/{split}.txt").write_text(f"{scene}\n")
            ends = ("_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json")
            needed += [f"a/scans/{scene}/{scene}{end}" for end in ends]
            needed += [
                f"f/scanqa/ScanQA_v1.0_{split}.json",
                f"f/scanrefer/ScanRefer_filtered_{split}.json",
            ]
            if source == "sens":
                needed.append(f"a/scans/{scene}/{scene}.sens")
            else:
                needed += [f"a/frames/{scene}/{n}intrinsic.txt" for n in ("", "depth_")]
        needed.append(f"c/masks/{VAL}.mask.npz")
        with pytest.raises(DataError) as caught:
            Targets(load_config(config))
        missing = {line.partition(":")[0] for line in str(caught.value).splitlines()}
        assert missing == {str(tmp_path / name) for name in needed}
        for name in needed:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = Targets(load_config(config))
        assert found.scenes == {"train": [TRAIN], "val": [VAL]}
        for name in needed:
            (tmp_path / name).unlink()


def test_generated_rooms_in_the_published_layout_are_known_by_their_mark(root: Path) -> None:
    assert not build(root).generated
    assert build(root).run_config("baseline")["data"]["demo"] is None
    write_marker(root, "published", 3, 7)
    assert build(root).generated
    assert build(root).run_config("baseline")["data"]["demo"]["seed"] == 7
