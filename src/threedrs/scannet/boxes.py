"""Axis-aligned boxes of a scan's objects: from the annotation, a detector, or ready files.

A box is (cx, cy, cz, dx, dy, dz), float32, metres, in the axis-aligned world: centre and size of
the min/max corners of the object's mesh vertices. Cost: one mesh and two JSON files a scene, a
second or so.

A detector's proposals are ``<scene>.mask.npz``, a scipy sparse matrix of objects x vertices. The
file comes from elsewhere and is not trusted: nothing is unpickled, and every index is checked
before scipy's compiled code follows it.

Ready files, ``scannet_{train,val}_{gt,pred}_box.json``, stand in for scans and masks. A file maps
each scene to its boxes, in one of two forms: a list of boxes, whose rows are the object ids; or an
object ``{"boxes": [...], "ids": [...], "labels": [...]}``, labels optional.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from threedrs.errors import DataError, one_line
from threedrs.io.files import check_encodable, check_npz, read_json, read_result, write_json
from threedrs.scannet.excluded_scans import excluded_rows, excluding
from threedrs.scannet.geometry import axis_alignment, has_axis_alignment
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.mesh import read_instances, read_vertices

FORMAT_VERSION = 1
FARTHEST = 1e6  # metres from the origin: no scan reaches so far, and float32 holds it
BOX_SETS = ("gt", "pred")
"""gt: ground truth from the annotated mesh; pred: detector proposals."""
# A scene's proposals, some hundred of them, unpack to some 100 MB; far more is a damaged or hostile
# file. The number counts as well, as a row costs memory whether something is stored in it or not.
MOST_PROPOSAL_BYTES = 4 * 2**30
_MOST_PROPOSALS = 1_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSet:
    """Boxes of one scene.

    Attributes:
        boxes: (N,6) f32 centre + size, metres, axis-aligned world.
        ids: (N,) i32: ScanNet's object id of each row (gt), or the row of the npz (pred).
        labels: the raw category of each row (gt); an empty string (pred: a proposal has none).
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
            a box over it would not fit float32.
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
    """Return the annotated objects' boxes, ordered by object id, and notes on excluded objects.

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
    """Return the boxes of the first ``limit`` proposals, best first, and notes on excluded ones.

    A scan without a proposal file (train scans need none) has no boxes and one note. A mask without
    vertices is excluded with a note; ids keep the rows of the file.

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


def read_proposals(path: Path, vertex_count: int, limit: int) -> list[np.ndarray]:
    """Return the vertex indices, (K,) ascending, of each of the first ``limit`` masks, best first.

    A stored zero is outside the mask, whatever the matrix's dtype.

    Raises:
        DataError: the file is missing, damaged, not such a matrix, or of another mesh.
    """
    try:
        check_npz(path, MOST_PROPOSAL_BYTES)
        matrix = scipy.sparse.load_npz(path)
        if matrix.format not in ("csr", "csc", "coo"):
            raise DataError(
                f"{path}: sparse format {matrix.format!r}, expected csr, csc or coo; save it with "
                "scipy.sparse.save_npz from a csr matrix"
            )
        if matrix.format != "coo":  # scipy checks the indices of coo by itself
            matrix.check_format(full_check=True)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: the proposals are missing") from error
    except Exception as error:  # zip, zlib, npy header, missing arrays, indices, memory
        raise DataError(
            f"{path}: is not a readable scipy sparse .npz ({one_line(error)}); copy it again"
        ) from error
    if matrix.ndim != 2 or matrix.shape[1] != vertex_count:
        raise DataError(
            f"{path}: masks of shape {matrix.shape} for a mesh of {vertex_count} vertices; "
            "proposals and mesh are not of the same scan version"
        )
    if matrix.shape[0] > _MOST_PROPOSALS:
        raise DataError(f"{path}: {matrix.shape[0]} proposals are absurd; copy it again")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{path}: masks of dtype {matrix.dtype}, expected bool or a number")
    rows = matrix.tocsr()[:limit]
    masks = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        stored = rows.indices[start:stop][rows.data[start:stop] != 0]
        masks.append(np.unique(stored).astype(np.int64))
    return masks


