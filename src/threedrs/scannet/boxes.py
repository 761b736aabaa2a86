"""Axis-aligned boxes of a scan's objects: ground truth, and a detector's.

A box is (cx, cy, cz, dx, dy, dz), float32, metres, in the axis-aligned world: centre and size of
the min/max corners of the object's vertices. Each set of a scene comes from the first of these that
has it: a prepared box file (`threedrs.scannet.prepared_boxes`), the published point cloud
(`threedrs.scannet.point_cloud`), the scan's mesh with its annotation. Cost: some tenths of a second
a scan, most of it the annotation.

A detector's proposals are ``<scene>.mask.npz``, a scipy sparse matrix of objects x vertices. The
file comes from elsewhere and is not trusted: nothing is unpickled, and every index is checked
before scipy's compiled code follows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError, one_line
from threedrs.io.files import check_npz, read_result, write_json
from threedrs.scannet.excluded_scans import excluded_rows, excluding
from threedrs.scannet.geometry import axis_alignment, read_axis_alignment
from threedrs.scannet.layout import ScanFiles
from threedrs.scannet.mesh import read_instances, read_vertices
from threedrs.scannet.point_cloud import FARTHEST_VERTEX, read_point_cloud
from threedrs.scannet.prepared_boxes import read_prepared_boxes

FORMAT_VERSION = 1
BOX_SETS = ("gt", "pred")
"""gt: ground truth from the annotated mesh; pred: detector proposals."""
# A scene's proposals, some hundred of them, unpack to some 100 MB. Far more is a damaged or hostile
# file. The number counts as well, as a row costs memory whether something is stored in it or not.
MOST_PROPOSAL_BYTES = 4 * 2**30
_MOST_PROPOSALS = 1_000_000
MOST_BOXES = 50  # of a detector that are used
SOFT_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxSet:
    """Boxes of one scene."""

    boxes: np.ndarray  # (N,6) f32 centre + size, metres, axis-aligned world
    ids: np.ndarray  # (N,) i32: ScanNet's object id of each row (gt), or the row of the npz (pred)
    # The raw category of each row (gt); an empty string (pred: a proposal has none).
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def numbers(self, row: int) -> list[float]:
        """Return a box as the shortest decimals that read back to the same float32."""
        return [float(str(value)) for value in self.boxes[row]]


def make_box_set(rows: Sequence[tuple[np.ndarray, int, str]] = ()) -> BoxSet:
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
    first_N13, first_size_N13 = np.split(boxes_N6.astype(np.float64)[:, None], 2, axis=-1)
    second_1M3, second_size_1M3 = np.split(boxes_M6.astype(np.float64)[None], 2, axis=-1)
    lower_NM3 = np.maximum(first_N13 - first_size_N13 / 2, second_1M3 - second_size_1M3 / 2)
    upper_NM3 = np.minimum(first_N13 + first_size_N13 / 2, second_1M3 + second_size_1M3 / 2)
    shared_NM = np.clip(upper_NM3 - lower_NM3, 0.0, None).prod(axis=-1)
    union_NM = first_size_N13.prod(axis=-1) + second_size_1M3.prod(axis=-1) - shared_NM
    return shared_NM / (union_NM + 1e-8)


def aligned_vertices(scan: ScanFiles) -> np.ndarray:
    """Return the scan's vertices in the axis-aligned world, (P,3) f64, metres.

    They are those of the published point cloud where there is one, which are float32, else of the
    mesh. Both have the same order, so proposals fit both.

    Raises:
        DataError: mesh or axis alignment is missing or malformed, or a vertex lies so far out that
            a box over it would not fit float32.
    """
    if scan.point_cloud is not None:
        return read_point_cloud(scan.point_cloud).vertices_P3
    alignment = axis_alignment(scan)
    vertices_P3 = read_vertices(scan.mesh) @ alignment[:3, :3].T + alignment[:3, 3]
    far = np.flatnonzero((np.abs(vertices_P3) > FARTHEST_VERTEX).any(axis=1))
    if len(far):
        raise DataError(
            f"{scan.mesh}: vertex {far[0]} lies more than {FARTHEST_VERTEX:g} m from the origin of "
            f"the axis-aligned world; copy the file and {scan.meta.name} again"
        )
    return vertices_P3


def ground_truth_boxes(scan: ScanFiles) -> tuple[BoxSet, list[str]]:
    """Return the annotated objects' boxes, ordered by object id, and notes on excluded objects.

    A scan without annotation (ScanNet's test scans, or the user's own captures) has no boxes and
    one note. An object that owns no vertex has no box and one note. But if a later object of the
    file has exactly its segments, it has that object's box, and all such objects one note.

    Raises:
        DataError: a file is malformed, or one is missing although others of the scan are there.
    """
    if scan.point_cloud is not None:
        return _boxes_of_cloud(scan.point_cloud)
    if not scan.segments.exists() and not scan.aggregation.exists():
        return make_box_set(), ["no annotation (segments and aggregation): no gt boxes"]
    vertices_P3 = aligned_vertices(scan)
    instances = read_instances(scan.segments, scan.aggregation, len(vertices_P3))
    rows, notes = [], [*instances.notes]
    # One sort finds all objects' vertices. A scene has some 100,000 vertices and 50 objects.
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
    return make_box_set(rows), notes + _note_on_ids(instances.ids)


def _note_on_ids(ids: Sequence[int]) -> list[str]:
    if [*ids] == [*range(len(ids))]:
        return []
    return [f"object ids are not 0..{len(ids) - 1} (last: {ids[-1]}): kept as ids"]


def _boxes_of_cloud(path: Path) -> tuple[BoxSet, list[str]]:
    """Return the objects' boxes of a published point cloud, which names no categories."""
    cloud = read_point_cloud(path)
    if cloud.ids_K is None or cloud.corners_K23 is None:
        return make_box_set(), [f"no annotation in {path.name}: no gt boxes"]
    ids = cloud.ids_K.tolist()
    rows = [
        (_bounding_box(corners), object_id, "")
        for corners, object_id in zip(cloud.corners_K23, ids, strict=True)
    ]
    return make_box_set(rows), _note_on_ids(ids)


