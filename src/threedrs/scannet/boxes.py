"""Axis-aligned boxes of a scan's objects: from the annotation, and from a detector's proposals.

A box is (cx, cy, cz, dx, dy, dz), float32, metres, in the axis-aligned world: centre and size of
the min/max corners of the object's mesh vertices. Cost: one mesh and two JSON files a scene, a
second or so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import check_scene_name, read_json, write_json
from threedrs.scannet.axis_alignment import axis_alignment, has_axis_alignment
from threedrs.scannet.excluded_scans import leaving_out, left_out_rows
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.mesh import read_instances, read_vertices
from threedrs.scannet.proposals import read_proposals

FORMAT_VERSION = 1
FARTHEST = 1e6  # metres from the origin: no scan reaches so far, and float32 holds it
BOX_SETS = ("gt", "pred")
"""gt: ground truth from the annotated mesh; pred: detector proposals."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSet:
    """Boxes of one scene.

    Attributes:
        boxes: (N,6) f32 centre + size, metres, axis-aligned world.
        ids: (N,) i32: ScanNet's object id of each row (gt), or the row of the npz (pred).
        labels: the raw category of each row (gt); empty text (pred: a proposal has none).
    """

    boxes: np.ndarray
    ids: np.ndarray
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def empty(cls) -> "BoxSet":
        """Return a set of no boxes."""
        return make_box_set([])


def make_box_set(rows: Sequence[tuple[np.ndarray, int, str]]) -> BoxSet:
    """Return the BoxSet of ``rows``: ((6,) box, id, label) each."""
    return BoxSet(
        boxes=np.array([box for box, _, _ in rows], dtype=np.float32).reshape(-1, 6),
        ids=np.array([object_id for _, object_id, _ in rows], dtype=np.int32),
        labels=tuple(label for _, _, label in rows),
    )