def extract_boxes(scans: Sequence[ScanFiles], out: Path) -> None:
    """Write the boxes of ``scans`` as JSON (docs/ARCHITECTURE.md), whole or not at all.

    A scan with a file that is missing, malformed or of another mesh is listed under ``left_out``
    with the reason.

    Raises:
        DataError: a file cannot be read by a fault of the machine.
    """
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    excluded: dict[str, str] = {}
    for scan in scans:
        with excluding(scan.scene, excluded):
            scenes[scan.scene], found = _sets_and_notes(scan)
            notes += [{"scene": scan.scene, "note": note} for note in found]
    rows = {"scenes": scenes, "notes": notes, "left_out": excluded_rows(excluded)}
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
    """Return the boxes that `extract_boxes` or `take_boxes` wrote: scene -> set -> BoxSet.

    Raises:
        DataError: the file is missing, not JSON, or of another format version.
    """
    scenes = read_result(path, FORMAT_VERSION, "scenes")["scenes"]
    return {
        scene: {
            name: BoxSet(
                boxes=np.array(sets[name]["boxes"], dtype=np.float32).reshape(-1, 6),
                ids=np.array(sets[name]["ids"], dtype=np.int32),
                labels=tuple(sets[name]["labels"]),
            )
            for name in BOX_SETS
        }
        for scene, sets in scenes.items()
    }


def take_boxes(scenes: Sequence[str], files: Mapping[str, Path], out: Path) -> None:
    """Write the boxes file of ``scenes`` from ready files, as `extract_boxes` does from scans.

    A scene that a file lacks has no boxes of that set, and a note.

    Args:
        scenes: the shard's scenes.
        files: box set -> its file; a set without a file has no boxes.
        out: the boxes file.

    Raises:
        DataError: a file is missing or malformed; the message names scene and row.
    """
    taken: dict[str, dict[str, Any]] = {scene: {} for scene in scenes}
    notes = []
    for name in BOX_SETS:
        content = read_json(files[name]) if name in files else {}
        if not isinstance(content, dict):
            raise DataError(f"{files[name]}: expected a JSON object, scene to boxes")
        for scene in scenes:
            if scene in content:
                taken[scene][name] = _check_box_set(content[scene], f"{files[name]}: {scene}")
                continue
            taken[scene][name] = {"boxes": [], "ids": [], "labels": []}
            where = files[name].name if name in files else "configured file"
            notes.append({"scene": scene, "note": f"not in {where}: no {name} boxes"})
    write_json(out, {"format_version": FORMAT_VERSION, "scenes": taken, "notes": notes})


def _check_box_set(value: Any, where: str) -> dict[str, Any]:
    """Return a scene's entry of a ready file in the form of a boxes file."""
    fields = {"boxes": value} if isinstance(value, list) else value
    boxes = fields.get("boxes") if isinstance(fields, dict) else None
    if not isinstance(boxes, list):
        raise DataError(f"{where}: expected a list of boxes, or an object with boxes and ids")
    ids = fields.get("ids", list(range(len(boxes))))
    labels = fields.get("labels", [""] * len(boxes))
    if not (isinstance(ids, list) and isinstance(labels, list)):
        raise DataError(f"{where}: boxes, ids and labels must be lists")
    if not len(boxes) == len(ids) == len(labels):
        raise DataError(f"{where}: {len(boxes)} boxes, {len(ids)} ids and {len(labels)} labels")
    for row, (box, object_id, label) in enumerate(zip(boxes, ids, labels, strict=True)):
        if not _is_box(box):
            raise DataError(
                f"{where}: boxes[{row}] is not 6 finite numbers with sizes from 0, in metres"
            )
        if type(object_id) is not int or not 0 <= object_id < 2**31 or not isinstance(label, str):
            raise DataError(f"{where}: row {row} needs an integer as id and a string as label")
        check_encodable(label, f"label {row}", where, "mend the label")
    if len(set(ids)) != len(ids):
        raise DataError(f"{where}: an id stands more than once")
    return {"boxes": boxes, "ids": ids, "labels": labels}


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
