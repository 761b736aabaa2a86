"""A real camera path through a furnished room, from images to a scene store."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from fixtures.real_data import SHIPPED
from fixtures.scan_files import build_scene
from threedrs.scannet.boxes import make_box_set
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.rgbd_frames import import_rgbd
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.store import SceneStore
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.known_teachers import teacher_settings

LIVING_ROOM = SHIPPED / "livingroom1"
INTRINSIC = (525.0, 525.0, 319.5, 239.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("livingroom")


@pytest.fixture(scope="module")
def room(folder: Path) -> SceneStore:
    layout = DataLayout(root=folder / "data")
    scan = layout.scan("scene0000_00")
    scan.sens.parent.mkdir(parents=True)
    import_rgbd(LIVING_ROOM, scan.sens, intrinsic=INTRINSIC)
    settings = SceneSettings(stride=1, count=12)
    boxes = {"gt": make_box_set(), "pred": make_box_set()}
    return build_scene(scan, boxes, settings, folder / "scene0000_00.zarr", "val")


def test_images_and_depth_come_through(room: SceneStore) -> None:
    assert len(room.frame_ids) == 12
    assert room.frame_ids == sorted(set(room.frame_ids))
    for row in (0, 11):
        name = f"{room.frame_ids[row]:05d}"
        assert room.jpegs()[row] == (LIVING_ROOM / "image" / f"{name}.jpg").read_bytes()
        with Image.open(LIVING_ROOM / "depth" / f"{name}.png") as image:
            depth = np.asarray(image)
        assert room.depth()[row, 100, 200] == depth[100 * 480 // 384, 200 * 640 // 384]
    assert room.masks("gt")[0].shape == (0, 12, 27, 27)


def test_a_room_that_lies_on_its_side_is_noted(room: SceneStore) -> None:
    assert any("held with -y up" in note for note in room.attributes["notes"])


def test_neighbouring_frames_see_the_same_surfaces(room: SceneStore) -> None:
    clouds = [
        coordinates[depth > 0][::7]
        for coordinates, depth in zip(room.coordinates(), room.depth(), strict=True)
    ]
    for first, second in itertools.pairwise(clouds):
        distances, _ = cKDTree(first).query(second[::5])
        assert np.median(distances) < 0.02


def test_points_reproject_onto_the_neighbour_s_depth(room: SceneStore) -> None:
    fx, fy, cx, cy = INTRINSIC
    coordinates, depths, poses = room.coordinates(), room.depth(), room.poses()
    for row in range(len(poses) - 1):
        points = coordinates[row + 1][depths[row + 1] > 0].astype(np.float64)
        camera = (points - poses[row, :3, 3]) @ poses[row, :3, :3]
        camera = camera[camera[:, 2] > 0.1]
        u = fx * camera[:, 0] / camera[:, 2] + cx
        v = fy * camera[:, 1] / camera[:, 2] + cy
        inside = (u >= 0) & (u < 639) & (v >= 0) & (v < 479)
        column, line = (u[inside] * 384 / 640).astype(int), (v[inside] * 384 / 480).astype(int)
        measured = depths[row, line, column] / 1000
        difference = np.abs(measured - camera[inside, 2])[measured > 0]
        assert inside.mean() > 0.2
        assert np.median(difference) < 0.02


def test_patch_means_lie_on_the_surfaces(room: SceneStore) -> None:
    cloud = room.coordinates()[0][room.depth()[0] > 0]
    distances, _ = cKDTree(cloud).query(room.patch_xyz()[0].reshape(-1, 3))
    assert np.median(distances) < 0.02


def test_a_box_is_seen_where_its_points_are(room: SceneStore, folder: Path) -> None:
    centre = room.patch_xyz()[5, 7, 7]
    box = make_box_set([(np.array([*centre, 0.8, 0.8, 0.8]), 3, "whatever is there")])
    scan = DataLayout(root=folder / "data").scan("scene0000_00")
    store = build_scene(
        scan,
        {"gt": box, "pred": make_box_set()},
        SceneSettings(stride=1, count=12),
        folder / "boxed.zarr",
        "val",
    )
    fine, coarse = store.masks("gt")
    assert coarse[0, 5, 7, 7]
    assert fine[0, 5].sum() > 3
    assert coarse.mean() < 0.5


@pytest.mark.slow
def test_features_follow_the_frames(room: SceneStore, folder: Path) -> None:
    shard = folder / "val-000.zarr"
    settings = teacher_settings({"name": "vggt-tiny", "weights": None, "seed": 0, "grid": 14})
    extract_shard([room.path], settings, shard)
    features = FeatureStore.open(shard)
    features.frames("scene0000_00", room.frame_ids)
    grid = features.features("scene0000_00")
    assert grid.shape == (12, 14, 14, features.channels)
    assert np.isfinite(grid).all()
    assert verify_store(shard) == []
    # Neighbouring frames look alike, and so do their features; frames far apart less so.
    flat = grid.reshape(12, -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    likeness = flat @ flat.T
    assert np.diagonal(likeness, 1).mean() > np.diagonal(likeness, 6).mean()