def box_iou_NM(boxes_N6: np.ndarray, boxes_M6: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of centre + size boxes, (N,M) f64.

    The union's volume has 1e-8 m^3 added, so that two boxes of no volume give 0.
    """
    first_N16, second_1M6 = (
        boxes_N6.astype(np.float64)[:, None],
        boxes_M6.astype(np.float64)[None],
    )
    lower_NM3 = np.maximum(
        first_N16[..., :3] - first_N16[..., 3:] / 2, second_1M6[..., :3] - second_1M6[..., 3:] / 2
    )
    upper_NM3 = np.minimum(
        first_N16[..., :3] + first_N16[..., 3:] / 2, second_1M6[..., :3] + second_1M6[..., 3:] / 2
    )
    shared_NM = np.clip(upper_NM3 - lower_NM3, 0.0, None).prod(axis=-1)
    union_NM = first_N16[..., 3:].prod(axis=-1) + second_1M6[..., 3:].prod(axis=-1) - shared_NM
    return shared_NM / (union_NM + 1e-8)


def aligned_vertices(scan: ScanFiles) -> np.ndarray:
    """Return the scan's mesh vertices in the axis-aligned world, (P,3) f64, metres.

    Raises:
        DataError: mesh or axis alignment is missing or malformed, or a vertex lies so far out that
            a box over it would be none (`read_boxes_file`).
    """
    alignment = axis_alignment(scan)
    vertices_P3 = read_vertices(scan.mesh) @ alignment[:3, :3].T + alignment[:3, 3]
    most = FARTHEST / 2  # a box from one end to the other has FARTHEST as its size
    far = np.flatnonzero((np.abs(vertices_P3) > most).any(axis=1))
    if len(far):
        raise DataError(
            f"{scan.mesh}: vertex {far[0]} lies more than {most:g} m from the origin of the "
            f"axis-aligned world; copy the file and {scan.meta.name} again"
        )
    return vertices_P3


def ground_truth_boxes(
    scan: ScanFiles, vertices_P3: np.ndarray | None = None
) -> tuple[BoxSet, list[str]]:
    """Return the annotated objects' boxes, ordered by object id, and notes on objects left out.

    A scan without annotation (ScanNet's test scans, or the user's own captures) has no boxes and
    one note. An object that owns no vertex has no box and one note; but if a later object of the
    file has exactly its segments, it has that object's box, and all such objects one note.

    Args:
        scan: the scan's files.
        vertices_P3: `aligned_vertices` of the scan, if read already.

    Raises:
        DataError: a file is malformed, or one is missing although others of the scan are there.
    """
    if not scan.segments.exists() and not scan.aggregation.exists():
        return BoxSet.empty(), ["no annotation (segments and aggregation): no gt boxes"]
    vertices_P3 = aligned_vertices(scan) if vertices_P3 is None else vertices_P3
    instances = read_instances(scan.segments, scan.aggregation, len(vertices_P3))
    rows, notes = [], []
    # One sort finds all objects' vertices; a scene has some 100,000 vertices and 50 objects.
    order = np.argsort(instances.vertex_object, kind="stable")
    ordered = instances.vertex_object[order]
    for object_id, label in zip(instances.ids, instances.labels, strict=True):
        owner = instances.again.get(object_id, object_id)
        start, stop = np.searchsorted(ordered, [owner, owner + 1])
        if start == stop:
            notes.append(f"object {object_id} ({label}) owns no vertex: no gt box")
        else:
            rows.append((_bounding_box(vertices_P3[order[start:stop]]), object_id, label))
    if instances.again:
        notes.append(
            f"{len(instances.again)} objects stand once more under another id: one box each"
        )
    if instances.ids != tuple(range(len(instances.ids))):
        last = instances.ids[-1]
        notes.append(f"object ids are not 0..{len(instances.ids) - 1} (last: {last}): kept as ids")
    return make_box_set(rows), notes


def detector_boxes(
    scan: ScanFiles, limit: int = 50, vertices_P3: np.ndarray | None = None
) -> tuple[BoxSet, list[str]]:
    """Return the boxes of the first ``limit`` proposals, best first, and notes on those left out.

    A scan without a proposal file (train scans need none) has no boxes and one note. A mask without
    vertices is left out with a note; ids keep the rows of the file.

    Raises:
        DataError: a file is malformed, or proposals and mesh do not belong together.
    """
    if not scan.proposals.exists():
        return BoxSet.empty(), [f"no proposals ({scan.proposals.name}): no pred boxes"]
    vertices_P3 = aligned_vertices(scan) if vertices_P3 is None else vertices_P3
    rows, notes = [], []
    for row, mask in enumerate(read_proposals(scan.proposals, len(vertices_P3), limit)):
        if len(mask) == 0:
            notes.append(f"proposal {row} masks no vertex: left out")
        else:
            rows.append((_bounding_box(vertices_P3[mask]), row, ""))
    return make_box_set(rows), notes


def extract_boxes(scans: Sequence[ScanFiles], out: Path) -> None:
    """Write the boxes of ``scans`` as JSON (docs/ARCHITECTURE.md), whole or not at all.

    A scan with a file that is missing, malformed or of another mesh is listed under ``left_out``
    with the reason.

    Raises:
        DataError: a file cannot be read by a fault of the machine.
    """
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    left_out: dict[str, str] = {}
    for scan in scans:
        with leaving_out(scan.scene, left_out):
            scenes[scan.scene], found = _sets_and_notes(scan)
            notes += [{"scene": scan.scene, "note": note} for note in found]
    rows = {"scenes": scenes, "notes": notes, "left_out": left_out_rows(left_out)}
    write_json(out, {"format_version": FORMAT_VERSION, **rows})


def _sets_and_notes(scan: ScanFiles) -> tuple[dict[str, Any], list[str]]:
    """Return a scan's box sets as JSON values, and its notes."""
    needs_mesh = any(path.exists() for path in (scan.segments, scan.aggregation, scan.proposals))
    vertices_P3 = aligned_vertices(scan) if needs_mesh else None
    sets: dict[str, Any] = {}
    notes = []
    if scan.meta.exists() and not has_axis_alignment(scan.meta):
        notes.append(f"no axisAlignment in {scan.meta.name}: the scan's own frame is the world")
    for name, (boxes, without_box) in (
        ("gt", ground_truth_boxes(scan, vertices_P3)),
        ("pred", detector_boxes(scan, vertices_P3=vertices_P3)),
    ):
        sets[name] = {
            # str() of a float32 is its shortest text, and reads back to the same float32.
            "boxes": [[float(str(value)) for value in box] for box in boxes.boxes],
            "ids": boxes.ids.tolist(),
            "labels": list(boxes.labels),
        }
        notes += without_box
    return sets, notes


def read_boxes_file(path: Path) -> dict[str, dict[str, BoxSet]]:
    """Return the boxes that `extract_boxes` wrote: scene -> set (``gt``, ``pred``) -> BoxSet.

    Raises:
        DataError: the file is missing, malformed, or of another format version.
    """
    content = read_json(path)
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise DataError(
            f"{path}: boxes file of format version {found!r}, expected {FORMAT_VERSION}; "
            "delete it and run `snakemake --cores all scenes`"
        )
    scenes = content.get("scenes")
    if not isinstance(scenes, dict):
        raise DataError(f"{path}: scenes is not a table of scenes")
    return {
        check_scene_name(scene, str(path)): {
            name: _parse_box_set(sets, name, f"{path}: {scene}: {name}") for name in BOX_SETS
        }
        for scene, sets in scenes.items()
    }


def _parse_box_set(sets: Any, name: str, where: str) -> BoxSet:
    fields = sets.get(name) if isinstance(sets, dict) else None
    if not isinstance(fields, dict):
        raise DataError(f"{where}: the box set is missing")
    boxes, ids, labels = (fields.get(key) for key in ("boxes", "ids", "labels"))
    if not (isinstance(boxes, list) and isinstance(ids, list) and isinstance(labels, list)):
        raise DataError(f"{where}: boxes, ids and labels must be lists")
    if not len(boxes) == len(ids) == len(labels):
        raise DataError(f"{where}: {len(boxes)} boxes, {len(ids)} ids and {len(labels)} labels")
    for row, (box, object_id, label) in enumerate(zip(boxes, ids, labels, strict=True)):
        if not _is_box(box):
            raise DataError(
                f"{where}: boxes[{row}] is not 6 finite numbers with sizes from 0, in metres"
            )
        if type(object_id) is not int or not 0 <= object_id < 2**31 or not isinstance(label, str):
            raise DataError(f"{where}: row {row} needs a whole number as id and a text as label")
    if len(set(ids)) != len(ids):
        raise DataError(f"{where}: an id stands more than once")
    return make_box_set(list(zip(boxes, ids, labels, strict=True)))


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 6
        and all(type(value) in (int, float) and abs(value) <= FARTHEST for value in box)
        and all(size >= 0 for size in box[3:])
    )


def _bounding_box(vertices_K3: np.ndarray) -> np.ndarray:
    """Return the (6,) centre and size of the vertices' min/max corners."""
    lower, upper = vertices_K3.min(axis=0), vertices_K3.max(axis=0)
    return np.concatenate([(lower + upper) / 2, upper - lower])
