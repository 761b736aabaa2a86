import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.scannet.mesh import read_instances, read_vertices

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.125, 0.25, 0.5]], dtype=np.float32)


def write_mesh(path: Path, vertices: np.ndarray = VERTICES) -> Path:
    """ScanNet's form: binary little endian, vertex colours, faces of three."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = b"".join(
        np.asarray(vertex, dtype="<f4").tobytes() + b"\x10\x20\x30\xff" for vertex in vertices
    )
    face = b"\x03" + np.array([0, 1, 2], dtype="<i4").tobytes()
    path.write_bytes(header.encode() + body + face)
    return path


def write_annotation(folder: Path, segments: Any, groups: Any) -> tuple[Path, Path]:
    segments_file, aggregation_file = folder / "segs.json", folder / "aggregation.json"
    segments_file.write_text(json.dumps({"segIndices": segments}))
    aggregation_file.write_text(json.dumps({"segGroups": groups}))
    return segments_file, aggregation_file


def group(object_id: Any, label: Any, segments: Any) -> dict[str, Any]:
    return {"id": 0, "objectId": object_id, "label": label, "segments": segments}


def test_vertices_keep_order_and_value(tmp_path: Path) -> None:
    vertices = read_vertices(write_mesh(tmp_path / "mesh.ply"))
    assert vertices.dtype == np.float64
    np.testing.assert_array_equal(vertices, VERTICES)


def test_repeated_vertices_are_not_merged(tmp_path: Path) -> None:
    vertices = np.zeros((5, 3), dtype=np.float32)
    assert len(read_vertices(write_mesh(tmp_path / "mesh.ply", vertices))) == 5


def test_bad_meshes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.ply: the mesh is missing"):
        read_vertices(tmp_path / "absent.ply")
    whole = write_mesh(tmp_path / "mesh.ply").read_bytes()
    for name, content in (("text", b"hello"), ("cut", whole[: len(whole) // 2]), ("empty", b"")):
        path = tmp_path / f"{name}.ply"
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.ply: holds no vertices that can be read"):
            read_vertices(path)
    broken = VERTICES.copy()
    broken[2, 1] = np.nan
    with pytest.raises(DataError, match="vertex 2 is not finite"):
        read_vertices(write_mesh(tmp_path / "nan.ply", broken))


def test_last_object_of_the_file_wins_a_vertex(tmp_path: Path) -> None:
    segments, aggregation = write_annotation(
        tmp_path,
        [70, 70, 5, 9, 5, 1],
        [group(4, "chair", [70, 5]), group(2, "desk", [5, 9]), group(11, "wall", [])],
    )
    instances = read_instances(segments, aggregation, 6)
    assert instances.vertex_object.dtype == np.int32
    assert instances.vertex_object.tolist() == [4, 4, 2, 2, 2, -1]
    assert instances.ids == (2, 4, 11)
    assert instances.labels == ("desk", "chair", "wall")


def test_against_a_loop_over_vertices(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    segment_of_vertex = generator.integers(0, 40, 500).tolist()
    groups = [
        group(int(object_id), "thing", generator.integers(0, 50, 6).tolist())
        for object_id in generator.permutation(12)
    ]
    segments, aggregation = write_annotation(tmp_path, segment_of_vertex, groups)
    expected = []
    for segment in segment_of_vertex:
        owner = -1
        for entry in groups:
            if segment in entry["segments"]:
                owner = entry["objectId"]
        expected.append(owner)
    assert read_instances(segments, aggregation, 500).vertex_object.tolist() == expected


@pytest.mark.parametrize(
    ("segments", "groups", "message"),
    [
        ([1, 2], [], "2 segment ids for a mesh of 3 vertices"),
        ([1, 2, "3"], [], "segIndices is not a list of integers"),
        ([1, 2, True], [], "segIndices is not a list of integers"),
        (None, [], "segIndices is not a list of integers"),
        ([1, 2, 2**70], [], "beyond 64 bits"),
        ([1, 2, 3], {"a": 1}, "segGroups is not a list"),
        ([1, 2, 3], ["chair"], r"segGroups\[0\].objectId is not an integer"),
        ([1, 2, 3], [group(-1, "a", [])], r"segGroups\[0\].objectId is not an integer"),
        ([1, 2, 3], [group(1, None, [])], r"segGroups\[0\].label is not a string"),
        ([1, 2, 3], [group(1, "\ud800", [])], r"segGroups\[0\].label holds half a surrogate"),
        ([1, 2, 3], [group(1, "a", [1.5])], r"segGroups\[0\].segments is not a list"),
        ([1, 2, 3], [group(1, "a", [1]), group(1, "b", [2])], "objectId 1 stands more than once"),
    ],
)
def test_malformed_annotation_is_named(
    tmp_path: Path, segments: Any, groups: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_instances(*write_annotation(tmp_path, segments, groups), 3)
    assert str(tmp_path) in str(caught.value)