def detector_boxes(scan: ScanFiles) -> tuple[BoxSet, list[str]]:
    """Return the boxes of the first ``MOST_BOXES`` proposals, best first, and notes.

    A scan without a proposal file (train scans need none) has no boxes and one note. A mask without
    vertices is excluded with a note. Ids keep the rows of the file.

    Raises:
        DataError: a file is malformed, or proposals and mesh do not belong together.
    """
    if not scan.proposals.exists():
        return make_box_set(), [f"no proposals ({scan.proposals.name}): no pred boxes"]
    # The published masks cover more scenes than the published point clouds may. But a scan with a
    # part of its annotation should have a mesh.
    own = (scan.mesh, scan.segments, scan.aggregation)
    if scan.point_cloud is None and not any(path.exists() for path in own):
        return make_box_set(), [f"no mesh or point cloud for {scan.proposals.name}: no pred boxes"]
    vertices_P3 = aligned_vertices(scan)
    masks, notes = read_proposals(scan.proposals, len(vertices_P3))
    rows = []
    for row, mask in enumerate(masks):
        if len(mask) == 0:
            notes.append(f"proposal {row} masks no vertex: left out")
        else:
            rows.append((_bounding_box(vertices_P3[mask]), row, ""))
    return make_box_set(rows), notes


