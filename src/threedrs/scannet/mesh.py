"""A scan's mesh vertices, and which object each vertex belongs to.

Reads the ``.ply`` through Open3D and the two JSON files of ScanNet's annotation: the
over-segmentation (a segment id per vertex) and the aggregation (the segments of each object). Cost:
about a second a scene, most of it parsing.

Open3D makes room for as many vertices as the header of a ``.ply`` announces, hands out what it has
of a truncated file, and follows the vertex numbers of a polygon wherever they point. So the header
is compared with the file's size first: vertices must come first, the file must be long enough for
all elements, and a face has three corners at least. Open3D then reads the file as a point cloud,
which has no polygons. The comparison costs a look at the first kilobytes, and for a text file one
pass over its lines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import SCENE_NAME, check_encodable, read_json

MOST_HEADER = 64 * 2**10  # bytes; ScanNet's have 0.4 kB
FEWEST_CORNERS = 3
_MESH = re.compile(r"_vh_clean.*")  # what follows the scan's name says which mesh and segments
_PAIR_REMEDY = "copy segments and aggregation of the scan's _vh_clean_2 mesh again"
FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")
_TYPE_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The annotated objects of a scan."""

    vertex_object: np.ndarray  # (P,) i32, the object id of each vertex; -1: none
    ids: tuple[int, ...]  # object ids, ascending
    labels: tuple[str, ...]  # the raw category of each of ``ids``
    # Object id -> the id of the last object of exactly the same segments, which owns their
    # vertices. ScanNet's scene0217_00 lists each of its objects twice.
    again: Mapping[int, int]
    notes: tuple[str, ...] = ()  # what the user should know of the annotation


