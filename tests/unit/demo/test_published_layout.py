"""The published form of the demo data against the scans that it was made from."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import threedrs.demo.published_layout as published_layout_module
from fixtures.published_files import published_layout
from fixtures.scan_files import build_scene
from threedrs.demo.published_layout import (
    _files_to_keep,
    _link_or_copy,
    _write_features,
    publish,
    published_files,
    write_published_demo,
)
from threedrs.demo.write import write_demo, write_marker
from threedrs.errors import DataError
from threedrs.scannet.boxes import BoxSet, extract_boxes, read_boxes_file
from threedrs.scannet.embodiedscan import read_infos
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.sens import SensReader
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.published_lists import PublishedLists, read_selected_frames
from threedrs.tasks.registry import TASKS
from threedrs.teachers.image_decoding import preprocess_image
from threedrs.teachers.image_extractor import patch_features
from threedrs.teachers.precomputed import read_features
from threedrs.teachers.vggt.extractor import TINY_IMAGES, tiny_model

TRAIN, VAL = "scene0000_00", "scene0001_00"
SETTINGS = SceneSettings(count=3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> DataLayout:
    root = tmp_path_factory.mktemp("demo") / "scans"
    write_demo(root, 2, 5, frames=44, processes=1)
    return DataLayout(root=root)


@pytest.fixture(scope="module")
def published(scans: DataLayout) -> DataLayout:
    out = scans.root.parent / "published"
    said: list[str] = []
    publish(scans.root, out, say=said.append)
    # The command prints one of these every ten seconds.
    assert said[:2] == ["demo: 0 of 2 rooms exported", "demo: 1 of 2 rooms exported"]
    assert said[2] == "demo: writing the records scanrefer train"
    assert len(said) == 2 + sum(len(task.splits) for task in TASKS.values())
    return published_layout(out)


def boxes_of(layout: DataLayout, **prepared: Path) -> dict[str, dict[str, BoxSet]]:
    out = layout.root.parent / "boxes.json"
    extract_boxes([layout.scan(scene) for scene in (TRAIN, VAL)], out, prepared)
    return read_boxes_file(out)


def test_the_tree_holds_no_scan(published: DataLayout) -> None:
    assert sorted(path.name for path in published.root.iterdir()) == [
        "benchmark",
        "embodiedscan",
        "metadata",
        "processed",
        "scannet",
    ]
    assert sorted(path.name for path in (published.root / "scannet").iterdir()) == [
        "mask",
        "pcd_with_object_aabbs",
        "posed_images",
    ]
    assert len([*(published.root / "processed").iterdir()]) == 11
    assert (published.scenes("train"), published.scenes("val")) == ([TRAIN], [VAL])


def test_boxes_are_those_of_the_scans(scans: DataLayout, published: DataLayout) -> None:
    expected = boxes_of(scans)
    metadata = published.root / "metadata"
    prepared = {
        "gt": metadata / "scannet_train_gt_box.json",
        "pred": metadata / "scannet_val_pred_box.json",
    }
    found = boxes_of(published, **prepared)
    for scene, sets in expected.items():
        for name, boxes in sets.items():
            other = found[scene][name]
            np.testing.assert_array_equal(other.ids, boxes.ids)
            # The JSON holds every digit; what the float32 point cloud gives differs in the last.
            exact = (scene, name) in ((TRAIN, "gt"), (VAL, "pred"))
            tolerance = 0 if exact else 1e-6
            np.testing.assert_allclose(other.boxes, boxes.boxes, rtol=0, atol=tolerance)
            assert not any(other.labels)
    assert len(expected[VAL]["gt"]) > 10


def test_point_clouds_are_what_torch_writes(published: DataLayout) -> None:
    path = published.scan(VAL).point_cloud
    assert path is not None
    content = torch.load(path, weights_only=False)
    types = {name: (value.dtype.name, value.shape[1:]) for name, value in content.items()}
    assert types == {
        "xyz": ("float32", (3,)),
        "rgb": ("uint8", (3,)),
        "normal": ("float32", (3,)),
        "sem_labels": ("int8", ()),
        "instance_ids": ("int16", ()),
        "aabb_obj_ids": ("int16", ()),
        "aabb_corner_xyz": ("float32", (8, 3)),
    }
    owned = set(content["instance_ids"].tolist()) - {-1}
    assert owned == set(content["aabb_obj_ids"].tolist())
    assert content["sem_labels"][content["instance_ids"] >= 0].min() >= 0


def test_stores_are_the_same(scans: DataLayout, published: DataLayout, tmp_path: Path) -> None:
    boxes = boxes_of(scans)[TRAIN]
    infos = read_infos(published.root / "embodiedscan/embodiedscan_infos_train.pkl")
    lists = PublishedLists(infos=infos[TRAIN])
    expected = build_scene(scans.scan(TRAIN), boxes, SETTINGS, tmp_path / "a.zarr", "train")
    found = build_scene(published.scan(TRAIN), boxes, SETTINGS, tmp_path / "b.zarr", "train", lists)
    assert found.content_hash() == expected.content_hash()


def test_the_published_choice_is_that_of_coverage(
    scans: DataLayout, published: DataLayout, tmp_path: Path
) -> None:
    boxes = boxes_of(scans)[VAL]
    path = published.root / "metadata/scannet_select_frames.json"
    infos = read_infos(published.root / "embodiedscan/embodiedscan_infos_val.pkl")
    selected = read_selected_frames(path, [VAL])[VAL]
    for strategy in ("coverage", "coverage90"):
        settings = SETTINGS.replace(strategy=strategy)
        frames = []
        for lists in (
            PublishedLists(infos=infos[VAL]),
            PublishedLists(infos=infos[VAL], selected=selected),
        ):
            files = published.scan(VAL)
            store = build_scene(files, boxes, settings, tmp_path / "a.zarr", "val", lists)
            frames.append(store.frame_ids)
        assert frames[0] == frames[1]
    entry = next(row for row in json.loads(path.read_text()) if row["video_id"].endswith(VAL))
    assert sum(entry["voxel_nums"]) == entry["num_select_voxels"] <= entry["num_all_voxels"]


def test_lost_poses_have_their_images(scans: DataLayout, published: DataLayout) -> None:
    folder = published.scan(TRAIN).posed_images
    with SensReader(scans.scan(TRAIN).sens) as reader:
        lost = [frame for frame in range(0, len(reader), 10) if not reader.valid[frame]]
    assert lost
    for frame in lost:
        assert (folder / f"{frame:05d}.txt").read_text().split() == ["-inf"] * 16
        assert (folder / f"{frame:05d}.jpg").stat().st_size > 1000


def test_a_folder_of_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds files that are not a demo of layout published"):
        write_published_demo(tmp_path, 2, 1, say=print)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_older_demo_is_replaced_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short streams, which render in less than half the time.
    monkeypatch.setattr(published_layout_module, "FRAMES", 44)
    monkeypatch.setattr(
        published_layout_module, "write_demo", partial(write_demo, frames=44, processes=1)
    )
    image = "scannet/posed_images/scene0002_00/00040.jpg"  # of the older demo's third room
    write_marker(tmp_path, "published", 3, 1)
    for name in (image, "notes.txt", "captures/desk/00000.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "elsewhere").symlink_to("../elsewhere")
    # What comes while rooms are rendered is kept too.
    write_published_demo(tmp_path, 2, 5, say=lambda line: (tmp_path / "late.txt").touch())
    found = [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_file()]
    names = {path.relative_to(tmp_path).as_posix() for path in found}
    mine = {"notes.txt", "late.txt", "captures/desk/00000.jpg", "elsewhere"}
    assert names == {*published_files(2), "demo.json", *mine}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere").readlink() == Path("../elsewhere")


@pytest.mark.parametrize("name", ["scannet/mask/scene0002_00.mask.npz", "scannet/mask"])
def test_a_file_that_no_demo_wrote_is_not_written_over(tmp_path: Path, name: str) -> None:
    write_marker(tmp_path, "published", 2, 1)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=f"holds {name}, which demo data would replace; move it"):
        write_published_demo(tmp_path, 3, 1, say=print)


@pytest.mark.parametrize("out", [".", "..", "../desk"])
def test_the_working_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    with pytest.raises(DataError, match=r"is or holds the working folder; run this from outside"):
        write_published_demo(Path(out), 2, 1, say=print)


@pytest.mark.parametrize("links", [True, False])
def test_a_users_file_is_linked_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*paths: Path, follow_symlinks: bool) -> None:
        raise PermissionError(1, "Operation not permitted", str(paths[0]))

    if not links:
        monkeypatch.setattr("os.link", refuse)
    mine, kept = tmp_path / "mine", tmp_path / "kept"
    mine.write_text("mine")
    _link_or_copy(mine, kept)
    assert kept.samefile(mine) is links
    assert kept.read_text() == "mine"


def test_what_a_killed_writer_left_is_not_kept(tmp_path: Path) -> None:
    write_marker(tmp_path, "published", 2, 1)
    (tmp_path / ".notes.txt.999999999.tmp").touch()
    (tmp_path / "notes.txt").touch()
    assert _files_to_keep(tmp_path, 2) == [Path("notes.txt")]


def test_features_are_those_of_the_small_teacher_on_the_folders_images(tmp_path: Path) -> None:
    folder = tmp_path / "posed_images" / "scene0000_00"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for frame in (0, 10, 20):
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{frame:05d}.jpg")
    said: list[str] = []
    _write_features(["scene0000_00"], tmp_path, say=said.append)
    assert said == ["demo: 0 of 1 rooms have the teacher's features"]
    file = tmp_path / "posed_images_3d_feature_vggt/scene0000_00/vggt.npz"
    with np.load(file) as archive:
        assert archive["feature"].shape == (1, 8, 5 + 12 * 16, 768)
        assert archive["feature"].dtype == np.float32
    found = read_features(file)
    # linspace(0, 2, 8) truncated: 0 0 0 0 1 1 1 2
    images = [preprocess_image((folder / f"{f:05d}.jpg").read_bytes(), TINY_IMAGES)
              for f in (0, 0, 0, 0, 10, 10, 10, 20)]  # fmt: skip
    with torch.no_grad():
        expected = patch_features(tiny_model(0).eval(), torch.from_numpy(np.stack(images)))
    np.testing.assert_allclose(found.features_VPC, expected.numpy(), rtol=1e-4, atol=1e-5)
