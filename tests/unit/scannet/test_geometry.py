"""Nearest resizing, unprojection, patch means and the axis alignment of a scan."""

import math
from pathlib import Path

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.scannet.geometry import (
    axis_alignment,
    coordinate_map,
    nearest_indices,
    patch_means,
    read_axis_alignment,
    resize_depth,
    unproject,
)
from threedrs.scannet.layout import DataLayout

INTRINSIC = np.array([[577.9, 0, 318.9, 0], [0, 578.7, 242.7, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
QUARTER_TURN = "0 -1 0 0.5  1 0 0 -2  0 0 1 0.25  0 0 0 1"


def make_pose(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    pose[:3, 3] = generator.uniform(-3, 3, 3)
    return pose


def make_depth(height: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    depth = generator.integers(300, 9000, (height, width)).astype(np.uint16)
    depth[generator.random((height, width)) < 0.1] = 0
    return depth


def slow_point(u: int, v: int, depth: int, pose: np.ndarray) -> np.ndarray:
    z = depth / 1000
    x = (u - INTRINSIC[0, 2]) * z / INTRINSIC[0, 0]
    y = (v - INTRINSIC[1, 2]) * z / INTRINSIC[1, 1]
    return (pose @ np.array([x, y, z, 1.0]))[:3]


@pytest.mark.parametrize("size", [640, 480, 1296, 968, 384, 200, 1])
def test_nearest_indices_are_floor_of_the_ratio(size: int) -> None:
    expected = [math.floor(target * size / 384) for target in range(384)]
    assert nearest_indices(size).tolist() == expected
    assert max(expected) < size


def test_nearest_indices_by_hand() -> None:
    # 640 / 384 = 5/3, 480 / 384 = 5/4.
    assert nearest_indices(640)[:7].tolist() == [0, 1, 3, 5, 6, 8, 10]
    assert nearest_indices(480)[:6].tolist() == [0, 1, 2, 3, 5, 6]
    assert nearest_indices(640)[-1] == 638


def test_one_pixel_by_hand() -> None:
    intrinsic = np.array([[100.0, 0, 1, 0], [0, 200.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3] = [10, 20, 30]
    depth = np.array([[0, 0, 2000]], dtype=np.uint16)
    points = unproject(depth, intrinsic, pose)
    np.testing.assert_allclose(points[0, 2], [10.02, 20, 32])
    np.testing.assert_array_equal(points[0, 0], [10, 20, 30])  # no measurement: camera centre


def test_unprojection_pixel_by_pixel() -> None:
    depth, pose = make_depth(30, 40), make_pose(1)
    expected = [[slow_point(u, v, int(depth[v, u]), pose) for u in range(40)] for v in range(30)]
    np.testing.assert_allclose(unproject(depth, INTRINSIC, pose), expected, rtol=0, atol=1e-12)


def test_coordinate_map_is_the_full_map_resized() -> None:
    depth, pose = make_depth(480, 640), make_pose(2)
    rows, columns = nearest_indices(480), nearest_indices(640)
    small = resize_depth(depth)
    assert small.dtype == np.uint16
    np.testing.assert_array_equal(small, depth[rows][:, columns])
    found = coordinate_map(small, pose, INTRINSIC, (640, 480))
    full = unproject(depth, INTRINSIC, pose)
    np.testing.assert_array_equal(found, full[rows][:, columns])
    for target_row, target_column in ((0, 0), (1, 2), (200, 301), (383, 383)):
        v, u = target_row * 480 // 384, target_column * 640 // 384
        np.testing.assert_allclose(
            found[target_row, target_column],
            slow_point(u, v, int(depth[v, u]), pose),
            atol=1e-12,
        )


def test_patch_means_against_loops() -> None:
    generator = np.random.default_rng(3)
    coordinates = generator.normal(size=(384, 384, 3))
    valid = generator.random((384, 384)) < 0.4
    valid[27:54, 54:81] = False  # patch (1, 2) has no measurement
    everything, measured = patch_means(coordinates), patch_means(coordinates, valid)
    for row in range(14):
        for column in range(14):
            pixels = [
                (v, u)
                for v in range(27 * row, 27 * row + 27)
                for u in range(27 * column, 27 * column + 27)
            ]
            total = sum(coordinates[pixel] for pixel in pixels)
            np.testing.assert_allclose(everything[row, column], total / 729, atol=1e-12)
            kept = [coordinates[pixel] for pixel in pixels if valid[pixel]] or [total / 729]
            np.testing.assert_allclose(measured[row, column], sum(kept) / len(kept), atol=1e-12)


def test_the_last_six_rows_and_columns_are_in_no_patch() -> None:
    coordinates = np.zeros((384, 384, 3))
    coordinates[378:] = coordinates[:, 378:] = 1e9
    assert not patch_means(coordinates).any()


def write_facts(folder: Path, text: str) -> Path:
    path = folder / "scene0000_00.txt"
    path.write_text(text)
    return path


def test_row_major_matrix_among_other_keys(tmp_path: Path) -> None:
    path = write_facts(
        tmp_path,
        f"axisAlignment = {QUARTER_TURN} \ncolorHeight = 968\nsceneType = Living room = big\n",
    )
    alignment = read_axis_alignment(path)
    assert alignment.dtype == np.float64
    np.testing.assert_array_equal(
        alignment, [[0, -1, 0, 0.5], [1, 0, 0, -2], [0, 0, 1, 0.25], [0, 0, 0, 1]]
    )
    # The point one metre along x turns to y, then moves.
    np.testing.assert_allclose(alignment @ [1, 0, 0, 1], [0.5, -1, 0.25, 1])


def test_absent_key_is_identity(tmp_path: Path) -> None:
    scan = DataLayout(root=tmp_path).scan("scene0000_00")
    scan.meta.parent.mkdir(parents=True)
    scan.meta.write_text("colorHeight = 968\n")
    assert read_axis_alignment(scan.meta) is None
    np.testing.assert_array_equal(axis_alignment(scan), np.eye(4))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1 0 0", "3 numbers, expected 16 .*; restore the file"),
        (QUARTER_TURN.replace("0.25", "up"), "could not convert"),
        (QUARTER_TURN.replace("0.25", "nan"), "not a rigid transform"),
        (QUARTER_TURN.replace("1 0 0 -2", "2 0 0 -2"), "not a rigid transform"),
        (QUARTER_TURN.replace("0 0 0 1", "0 0 0 0"), "not a rigid transform"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1", "not a rigid transform"),
    ],
)
def test_malformed_matrix_is_one_line(tmp_path: Path, value: str, message: str) -> None:
    path = write_facts(tmp_path, f"axisAlignment = {value}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_axis_alignment(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_a_scan_without_mesh_may_lack_the_file(tmp_path: Path) -> None:
    scan = DataLayout(root=tmp_path).scan("scene0000_00")
    np.testing.assert_array_equal(axis_alignment(scan), np.eye(4))
    scan.mesh.parent.mkdir(parents=True)
    scan.mesh.write_bytes(b"ply")
    with pytest.raises(DataError, match=r"scene0000_00\.txt: cannot be read"):
        axis_alignment(scan)
