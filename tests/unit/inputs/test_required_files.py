"""What a run needs: scans, or what was prepared or published in their place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.published_files import save_torch
from threedrs.config.load import data_layout
from threedrs.errors import DataError
from threedrs.inputs.required_files import box_needs, missing_inputs, prepared_records
from threedrs.scannet.layout import DataLayout, DataPlaces

TRAIN, VAL = "scene0000_00", "scene0001_00"


def settings(benchmark: str = "scanqa", **more: Any) -> dict[str, Any]:
    """The sections of a configuration that say which files a run needs."""
    return {
        "instructions": {"benchmarks": [benchmark], "ready": more.pop("ready", {})},
        "eval": {"benchmarks": [benchmark]},
        "runs": {"3drs": {}},
        "boxes": {"train": "gt", "eval": "pred", "ready": None, **more},
    }


def layout_of(root: Path, config: dict[str, Any], **places: str) -> DataLayout:
    """The layout of a configuration whose section `data` has these keys."""
    data = DataPlaces(root=root, **places).to_json()
    return data_layout({"download": [], **config, "data": data})


def write_lists(layout: DataLayout) -> None:
    for split, scene in (("train", TRAIN), ("val", VAL)):
        layout.split_file(split).parent.mkdir(parents=True, exist_ok=True)
        layout.split_file(split).write_text(f"{scene}\n")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def said(layout: DataLayout, config: dict[str, Any]) -> list[str]:
    """The missing files, relative to the data root."""
    with pytest.raises(DataError) as error:
        missing_inputs(layout, config)
    lines = str(error.value).splitlines()
    return [Path(line.partition(":")[0]).relative_to(layout.root).as_posix() for line in lines]


def test_the_training_scenes_are_those_of_the_benchmarks_that_are_trained(tmp_path: Path) -> None:
    pattern = "{split}_{benchmark}.json"
    config = settings("scanqa", ready={"train": pattern, "val": pattern})
    config["eval"]["benchmarks"] = ["scanqa", "sqa3d"]
    layout = layout_of(tmp_path, config)
    for number, benchmark in enumerate(["scanqa", "sqa3d"]):
        for split in ("train", "val"):
            row = json.dumps([{"video": f"scannet/scene000{number}_00"}])
            (tmp_path / f"{split}_{benchmark}.json").write_text(row)
    assert layout.scenes("train") == ["scene0000_00"]
    assert layout.scenes("val") == ["scene0000_00", "scene0001_00"]


def test_prepared_files_replace_what_they_stand_for(tmp_path: Path) -> None:
    ready = {"train": "all.json", "val": {"scanqa": "{benchmark}.json"}}
    config = settings(ready=ready)
    config["boxes"]["ready"] = "boxes/{split}_{set}.json"
    layout = layout_of(tmp_path, config)
    write_lists(layout)
    for scene in (TRAIN, VAL):
        touch(layout.scan(scene).sens, layout.scan(scene).meta)
    assert said(layout, config) == ["boxes/train_gt.json", "all.json", "scanqa.json"]
    touch(tmp_path / "boxes" / "train_gt.json")
    touch(tmp_path / "all.json", tmp_path / "scanqa.json")
    missing_inputs(layout, config)
    assert set(layout.prepared_boxes("train")) == {"gt"}
    assert said(DataLayout(root=tmp_path), settings())[-2:] == [
        "benchmark/scanqa/ScanQA_v1.0_train.json",
        "benchmark/scanqa/ScanQA_v1.0_val.json",
    ]


def test_lists_without_a_scene_or_with_the_same_ones(tmp_path: Path) -> None:
    config = settings(ready={"train": "a.json", "val": "a.json"})
    layout = layout_of(tmp_path, config)
    write_lists(layout)
    touch(tmp_path / "a.json")
    for scene in (TRAIN, VAL):
        scan = layout.scan(scene)
        touch(scan.sens, scan.meta, scan.mesh, scan.segments, scan.aggregation, scan.proposals)
    for split, scenes, message in (
        ("train", "", "scannetv2_train.txt: holds no scene"),
        ("train", VAL, "val.txt: scene0001_00 stands in scannetv2_train.txt too"),
    ):
        layout.split_file(split).write_text(f"{scenes}\n")
        with pytest.raises(DataError, match=message):
            missing_inputs(layout, config)


def test_an_array_that_is_missing_is_converted_where_that_is_possible(tmp_path: Path) -> None:
    config = settings(ready={"val": "p/{benchmark}.json"})
    layout = layout_of(tmp_path, config)
    assert prepared_records(layout, "scanqa", "val") == tmp_path / "p/scanqa.json"
    assert prepared_records(layout, "scanqa", "train") is None
    touch(tmp_path / "benchmark/scanqa/ScanQA_v1.0_val.json")
    assert prepared_records(layout, "scanqa", "val") is None
    entry = {"repo": "lab/data", "files": ["scanqa.json"], "to": str(tmp_path / "p")}
    arriving = layout_of(tmp_path, {**config, "download": [entry]})
    assert prepared_records(arriving, "scanqa", "val") == tmp_path / "p/scanqa.json"


def test_a_published_folder_asks_for_no_scan(tmp_path: Path) -> None:
    config = settings("scanrefer")
    config["boxes"]["ready"] = "metadata/{split}_{set}.json"
    layout = layout_of(
        tmp_path,
        config,
        source="posed_images",
        candidates="embodiedscan/infos_{split}.pkl",
        point_clouds="scannet/pcd",
    )
    for split, scene in (("train", TRAIN), ("val", VAL)):
        save_torch(
            tmp_path / f"scannet/pcd/{split}/{scene}.pth", {"xyz": np.zeros((2, 3), np.float32)}
        )
        touch(tmp_path / f"embodiedscan/infos_{split}.pkl")
        folder = tmp_path / f"scannet/posed_images/{scene}"
        touch(folder / "intrinsic.txt", folder / "depth_intrinsic.txt")
    assert layout.scenes("train") == [TRAIN]
    assert layout.scene_list_source("val") == "scannet/pcd/val/"
    # Nothing has the proposals of val, so the first source that is configured is asked for.
    assert said(layout, config) == [
        "metadata/val_pred.json",
        "benchmark/scanrefer/ScanRefer_filtered_train.json",
        "scannet/scannetv2-labels.combined.tsv",
        "benchmark/scanrefer/ScanRefer_filtered_val.json",
    ]
    touch(layout.scan(VAL).proposals)
    for split in ("train", "val"):
        path = tmp_path / f"benchmark/scanrefer/ScanRefer_filtered_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([{"scene_id": TRAIN, "eval_type": "unique"}]))
    missing_inputs(layout, config)
    assert box_needs(layout, config) == {("train", "gt"), ("val", "pred"), ("val", "gt")}


def test_scenes_are_those_that_prepared_files_name(tmp_path: Path) -> None:
    config = settings(ready={"train": "all.json", "test": "none.json"})
    config["boxes"]["ready"] = "{set}.{split}"
    layout = layout_of(tmp_path, config)
    (tmp_path / "gt.train").write_text('{"scannet/scene0003_00": [], "scene0001_00": []}')
    (tmp_path / "all.json").write_text('[{"video": "scannet/scene0002_00"}, {"a": "scene0009_0"}]')
    assert layout.scenes("train") == ["scene0001_00", "scene0002_00", "scene0003_00"]
    assert layout.scene_list_source("train") == "gt.train, all.json"
    assert layout.has_scenes("train")
    assert not layout.has_scenes("val")
    with pytest.raises(DataError, match=r"scannetv2_val\.txt: cannot be read"):
        layout.scenes("val")


def test_without_training_nothing_of_its_split_is_asked_for(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    write_lists(layout)
    evaluated = {**settings(), "runs": {"published": {"checkpoint": "model"}}}
    missing = said(layout, evaluated)
    assert missing
    assert not [path for path in missing if TRAIN in path or "train" in path]


def asked(root: Path, benchmark: str, *, array: bool, trained: bool = False) -> set[str]:
    """Split and set of the boxes that a run of one benchmark needs, as ``val gt``."""
    ready = dict.fromkeys(("train", "val", "test"), "all.json") if array else {}
    config = settings(benchmark, ready=ready)
    if not trained:
        config["runs"] = {"published": {"checkpoint": "model"}}
    return {" ".join(need) for need in box_needs(layout_of(root, config), config)}


@pytest.mark.parametrize(
    ("benchmark", "converted", "prepared"),
    [
        ("scanqa", set(), set()),
        ("sqa3d", set(), set()),
        # Its prepared records hold the detector's box and the captions.
        ("scan2cap", {"val gt", "val pred"}, set()),
        ("scanrefer", {"val gt", "val pred"}, {"val gt", "val pred"}),
        ("multi3drefer", {"val gt", "val pred"}, {"val gt", "val pred"}),
    ],
)
def test_boxes_are_asked_for_where_a_run_needs_them(
    tmp_path: Path, benchmark: str, converted: set[str], prepared: set[str]
) -> None:
    touch(tmp_path / "all.json")
    assert asked(tmp_path, benchmark, array=False) == converted
    assert asked(tmp_path, benchmark, array=True) == prepared
    assert asked(tmp_path, benchmark, array=True, trained=True) == {"train gt"} | prepared


def test_questions_alone_need_frames_but_no_boxes(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    write_lists(layout)
    scan = layout.scan(VAL)
    touch(scan.sens, scan.meta, tmp_path / "benchmark/scanqa/ScanQA_v1.0_val.json")
    missing_inputs(layout, {**settings(), "runs": {"published": {"checkpoint": "model"}}})


def test_true_boxes_of_val_are_asked_for_as_a_point_cloud(tmp_path: Path) -> None:
    config = settings("scanrefer", ready={"val": "all.json"})
    config |= {"runs": {"published": {"checkpoint": "model"}}}
    config["boxes"]["ready"] = "metadata/{split}_{set}.json"
    layout = layout_of(tmp_path, config, point_clouds="scannet/pcd")
    write_lists(layout)
    touch(layout.scan(VAL).sens, layout.scan(VAL).meta, tmp_path / "all.json")
    touch(tmp_path / "metadata/val_pred.json")
    assert said(layout, config) == [f"scannet/pcd/val/{VAL}.pth"]


def test_a_scene_of_two_folders_is_said_to_stand_in_these(tmp_path: Path) -> None:
    config = settings(ready={"train": "all.json", "val": "all.json"})
    layout = layout_of(tmp_path, config, point_clouds="pcd")
    touch(*(tmp_path / f"pcd/{split}/{VAL}.pth" for split in ("train", "val")))
    touch(layout.scan(VAL).sens, layout.scan(VAL).meta, tmp_path / "all.json")
    with pytest.raises(DataError, match=f"^pcd/val/: {VAL} stands in pcd/train/ too"):
        missing_inputs(layout, config)
    (tmp_path / f"pcd/train/{VAL}.pth").unlink()
    with pytest.raises(DataError, match=r"^pcd/train/: holds no scene; copy it again"):
        missing_inputs(layout, {**config, "boxes": {**config["boxes"], "train": "pred"}})
