"""The weight-free teacher: hand-computed patches, and a scene store's geometry."""

import math
from pathlib import Path

import numpy as np
import pytest

from fixtures.teacher_scenes import payload
from threedrs.scannet.boxes import BoxSet
from threedrs.scannet.geometry import coordinate_map
from threedrs.scenes.store import SceneContents, write_scene_store
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.weightless import (
    CHANNELS,
    fourier_features,
    frame_descriptors,
    patch_descriptors,
)

INTRINSIC = np.array([[300.0, 0, 192, 0], [0, 300, 192, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def slow_fourier(point: tuple[float, float, float]) -> list[float]:
    values = []
    for coordinate in point:
        for function in (math.sin, math.cos):
            for step in range(8):
                wavelength = 16 / 2**step
                values.append(function(2 * math.pi * coordinate / wavelength) / math.sqrt(24))
    return values


def test_fourier_features_hand_computed() -> None:
    points = np.array([[0.3, -2.0, 1.1], [5.0, 0.0, -0.7]])
    found = fourier_features(points)
    np.testing.assert_allclose(found, [slow_fourier(tuple(p)) for p in points], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)


def test_a_tilted_plane_gives_its_normal_towards_the_camera() -> None:
    random = np.random.default_rng(0)
    normal = np.array([0.6, 0.0, 0.8])
    along = np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0]])
    points = np.array([1.0, 2.0, 3.0]) + random.uniform(-1, 1, (50, 2)) @ along
    depth = random.uniform(1, 2, 50)
    depth[:10] = 0  # no measurement: such pixels stand far away
    points[:10] = 99.0
    for camera, sign in (([1.0, 2.0, 9.0], 1), ([1.0, 2.0, -9.0], -1)):
        found = patch_descriptors(points[None], depth[None], np.array(camera))[0]
        np.testing.assert_allclose(found[48:51], sign * normal, atol=1e-9)
        spread = depth[10:].std()
        assert found[51] == pytest.approx(spread / (spread + 0.1))
        np.testing.assert_allclose(found[:48], slow_fourier(tuple(points[10:].mean(axis=0))))
        assert found[52] == 0


@pytest.mark.parametrize("measured", [0, 2])
def test_a_patch_without_depth_says_so_and_nothing_else(measured: int) -> None:
    depth = np.zeros((1, 9))
    depth[0, :measured] = 1.5
    found = patch_descriptors(np.ones((1, 9, 3)), depth, np.zeros(3))[0]
    assert found[52] == 1
    assert np.count_nonzero(found) == 1


@pytest.mark.parametrize("rows", [14, 27])
def test_frames_are_cut_into_the_students_patches(rows: int) -> None:
    random = np.random.default_rng(1)
    depth = random.integers(500, 4000, (384, 384)).astype(np.uint16)
    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    points = coordinate_map(depth, pose, INTRINSIC, (384, 384))
    found = frame_descriptors(points, depth, pose[:3, 3], rows)
    assert found.shape == (rows, rows, CHANNELS)
    patch, row, column = 378 // rows, 5, rows - 1
    cut = np.s_[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
    single = patch_descriptors(
        points[cut].reshape(1, -1, 3), depth[cut].reshape(1, -1) / 1000, pose[:3, 3]
    )
    np.testing.assert_allclose(found[row, column], single[0], atol=1e-9)


def test_a_scene_store_gives_finite_features_that_follow_the_geometry(tmp_path: Path) -> None:
    none = BoxSet(boxes=np.zeros((0, 6), np.float32), ids=np.zeros(0, np.int32), labels=())
    masks = np.zeros((0, 2, 27, 27), bool), np.zeros((0, 2, 14, 14), bool)
    depth = np.full((2, 384, 384), 2000, np.uint16)
    depth[1, :, 200:] = 0
    contents = SceneContents(
        rgb=np.zeros((2, 384, 384, 3), np.uint8),
        jpegs=[payload(0), payload(1)],
        depth=depth,
        poses=np.tile(np.eye(4), (2, 1, 1)),
        depth_intrinsic=INTRINSIC,
        depth_size=(384, 384),
        patch_xyz=np.zeros((2, 14, 14, 3), np.float32),
        boxes={"gt": none, "pred": none},
        masks={"gt": masks, "pred": masks},
        attributes={
            "scene": "scene0000_00",
            "split": "train",
            "frame_ids": [0, 10],
            "invalid_depth": "reference",
        },
    )
    write_scene_store(tmp_path / "scene0000_00.zarr", contents)
    out = tmp_path / "pointmap" / "train-000.zarr"
    manifest = extract_shard(
        [tmp_path / "scene0000_00.zarr"], TeacherSettings(name="pointmap"), out
    )
    assert manifest["channels"] == CHANNELS == 53
    assert verify_store(out) == []
    found = FeatureStore.open(out).features("scene0000_00").astype(np.float32)
    assert found.shape == (2, 14, 14, 53)
    np.testing.assert_allclose(found[0, ..., 48:51], np.tile([0, 0, -1], (14, 14, 1)), atol=1e-3)
    assert (found[0, ..., 51:] == 0).all()
    assert found[1, :, 8:, 52].all()
    assert not found[1, :, :7, 52].any()
    norm = np.linalg.norm(found[0], axis=-1)
    np.testing.assert_allclose(norm, math.sqrt(2), rtol=1e-2)
