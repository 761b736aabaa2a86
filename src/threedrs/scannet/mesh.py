"""A scan's mesh vertices, and which object each vertex belongs to.

Reads the vertices of a ``.ply`` and the two JSON files of ScanNet's annotation: the
over-segmentation (a segment id per vertex) and the aggregation (the segments of each object). Cost:
some tenths of a second a scene, most of it parsing JSON.

Of a ``.ply`` the vertices must come first, and the file must be long enough for all that its header
announces, so that a copy that was cut off is not taken for a small mesh. Faces are not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, ExternalText, read_external_json
from threedrs.io.files import SCENE_NAME

MOST_HEADER = 64 * 2**10  # bytes; ScanNet's have 0.4 kB
FEWEST_CORNERS = 3
_MESH = re.compile(r"_vh_clean.*")  # what follows the scan's name says which mesh and segments
_REMEDY = "copy the file again"
_PAIR_REMEDY = "copy segments and aggregation of the scan's _vh_clean_2 mesh again"
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {  # of a .ply -> numpy's
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1"},
    **{"short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2"},
    **{"int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
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
        raise DataError(f"{path}: the mesh is missing; copy it there")
    try:
        vertices = _read_ply(path)
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path}: holds no vertices that can be read ({error}); {_REMEDY}"
        ) from error
    finite = np.isfinite(vertices).all(axis=1)
    if not finite.all():
        raise DataError(f"{path}: vertex {finite.argmin()} is not finite; {_REMEDY}")
    return vertices


class _Segments(ExternalRow):
    # One fault of some 100,000 is told, so that no others are looked for.
    segments: list[Annotated[int, Field(ge=-(2**63), lt=2**63)]] = Field(
        alias="segIndices", fail_fast=True
    )
    scene: Any = Field(None, alias="sceneId")


class _Group(ExternalRow):
    object_id: int = Field(alias="objectId", ge=0, lt=2**31)
    label: ExternalText
    segments: list[int] = Field(fail_fast=True)


class _Aggregation(ExternalRow):
    groups: list[_Group] = Field(alias="segGroups", fail_fast=True)
    segments_file: Any = Field(None, alias="segmentsFile")
    scene: Any = Field(None, alias="sceneId")


def read_instances(segments: Path, aggregation: Path, vertex_count: int) -> Instances:
    """Return the object of each of ``vertex_count`` vertices.

    A vertex whose segment several objects claim belongs to the last of them in the file.

    Raises:
        DataError: a file is missing or malformed, the segments are of another mesh, or the
            aggregation is of other segments or of another scan.
    """
    stated = read_external_json(segments, _Segments, _REMEDY)
    objects = read_external_json(aggregation, _Aggregation, _REMEDY)
    if len(stated.segments) != vertex_count:
        raise DataError(
            f"{segments}: {len(stated.segments)} segment ids for a mesh of {vertex_count} "
            "vertices; mesh and segments are not of the same scan version"
        )
    object_of_segment: dict[int, int] = {}
    label_of_object: dict[int, str] = {}
    objects_of_segments: dict[frozenset[int], list[int]] = {}
    for group in objects.groups:
        if group.object_id in label_of_object:
            raise DataError(
                f"{aggregation}: objectId {group.object_id} stands more than once; copy the file "
                "again"
            )
        label_of_object[group.object_id] = group.label
        object_of_segment.update(dict.fromkeys(group.segments, group.object_id))
        if group.segments:
            objects_of_segments.setdefault(frozenset(group.segments), []).append(group.object_id)
    notes = _check_pair(segments, stated, aggregation, objects)
    present, vertex_row = np.unique(stated.segments, return_inverse=True)
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
            object_id: same[-1] for same in objects_of_segments.values() for object_id in same[:-1]
        },
        notes=tuple(notes),
    )


def _check_pair(
    segments: Path, stated: _Segments, aggregation: Path, objects: _Aggregation
) -> list[str]:
    """Check that the files name no other scan or mesh, and return notes where they name none.

    ScanNet has one pair a resolution of the mesh, and the files' own names differ by little.
    """
    notes = []
    for path, key, said, own in (
        (aggregation, "segmentsFile", objects.segments_file, segments.name),
        (segments, "sceneId", stated.scene, segments.name),
        (aggregation, "sceneId", objects.scene, aggregation.name),
    ):
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


@dataclass
class _Element:
    """An element of a .ply's header: ``count`` rows of these fields, or longer ones of lists."""

    name: str
    count: int
    fields: list[tuple[str, str]] = field(default_factory=list)  # name ("" in a list), numpy's type

    @property
    def least_bytes(self) -> int:
        return self.count * sum(np.dtype(kind).itemsize for _, kind in self.fields)


def _read_ply(path: Path) -> np.ndarray:
    """Return the vertices, (P,3) f64. Raises ValueError with one clause, or OSError."""
    with path.open("rb") as stream:
        start = stream.read(MOST_HEADER)
        end = re.search(rb"end_header\r?\n", start)
        if not start.startswith(b"ply") or end is None:
            raise ValueError("no ply header")
        encoding, elements = _parse(start[: end.start()].decode("ascii", errors="replace"))
        vertices = elements[0] if elements else _Element("", 0)
        names = [name for name, _ in vertices.fields]
        if vertices.name != "vertex" or "" in names or not {"x", "y", "z"} <= {*names}:
            raise ValueError("the first element is not vertex with x, y and z")
        if not vertices.count:
            raise ValueError("no vertex")
        stream.seek(end.end())
        # The lengths are compared before memory is taken for what a header announces.
        if encoding == "ascii":
            lines = [line for line in stream if line.strip()]
            needed = sum(element.count for element in elements)
            if len(lines) < needed:
                raise ValueError(f"{len(lines)} lines follow the header, it announces {needed}")
            columns = [names.index(axis) for axis in "xyz"]
            return np.loadtxt(lines[: vertices.count], comments=None, usecols=columns, ndmin=2)
        needed, found = sum(e.least_bytes for e in elements), path.stat().st_size - end.end()
        if found < needed:
            raise ValueError(f"{found} bytes follow the header, it announces {needed}")
        rows = [(name, _BYTE_ORDERS[encoding] + kind) for name, kind in vertices.fields]
        table = np.fromfile(stream, np.dtype(rows), vertices.count)
        return np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _parse(header: str) -> tuple[str, list[_Element]]:
    """Return the encoding and the elements, in the order of the file."""
    encoding, elements = "", list[_Element]()
    for line in header.splitlines():
        match line.split():
            case ["format", name, *_]:
                encoding = name
            case ["element", name, count] if count.isdecimal() and len(count) < 16:
                elements.append(_Element(name, int(count)))
            case ["property", "list", counts, values, _] if elements and {counts, values} <= {
                *_TYPES
            }:
                corners = FEWEST_CORNERS if elements[-1].name == "face" else 0
                elements[-1].fields += [("", _TYPES[counts]), *[("", _TYPES[values])] * corners]
            case ["property", kind, name] if kind in _TYPES and elements:
                elements[-1].fields.append((name, _TYPES[kind]))
            case ["ply"] | ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"the header's line {line[:60]!r} is not understood")
    if encoding not in _BYTE_ORDERS:
        raise ValueError(f"format {encoding[:40]!r} is none of {', '.join(_BYTE_ORDERS)}")
    return encoding, elements
