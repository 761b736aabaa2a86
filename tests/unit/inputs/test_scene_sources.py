"""The table of which source serves what of each scene."""

import json
import re
from pathlib import Path

from fixtures.published_files import save_torch, scene_cloud
from threedrs.inputs.scene_sources import scan_table, start_table
from threedrs.scannet.layout import DataLayout


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_scan(layout: DataLayout, scene: str) -> None:
    scan = layout.scan(scene)
    touch(scan.sens, scan.mesh, scan.segments, scan.aggregation, scan.meta)


def cells(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in table.splitlines()]


def test_scans(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    write_scan(layout, "scene0000_00")
    table = scan_table(layout, {"val": ["scene0000_00", "scene0001_00"]}, 10)
    assert table["splits"]["val"] == {
        "scene0000_00": {
            "frames": ".sens",
            "alignment": ".txt",
            "candidates": "every 10th frame",
            "gt": "mesh",
            "pred": None,
            "coverage": "mesh",
        },
        "scene0001_00": {
            "frames": None,
            "alignment": "none needed",
            "candidates": "every 10th frame",
            "gt": None,
            "pred": None,
            "coverage": None,
        },
    }


def test_the_start_of_a_run_on_scans(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    write_scan(layout, "scene0000_00")
    others = [f"scene{number:04d}_00" for number in range(1, 6)]
    scenes = {"train": ["scene0000_00"], "val": ["scene0000_00", *others]}
    lack = "5 lack it: scene0001_00, scene0002_00, scene0003_00, ..."
    assert cells(start_table(layout, scenes, stride=10, coverage=True)) == [
        ["Where scenes come from", "train (1)", "val (6)"],
        ["scene list", "scannetv2_train.txt", "scannetv2_val.txt"],
        ["frames", ".sens", f".sens: 1; {lack}"],
        ["axis alignment", ".txt", "none needed: 5; .txt: 1"],
        ["candidate frames", "every 10th frame", "every 10th frame"],
        ["gt boxes", "mesh", f"mesh: 1; {lack}"],
        ["detector boxes", "none", "none"],
        ["voxels of coverage", "mesh", f"mesh: 1; {lack}"],
    ]


def test_the_start_of_a_run_on_the_published_folder(tmp_path: Path) -> None:
    layout = DataLayout(
        root=tmp_path,
        source="posed_images",
        candidates="embodiedscan/infos_{split}.pkl",
        point_clouds="scannet/pcd",
        selected_frames="metadata/frames.json",
        boxes={"train": {"gt": "metadata/scannet_train_gt_box.json"}},
        records={"train": {"scanqa": "processed/scanqa.json"}},
    )
    for split, scenes in (("train", ["scene0000_00", "scene0002_00"]), ("val", ["scene0001_00"])):
        for scene in scenes:
            save_torch(tmp_path / f"scannet/pcd/{split}/{scene}.pth", scene_cloud())
            touch(tmp_path / f"scannet/posed_images/{scene}/intrinsic.txt")
    touch(tmp_path / "embodiedscan/infos_train.pkl", layout.scan("scene0001_00").proposals)
    touch(tmp_path / "metadata/frames.json", tmp_path / "processed/scanqa.json")
    touch(tmp_path / "benchmark/scanqa/ScanQA_v1.0_val.json")
    gt = tmp_path / "metadata/scannet_train_gt_box.json"
    gt.write_text(json.dumps({"scannet/scene0000_00": [[0, 0, 0, 1, 1, 1]]}))
    said = start_table(
        layout,
        {split: layout.scenes(split) for split in ("train", "val")},
        stride=10,
        coverage=True,
        records=[("scanqa", "train"), ("scanqa", "val")],
    )
    assert cells(said) == [
        ["Where scenes come from", "train (2)", "val (1)"],
        ["scene list", "scannet/pcd/train/", "scannet/pcd/val/"],
        ["frames", "posed_images", "posed_images"],
        ["axis alignment", "EmbodiedScan", "EmbodiedScan"],
        ["candidate frames", "EmbodiedScan", "EmbodiedScan"],
        ["gt boxes", "scannet_train_gt_box.json: 1; point cloud: 1", "point cloud"],
        ["detector boxes", "none", "mask"],
        ["voxels of coverage", "frames.json", "frames.json"],
        [f"records as prepared in {tmp_path}/processed/: scanqa train"],
        [f"records converted from {tmp_path}/benchmark/: scanqa val"],
        [f"{layout.labels_file}: not there, and not needed for these records"],
    ]
