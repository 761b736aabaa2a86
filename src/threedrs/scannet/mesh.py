"""A scan's mesh vertices, and which object each vertex belongs to.

Reads the ``.ply`` through Open3D and the two JSON files of ScanNet's annotation: the
over-segmentation (a segment id per vertex) and the aggregation (the segments of each object). Cost:
about a second a scene, most of it parsing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import check_encodable, read_json
from threedrs.scannet.ply import PlyError, check_ply


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The annotated objects of a scan.

    Attributes:
        vertex_object: (P,) i32, the object id of each vertex; -1: none.
        ids: object ids, ascending.
        labels: the raw category of each of ``ids``.
        again: object id -> the id of the last object of exactly the same segments, which owns their
            vertices. ScanNet's scene0217_00 lists each of its objects twice.
    """

    vertex_object: np.ndarray
    ids: tuple[int, ...]
    labels: tuple[str, ...]
    again: Mapping[int, int]


def read_vertices(path: Path) -> np.ndarray:
    """Return the mesh's vertices, (P,3) f64, metres, in the scan's own (not aligned) frame.

    Raises:
        DataError: the file is missing, not a mesh, truncated, or holds a non-finite vertex.
    """
    if not path.is_file():
        raise DataError(f"{path}: the mesh is missing")
    try:
        check_ply(path)
    except (PlyError, OSError) as error:
        raise DataError(
            f"{path}: holds no vertices that can be read ({error}); copy the file again"
        ) from error
    import open3d

    # Open3D reports a malformed file by a warning on the terminal and an empty cloud. Only the
    # vertices are used, and of a mesh it would follow polygons to vertices that do not exist.
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(path, format="ply")
    vertices = np.asarray(cloud.points, dtype=np.float64)
    if len(vertices) == 0:
        raise DataError(f"{path}: holds no vertices that can be read; copy the file again")
    if not np.isfinite(vertices).all():
        vertex = int(np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0])
        raise DataError(f"{path}: vertex {vertex} is not finite; copy the file again")
    return vertices


def read_instances(segments: Path, aggregation: Path, vertex_count: int) -> Instances:
    """Return the object of each of ``vertex_count`` vertices.

    A vertex whose segment several objects claim belongs to the last of them in the file.

    Raises:
        DataError: a file is missing or malformed, or the segments are of another mesh.
    """
    segment_of_vertex = _read_segments(segments, vertex_count)
    object_of_segment: dict[int, int] = {}
    label_of_object: dict[int, str] = {}
    objects_of_segments: dict[frozenset[int], list[int]] = {}
    for object_id, label, segment_ids in _read_groups(aggregation):
        if object_id in label_of_object:
            raise DataError(f"{aggregation}: objectId {object_id} stands more than once")
        label_of_object[object_id] = label
        object_of_segment.update(dict.fromkeys(segment_ids, object_id))
        if segment_ids:
            objects_of_segments.setdefault(frozenset(segment_ids), []).append(object_id)
    present, vertex_row = np.unique(segment_of_vertex, return_inverse=True)
    object_of_present = np.array(
        [object_of_segment.get(int(segment), -1) for segment in present], dtype=np.int32
    )
    ids = tuple(sorted(label_of_object))
    return Instances(
        vertex_object=object_of_present[vertex_row],
        ids=ids,
        labels=tuple(label_of_object[object_id] for object_id in ids),
        again={
            object_id: objects[-1]
            for objects in objects_of_segments.values()
            for object_id in objects[:-1]
        },
    )


def _read_segments(path: Path, vertex_count: int) -> np.ndarray:
    content = read_json(path)
    segments = content.get("segIndices") if isinstance(content, dict) else None
    if not isinstance(segments, list) or not all(type(segment) is int for segment in segments):
        raise DataError(f"{path}: segIndices is not a list of whole numbers")
    if len(segments) != vertex_count:
        raise DataError(
            f"{path}: {len(segments)} segment ids for a mesh of {vertex_count} vertices; mesh and "
            "segments are not of the same scan version"
        )
    try:
        return np.array(segments, dtype=np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: segIndices holds a number beyond 64 bits") from error


def _read_groups(path: Path) -> list[tuple[int, str, list[int]]]:
    content = read_json(path)
    groups = content.get("segGroups") if isinstance(content, dict) else None
    if not isinstance(groups, list):
        raise DataError(f"{path}: segGroups is not a list of objects")
    return [_check_group(path, position, group) for position, group in enumerate(groups)]


def _check_group(path: Path, position: int, group: Any) -> tuple[int, str, list[int]]:
    fields = group if isinstance(group, dict) else {}
    object_id, label, segments = (fields.get(key) for key in ("objectId", "label", "segments"))
    if type(object_id) is not int or not 0 <= object_id < 2**31:
        raise DataError(f"{path}: segGroups[{position}].objectId is not a whole number from 0")
    if not isinstance(label, str):
        raise DataError(f"{path}: segGroups[{position}].label is not a text")
    check_encodable(label, f"segGroups[{position}].label", str(path), "copy the file again")
    if not isinstance(segments, list) or not all(type(segment) is int for segment in segments):
        raise DataError(f"{path}: segGroups[{position}].segments is not a list of whole numbers")
    return object_id, label, segments
