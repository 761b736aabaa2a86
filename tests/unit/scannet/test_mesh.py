import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from threedrs.errors import DataError
from threedrs.scannet.mesh import _Segments, read_instances, read_vertices

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
    with pytest.raises(DataError, match=r"absent\.ply: the mesh is missing; copy it there"):
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


def test_a_text_mesh_whose_vertices_are_commented_out_is_refused(tmp_path: Path) -> None:
    header = "ply\nformat ascii 1.0\nelement vertex 2\n"
    header += "property float x\nproperty float y\nproperty float z\nend_header\n"
    for lines in ("# 1 2 3\n# 4 5 6\n", "1 2 3\n#4 5 6\n"):
        (tmp_path / "mesh.ply").write_text(header + lines)
        with pytest.raises(DataError, match=r"mesh\.ply: holds no vertices that can be read"):
            read_vertices(tmp_path / "mesh.ply")


def test_segments_with_a_fault_each_are_told_by_the_first(tmp_path: Path) -> None:
    files = write_annotation(tmp_path, ["x"] * 9, [])
    with pytest.raises(ValidationError) as caught:
        _Segments(segIndices=["x"] * 9)
    assert caught.value.error_count() == 1
    with pytest.raises(DataError, match=r"segIndices\.0: 'x' is not of type 'integer'"):
        read_instances(*files, 9)


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


LOW = "scene0000_00_vh_clean_2.0.010000.segs.json"


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, None),
        ({"segmentsFile": f"scannet.{LOW}", "sceneId": "scannet.scene0000_00"}, None),
        ({"segmentsFile": f"data/{LOW}", "sceneId": "scene0000_00"}, None),
        (
            {"segmentsFile": "scannet.scene0000_00_vh_clean.segs.json"},
            "segmentsFile is 'scannet.sce",
        ),
        ({"segmentsFile": LOW.replace("0_00", "0_01")}, "its segmentsFile is"),
        ({"sceneId": "scannet.scene0000_01"}, "its sceneId is 'scannet.scene0000_01'"),
    ],
)
@pytest.mark.parametrize("other_scan_in_segments", [False, True])
def test_segments_and_aggregation_name_each_other(
    tmp_path: Path, stated: dict[str, Any], message: str | None, other_scan_in_segments: bool
) -> None:
    segments, aggregation = tmp_path / LOW, tmp_path / "scene0000_00.aggregation.json"
    scene = "scene0007_00" if other_scan_in_segments else "scene0000_00"
    segments.write_text(json.dumps({"segIndices": [4, 4, 9], "sceneId": scene}))
    groups = [group(0, "chair", [4])]
    aggregation.write_text(json.dumps({"segGroups": groups, **stated}))
    if other_scan_in_segments and "sceneId" in (message or "sceneId"):
        message = "segs.json: its sceneId is 'scene0007_00'"
    if message is None:
        assert read_instances(segments, aggregation, 3).vertex_object.tolist() == [0, 0, -1]
        return
    with pytest.raises(DataError, match=message) as caught:
        read_instances(segments, aggregation, 3)
    assert "copy segments and aggregation of the scan's _vh_clean_2 mesh again" in str(caught.value)


@pytest.mark.parametrize(
    ("of_segments", "of_aggregation", "noted"),
    [
        # ScanNet's Segmentator: what follows the last slash of the typed name, with the slash.
        ({"sceneId": "/scene0000_00_vh_clean_2"}, {}, []),
        ({"sceneId": "scene0000_00_vh_clean_2"}, {"segmentsFile": ""}, []),
        # An own capture that was renamed to ScanNet's layout.
        (
            {"sceneId": "/room1_vh_clean_2"},
            {"segmentsFile": "room1_vh_clean_2.0.010000.segs.json", "sceneId": "room1"},
            [
                "scene0000_00.aggregation.json: its segmentsFile names no scan",
                f"{LOW}: its sceneId names no scan",
                "scene0000_00.aggregation.json: its sceneId names no scan",
            ],
        ),
        (
            {},
            {"segmentsFile": 7},
            ["scene0000_00.aggregation.json: its segmentsFile names no scan of ScanNet's form: 7"],
        ),
        ({"sceneId": "/scene0000_01_vh_clean_2"}, {}, None),
        ({}, {"segmentsFile": "room1_vh_clean.segs.json"}, None),
        ({}, {"segmentsFile": LOW.replace("010000", "020000")}, None),
    ],
)
def test_what_other_tools_write_as_names(
    tmp_path: Path,
    of_segments: dict[str, Any],
    of_aggregation: dict[str, Any],
    noted: list[str] | None,
) -> None:
    segments, aggregation = tmp_path / LOW, tmp_path / "scene0000_00.aggregation.json"
    segments.write_text(json.dumps({"segIndices": [4, 4, 9], **of_segments}))
    aggregation.write_text(json.dumps({"segGroups": [group(0, "chair", [4])], **of_aggregation}))
    if noted is None:
        with pytest.raises(DataError, match="copy segments and aggregation"):
            read_instances(segments, aggregation, 3)
        return
    instances = read_instances(segments, aggregation, 3)
    assert instances.vertex_object.tolist() == [0, 0, -1]
    assert len(instances.notes) == len(noted)
    assert all(map(str.startswith, instances.notes, noted))


def test_segments_of_another_mesh_are_refused_and_few_lost_ones_noted(tmp_path: Path) -> None:
    pair = write_annotation(tmp_path, [4, 4, 9], [group(0, "a", [4, 40]), group(1, "b", [9, 4])])
    assert read_instances(*pair, 3).notes == ("segments of objects that have no vertex: 1",)
    pair = write_annotation(tmp_path, [4, 4, 9], [group(0, "a", [4, 40]), group(1, "b", [50])])
    with pytest.raises(DataError, match=r"2 of 3 segments, 40 first, are of no vertex"):
        read_instances(*pair, 3)


@pytest.mark.parametrize(
    ("segments", "groups", "message"),
    [
        ([1, 2], [], "2 segment ids for a mesh of 3 vertices"),
        ([1, 2, "3"], [], "segIndices.2: '3' is not of type 'integer'"),
        ([1, 2, True], [], "segIndices.2: True is not of type 'integer'"),
        (None, [], "segIndices: None is not of type 'array'"),
        ([1, 2, 2**70], [], "segIndices.2: .* the maximum of 9.2"),
        ([1, 2, 3], {"a": 1}, "segGroups: {'a': 1} is not of type 'array'"),
        ([1, 2, 3], ["chair"], "segGroups.0: 'chair' is not of type 'object'"),
        ([1, 2, 3], [group(-1, "a", [])], "segGroups.0.objectId: -1 is less than the minimum"),
        ([1, 2, 3], [group(1, None, [])], "segGroups.0.label: None is not of type 'string'"),
        ([1, 2, 3], [group(1, "\ud800", [])], "segGroups.0.label: holds half a surrogate"),
        ([1, 2, 3], [group(1, "a", [1.5])], "segGroups.0.segments.0: 1.5 is not of type 'integer'"),
        (
            [1, 2, 3],
            [group(1, "a", [1]), group(1, "b", [2])],
            "objectId 1 .*; copy the file",
        ),
    ],
)
def test_malformed_annotation_is_named(
    tmp_path: Path, segments: Any, groups: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_instances(*write_annotation(tmp_path, segments, groups), 3)
    assert str(tmp_path) in str(caught.value)