def read_proposals(path: Path, vertex_count: int) -> tuple[list[np.ndarray], list[str]]:
    """Return the vertex indices, (K,) ascending, of the first ``MOST_BOXES`` masks, and notes.

    A vertex is inside a mask where the matrix holds 1, whatever its dtype, as published. Soft masks
    (values between 0 and 1) are cut at 0.5, with a note.

    Raises:
        DataError: the file is missing, damaged, not such a matrix, of another mesh, or holds values
            that are neither.
    """
    try:
        check_npz(path, MOST_PROPOSAL_BYTES)
        # Every start of Snakemake and each of its jobs loads this module, and few read proposals.
        import scipy.sparse

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
        raise DataError(f"{path}: the proposals are missing; copy them there") from error
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
        raise DataError(f"{path}: masks of dtype {matrix.dtype}, not numbers; copy it again")
    rows = matrix.tocsr()[:MOST_BOXES]
    values, notes = rows.data.astype(np.float64), list[str]()
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))  # also so for NaN
    if len(wrong):
        raise DataError(
            f"{path}: a mask holds {rows.data[wrong[0]]:g}, expected 0 and 1, or a share between; "
            "save the masks as booleans"
        )
    inside = values >= SOFT_THRESHOLD
    if soft := np.count_nonzero((values > 0) & (values < 1)):
        notes.append(
            f"{path.name} holds {soft} values between 0 and 1: a vertex is inside from "
            f"{SOFT_THRESHOLD:g} up"
        )
    masks = [
        np.unique(rows.indices[start:stop][inside[start:stop]]).astype(np.int64)
        for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    ]
    return masks, notes


def extract_boxes(
    scans: Sequence[ScanFiles], out: Path, prepared: Mapping[str, Path] | None = None
) -> None:
    """Write the boxes of ``scans`` as JSON (docs/ARCHITECTURE.md), whole or not at all.

    A scan with a file that is missing, malformed or of another mesh is listed under ``left_out``
    with the reason.

    Args:
        prepared: box set -> prepared file, which comes before the scan's own files.

    Raises:
        DataError: a prepared file is malformed, or a file cannot be read by a fault of the machine.
    """
    prepared = prepared or {}
    names = [scan.scene for scan in scans]
    given = {name: read_prepared_boxes(path, names) for name, path in prepared.items()}
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    excluded: dict[str, str] = {}
    for scan in scans:
        with excluding(scan.scene, excluded):
            own = {name: sets[scan.scene] for name, sets in given.items() if scan.scene in sets}
            scenes[scan.scene], found = _sets_and_notes(scan, own, prepared)
            notes += [{"scene": scan.scene, "note": note} for note in found]
    rows = {"scenes": scenes, "notes": notes, "left_out": excluded_rows(excluded)}
    write_json(out, {"format_version": FORMAT_VERSION, **rows})


def _sets_and_notes(
    scan: ScanFiles, given: Mapping[str, dict[str, Any]], prepared: Mapping[str, Path]
) -> tuple[dict[str, Any], list[str]]:
    """Return a scan's box sets as JSON values, the ``given`` ones as they are, and its notes."""
    sets, notes = {**given}, list[str]()
    if scan.meta.exists() and read_axis_alignment(scan.meta) is None:
        notes.append(f"no axisAlignment in {scan.meta.name}: the scan's own frame is the world")
    for name in (name for name in BOX_SETS if name not in given):
        read = ground_truth_boxes if name == "gt" else detector_boxes
        boxes, without_box = read(scan)
        if name in prepared:
            how = "computed" if len(boxes) else "no"
            notes.append(f"not in {prepared[name].name}: {how} {name} boxes")
        notes += without_box
        sets[name] = {
            "boxes": [*map(boxes.numbers, range(len(boxes)))],
            "ids": boxes.ids.tolist(),
            "labels": list(boxes.labels),
        }
    return {name: sets[name] for name in BOX_SETS}, notes


def read_boxes_file(path: Path) -> dict[str, dict[str, BoxSet]]:
    """Return the boxes that `extract_boxes` wrote: scene -> set -> BoxSet.

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


def _bounding_box(vertices_K3: np.ndarray) -> np.ndarray:
    """Return the (6,) centre and size of the vertices' min/max corners."""
    lower, upper = vertices_K3.min(axis=0), vertices_K3.max(axis=0)
    return np.concatenate([(lower + upper) / 2, upper - lower])