def read_vertices(path: Path) -> np.ndarray:
    """Return the mesh's vertices, (P,3) f64, metres, in the scan's own (not aligned) frame.

    Raises:
        DataError: the file is missing, not a mesh, truncated, or holds a non-finite vertex.
    """
    if not path.is_file():
        raise DataError(f"{path}: the mesh is missing")
    try:
        _check_ply(path)
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
        DataError: a file is missing or malformed, the segments are of another mesh, or the
            aggregation is of other segments or of another scan.
    """
    stated, groups = read_json(segments), read_json(aggregation)
    segment_of_vertex = _segment_ids(segments, stated, vertex_count)
    object_of_segment: dict[int, int] = {}
    label_of_object: dict[int, str] = {}
    objects_of_segments: dict[frozenset[int], list[int]] = {}
    for object_id, label, segment_ids in _groups(aggregation, groups):
        if object_id in label_of_object:
            raise DataError(f"{aggregation}: objectId {object_id} stands more than once")
        label_of_object[object_id] = label
        object_of_segment.update(dict.fromkeys(segment_ids, object_id))
        if segment_ids:
            objects_of_segments.setdefault(frozenset(segment_ids), []).append(object_id)
    notes = _check_pair(segments, stated, aggregation, groups)
    present, vertex_row = np.unique(segment_of_vertex, return_inverse=True)
    unknown = sorted(object_of_segment.keys() - set(present.tolist()))
    # Another mesh's segments agree by chance in a few numbers, while a scan may lose a few.
    if 2 * len(unknown) > len(object_of_segment):
        raise DataError(
            f"{aggregation}: {len(unknown)} of {len(object_of_segment)} segments, {unknown[0]} "
            f"first, are of no vertex of {segments.name}; {_PAIR_REMEDY}"
        )
    if unknown:
        notes.append(f"segments of objects that have no vertex: {len(unknown)}")
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
        notes=tuple(notes),
    )


def _check_pair(segments: Path, stated: Any, aggregation: Path, groups: Any) -> list[str]:
    """Check that the files name no other scan or mesh, and return notes where they name none.

    ScanNet has one pair a resolution of the mesh, and the files' own names differ by little.
    """
    notes = []
    for path, content, key, own in (
        (aggregation, groups, "segmentsFile", segments.name),
        (segments, stated, "sceneId", segments.name),
        (aggregation, groups, "sceneId", aggregation.name),
    ):
        said = content.get(key)
        name = str(said or "").rpartition("/")[2]
        # ScanNet's Segmentator writes "/scene0000_00_vh_clean_2" as the scene, and a capture that
        # was renamed for this layout still bears its first name within.
        for pattern in (SCENE_NAME, _MESH) if key == "segmentsFile" else (SCENE_NAME,):
            found, wanted = pattern.search(name), pattern.search(own)
            if found and wanted and found[0] != wanted[0]:
                raise DataError(
                    f"{path}: its {key} is {said!r:.80}, not of {wanted[0]}; {_PAIR_REMEDY}"
                )
        if name and not SCENE_NAME.search(name):
            notes.append(f"{path.name}: its {key} names no scan of ScanNet's form: {said!r:.80}")
    return notes


def _segment_ids(path: Path, content: Any, vertex_count: int) -> np.ndarray:
    segments = content.get("segIndices") if isinstance(content, dict) else None
    if not isinstance(segments, list) or not all(type(segment) is int for segment in segments):
        raise DataError(f"{path}: segIndices is not a list of integers")
    if len(segments) != vertex_count:
        raise DataError(
            f"{path}: {len(segments)} segment ids for a mesh of {vertex_count} vertices; mesh and "
            "segments are not of the same scan version"
        )
    try:
        return np.array(segments, dtype=np.int64)
    except OverflowError as error:
        raise DataError(f"{path}: segIndices holds a number beyond 64 bits") from error


def _groups(path: Path, content: Any) -> list[tuple[int, str, list[int]]]:
    groups = content.get("segGroups") if isinstance(content, dict) else None
    if not isinstance(groups, list):
        raise DataError(f"{path}: segGroups is not a list of objects")
    return [_check_group(path, position, group) for position, group in enumerate(groups)]


def _check_group(path: Path, position: int, group: Any) -> tuple[int, str, list[int]]:
    fields = group if isinstance(group, dict) else {}
    object_id, label, segments = (fields.get(key) for key in ("objectId", "label", "segments"))
    if type(object_id) is not int or not 0 <= object_id < 2**31:
        raise DataError(f"{path}: segGroups[{position}].objectId is not an integer from 0")
    if not isinstance(label, str):
        raise DataError(f"{path}: segGroups[{position}].label is not a string")
    check_encodable(label, f"segGroups[{position}].label", str(path), "copy the file again")
    if not isinstance(segments, list) or not all(type(segment) is int for segment in segments):
        raise DataError(f"{path}: segGroups[{position}].segments is not a list of integers")
    return object_id, label, segments


class PlyError(ValueError):
    """The file is not a whole mesh: one clause that says why."""


@dataclass
class _Element:
    """An element of the header: ``count`` rows of at least ``row_bytes`` bytes each.

    A row that holds lists may be longer.
    """

    name: str
    count: int
    row_bytes: int = 0
    has_list: bool = False
    scalars: list[str] = field(default_factory=list)


def _check_ply(path: Path) -> None:
    """Check that the file can hold all that its header announces, vertices first.

    Raises:
        PlyError: it cannot, or the header is not that of a mesh.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(MOST_HEADER)
        header, end, _ = start.partition(b"end_header\n")
        if not end:
            header, end, _ = start.partition(b"end_header\r\n")
        if not start.startswith(b"ply") or not end:
            raise PlyError("no ply header")
        encoding, elements = _parse(header)
        body = size - len(header) - len(end)
        if encoding == "ascii":
            stream.seek(len(header) + len(end))
            found = sum(1 for line in stream if line.strip())
            needed, unit = sum(element.count for element in elements), "lines"
        else:
            needed = sum(element.count * element.row_bytes for element in elements)
            found, unit = body, "bytes"
        if found < needed:
            raise PlyError(f"{found} {unit} follow the header, it announces {needed}")


def _parse(header: bytes) -> tuple[str, list[_Element]]:
    encoding, elements = "", list[_Element]()
    for line in header.decode("ascii", errors="replace").splitlines():
        match line.split():
            case ["format", name, *_]:
                encoding = name
            case ["element", name, count] if count.isdecimal() and len(count) < 16:
                elements.append(_Element(name=name, count=int(count)))
            case ["property", "list", counts, values, _] if elements:
                corners = FEWEST_CORNERS if elements[-1].name == "face" else 0
                elements[-1].row_bytes += _type_bytes(counts) + corners * _type_bytes(values)
                elements[-1].has_list = True
            case ["property", kind, name] if elements:
                elements[-1].row_bytes += _type_bytes(kind)
                elements[-1].scalars.append(name)
            case ["ply"] | ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise PlyError(f"the header's line {line[:60]!r} is not understood")
    if encoding not in FORMATS:
        raise PlyError(f"format {encoding[:40]!r} is none of {', '.join(FORMATS)}")
    vertices = elements[0] if elements else _Element(name="", count=0)
    if vertices.name != "vertex" or vertices.has_list or not {"x", "y", "z"} <= {*vertices.scalars}:
        raise PlyError("the first element is not vertex with x, y and z")
    return encoding, elements


def _type_bytes(kind: str) -> int:
    if kind not in _TYPE_BYTES:
        raise PlyError(f"property type {kind[:40]!r} is not known")
    return _TYPE_BYTES[kind]
