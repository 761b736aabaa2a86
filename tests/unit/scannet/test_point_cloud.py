"""Published point clouds, ``.pth``, and the voxels of all of them, ``.pkl``."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixtures.published_files import save_torch, scene_cloud
from threedrs.errors import DataError
from threedrs.scannet.boxes import aligned_vertices, detector_boxes, ground_truth_boxes
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.scannet.point_cloud import read_point_cloud, read_voxels, write_voxels

SCENE = "scene0000_00"


def scan_with(root: Path, content: Any) -> ScanFiles:
    save_torch(root / f"pcd/val/{SCENE}.pth", content)
    return DataLayout(root=root, point_clouds="pcd").scan(SCENE)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_arrays_equal_those_of_torch(tmp_path: Path, legacy: bool, old_numpy: bool) -> None:
    content = scene_cloud(ids=(0, 2, 11))
    content["xyz"] = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    path = tmp_path / "a.pth"
    path.write_bytes(stream.getvalue())
    if old_numpy and legacy:
        path.write_bytes(stream.getvalue().replace(b"numpy._core.", b"numpy.core."))
    elif old_numpy:
        with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w") as new:
            for member in old.namelist():
                data = old.read(member)
                if member.endswith("/data.pkl"):
                    assert b"numpy._core." in data
                    data = data.replace(b"numpy._core.", b"numpy.core.")
                new.writestr(member, data)
    found = read_point_cloud(path)
    expected = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    np.testing.assert_array_equal(found.vertices_P3, expected["xyz"])
    np.testing.assert_array_equal(found.ids_K, expected["aabb_obj_ids"])
    corners_K23 = np.stack([expected["aabb_corner_xyz"].min(1), expected["aabb_corner_xyz"].max(1)])
    np.testing.assert_array_equal(found.corners_K23, corners_K23.transpose(1, 0, 2))


def test_boxes_keep_the_object_ids(tmp_path: Path) -> None:
    ids = (*range(10), *range(11, 31))
    boxes, notes = ground_truth_boxes(scan_with(tmp_path, scene_cloud(ids=ids)))
    assert boxes.ids.tolist() == [*ids]
    np.testing.assert_allclose(boxes.boxes[10], [11, 0, 0, 1, 1, 1])
    assert notes == ["object ids are not 0..29 (last: 30): kept as ids"]


def test_a_scene_without_objects_or_without_annotation(tmp_path: Path) -> None:
    boxes, notes = ground_truth_boxes(scan_with(tmp_path, scene_cloud(ids=())))
    assert (len(boxes), notes) == (0, [])
    boxes, notes = ground_truth_boxes(scan_with(tmp_path, scene_cloud(ids=None)))
    assert (len(boxes), notes) == (0, [f"no annotation in {SCENE}.pth: no gt boxes"])


def test_masks_are_of_its_vertices(tmp_path: Path) -> None:
    import scipy.sparse

    scan = scan_with(tmp_path, scene_cloud(vertices=6))
    scan.proposals.parent.mkdir(parents=True)
    mask = np.zeros((2, 6), np.float32)
    mask[0, [1, 3]] = 1
    mask[1, [0, 5]] = [1, 0.25]
    scipy.sparse.save_npz(scan.proposals, scipy.sparse.csr_matrix(mask))
    boxes, _ = detector_boxes(scan)
    np.testing.assert_allclose(boxes.boxes, [[0.5, 0, 0, 0.5, 0, 0], [0] * 6])
    np.testing.assert_array_equal(aligned_vertices(scan)[:, 0], np.arange(6) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xyz": None}, r"xyz is not an array of shape \(N, 3\)"),
        ({"xyz": np.zeros((4, 2), np.float32)}, r"xyz is not an array of shape \(N, 3\)"),
        ({"xyz": np.zeros((0, 3), np.float32)}, "xyz: no row is a point"),
        ({"xyz": np.float32([[0, 0, 0], [0, np.nan, 0]])}, "xyz: row 1 is not a point"),
        ({"xyz": np.float32([[0, 0, 1e6]])}, "xyz: row 0 is not a point"),
        ({"aabb_obj_ids": np.float32([0, 1])}, "aabb_obj_ids is not a list of integers"),
        ({"aabb_obj_ids": np.int16([2, 0])}, "aabb_obj_ids do not rise"),
        ({"aabb_obj_ids": np.int16([-1, 0])}, "aabb_obj_ids do not rise"),
        ({"aabb_corner_xyz": np.zeros((2, 8, 2))}, r"aabb_corner_xyz is not of shape \(2, 8, 3\)"),
        ({"aabb_corner_xyz": None}, r"aabb_corner_xyz is not of shape \(2, 8, 3\)"),
        ({"aabb_corner_xyz": np.full((2, 8, 3), np.inf)}, "holds a corner beyond 500 km"),
    ],
)
def test_malformed_fields_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = save_torch(tmp_path / "a.pth", scene_cloud() | change)
    with pytest.raises(DataError, match=message) as caught:
        read_point_cloud(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Reduces:
    def __reduce__(self) -> Any:
        return eval, ("open('touched', 'w')",)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "tensor", "code", "other zip", "list"])
def test_foreign_files_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_torch(tmp_path / "a.pth", scene_cloud())
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "hello")
    elif kind in ("empty", "text"):
        path.write_bytes(b"hello" if kind == "text" else b"")
    else:
        content = {"tensor": {"xyz": torch.zeros(2, 3)}, "code": Reduces(), "list": [1]}[kind]
        torch.save(content, path)
    with pytest.raises(DataError) as caught:
        read_point_cloud(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "unpack its archive again (threedrs unpack), or copy the file again" in message
    assert not (tmp_path / "touched").exists()


def test_voxels_of_every_scene(tmp_path: Path) -> None:
    content = {SCENE: [(1, -2, 3), (0, 0, 0)], "scene0001_00": np.array([[7, 8, 9]])}
    path = tmp_path / "pcd_discrete_0.1.pkl"
    path.write_bytes(pickle.dumps(content))
    write_voxels(path, tmp_path / "voxels.npz")
    found = read_voxels(tmp_path / "voxels.npz", SCENE)
    assert found is not None
    assert found.tolist() == [[1, -2, 3], [0, 0, 0]]
    assert read_voxels(tmp_path / "voxels.npz", "scene0002_00") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is not a mapping from scene to voxels"),
        ({"scene0_0": []}, "'scene0_0' is not a scene name"),
        ({SCENE: [(1, 2)]}, f"{SCENE} is not a list of integer triples"),
        ({SCENE: [(1, 2, 0.5)]}, f"{SCENE} is not a list of integer triples"),
        ({SCENE: None}, f"{SCENE} is not a list of integer triples"),
    ],
)
def test_malformed_voxels(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        write_voxels(path, tmp_path / "voxels.npz")
    assert not (tmp_path / "voxels.npz").exists()
