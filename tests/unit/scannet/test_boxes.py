import errno
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from fixtures.proposal_files import CSR, save_arrays
from threedrs.errors import DataError
from threedrs.scannet.boxes import (
    box_iou_NM,
    detector_boxes,
    extract_boxes,
    ground_truth_boxes,
    make_box_set,
    read_boxes_file,
    read_proposals,
)
from threedrs.scannet.layout import DataLayout, ScanFiles

# Six vertices: two on a chair, three on a desk, one on nothing.
VERTICES = np.array(
    [[0, 0, 0], [1, 2, 0.5], [3, 0, 0], [3, 1, 0], [4, 0, 1], [9, 9, 9]], dtype=np.float64
)
TURN = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=np.float64)


def make_scan(root: Path, scene: str = "scene0000_00", *, masks: np.ndarray | None) -> ScanFiles:
    scan = DataLayout(root=root).scan(scene)
    scan.mesh.parent.mkdir(parents=True)
    scan.proposals.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in VERTICES)
    scan.mesh.write_text(
        f"ply\nformat ascii 1.0\nelement vertex {len(VERTICES)}\nproperty float x\n"
        "property float y\nproperty float z\nelement face 1\n"
        f"property list uchar int vertex_indices\nend_header\n{rows}3 0 1 2\n"
    )
    scan.meta.write_text(f"axisAlignment = {' '.join(map(str, TURN.ravel()))}\n")
    scan.segments.write_text(json.dumps({"segIndices": [7, 7, 3, 3, 4, 1]}))
    groups = [
        {"objectId": 5, "label": "desk", "segments": [3, 4]},
        {"objectId": 2, "label": "chair", "segments": [7]},
        {"objectId": 9, "label": "ghost", "segments": [1000]},
    ]
    scan.aggregation.write_text(json.dumps({"segGroups": groups}))
    if masks is not None:
        scipy.sparse.save_npz(scan.proposals, scipy.sparse.csr_matrix(masks))
    return scan


def slow_box(vertices: list[int]) -> list[float]:
    """Centre and size of the aligned vertices' corners, one number at a time."""
    aligned = [(TURN @ [*VERTICES[vertex], 1.0])[:3] for vertex in vertices]
    lower = [min(point[axis] for point in aligned) for axis in range(3)]
    upper = [max(point[axis] for point in aligned) for axis in range(3)]
    centre = [(low + high) / 2 for low, high in zip(lower, upper, strict=True)]
    return centre + [high - low for low, high in zip(lower, upper, strict=True)]


def test_ground_truth_is_ordered_by_id_and_keeps_ids(tmp_path: Path) -> None:
    boxes, notes = ground_truth_boxes(make_scan(tmp_path, masks=None))
    assert boxes.boxes.dtype == np.float32
    assert boxes.ids.dtype == np.int32
    assert boxes.ids.tolist() == [2, 5]
    assert boxes.labels == ("chair", "desk")
    np.testing.assert_allclose(boxes.boxes, [slow_box([0, 1]), slow_box([2, 3, 4])], rtol=1e-6)
    # By hand: the chair spans x 0..1, y 0..2; after the quarter turn x 8..10, y 20..21.
    np.testing.assert_allclose(boxes.boxes[0], [9, 20.5, 30.25, 2, 1, 0.5])
    assert notes == [
        "segments of objects that have no vertex: 1",
        "object 9 (ghost) owns no vertex: no gt box",
        "object ids are not 0..2 (last: 9): kept as ids",
    ]


def test_objects_that_are_listed_twice_have_one_box_under_both_ids(tmp_path: Path) -> None:
    """As in ScanNet's scene0217_00, whose second half repeats the segments of the first."""
    scan = make_scan(tmp_path, masks=None)
    groups = [
        {"objectId": number, "label": label, "segments": segments}
        for number, (label, segments) in enumerate([("desk", [3, 4]), ("chair", [7])] * 2)
    ]
    groups += [{"objectId": 4 + n, "label": "none", "segments": []} for n in range(2)]
    scan.aggregation.write_text(json.dumps({"segGroups": groups}))
    boxes, notes = ground_truth_boxes(scan)
    assert boxes.ids.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(boxes.boxes, [slow_box([2, 3, 4]), slow_box([0, 1])] * 2)
    assert notes == [
        "object 4 (none) owns no vertex: no gt box",
        "object 5 (none) owns no vertex: no gt box",
        "2 objects stand once more under another id: one box each",
    ]


def test_detector_boxes_keep_the_row_of_the_file_as_id(tmp_path: Path) -> None:
    masks = np.zeros((60, 6))
    masks[0, [2, 4]] = 1.0
    masks[2, 5] = 1.0
    masks[3:, 0] = 1.0
    boxes, notes = detector_boxes(make_scan(tmp_path, masks=masks))
    assert boxes.ids.tolist() == [0, *range(2, 50)]
    assert notes == ["proposal 1 masks no vertex: left out"]
    np.testing.assert_allclose(boxes.boxes[0], slow_box([2, 4]), rtol=1e-6)
    np.testing.assert_allclose(boxes.boxes[1], slow_box([5]), rtol=1e-6)
    assert boxes.labels == ("",) * 49


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_stored_zeros_are_outside_the_mask(tmp_path: Path, kind: str) -> None:
    matrix = scipy.sparse.coo_matrix(
        (np.array([1, 0, 1], dtype=np.int8), ([0, 0, 1], [3, 2, 1])), shape=(2, 6)
    )
    scipy.sparse.save_npz(tmp_path / "mask.npz", matrix.asformat(kind))
    found, notes = read_proposals(tmp_path / "mask.npz", 6)
    assert [mask.tolist() for mask in found] == [[3], [1]]
    assert notes == []


def test_soft_masks_are_cut_at_a_half_with_a_note(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, masks=np.array([[0, 0.49, 0.5, 0, 0.9, 1.0], [0.4] + [0] * 5]))
    boxes, notes = detector_boxes(scan)
    np.testing.assert_allclose(boxes.boxes, [slow_box([2, 4, 5])], rtol=1e-6)
    assert notes == [
        "scene0000_00.mask.npz holds 4 values between 0 and 1: a vertex is inside from 0.5 up",
        "proposal 1 masks no vertex: left out",
    ]


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (255, "uint8", "255"),
        (-1, "int8", "-1"),
        (2, "int64", "2"),
        (1.5, "float32", "1.5"),
        (np.nan, "float64", "nan"),
        (np.inf, "float32", "inf"),
    ],
)
def test_masks_of_other_values_are_refused(
    tmp_path: Path, value: float, dtype: str, said: str
) -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[1, 0, value, 0, 0, 0]], dtype=dtype))
    scipy.sparse.save_npz(tmp_path / "mask.npz", matrix)
    with pytest.raises(DataError, match=f"a mask holds {said}, expected 0 and 1, .*as booleans"):
        read_proposals(tmp_path / "mask.npz", 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": [1, 10**6]}, "not a readable scipy sparse"),
        ({"indices": [1, -4]}, "not a readable scipy sparse"),
        ({"indptr": [0, 10**6, 2]}, "not a readable scipy sparse"),
        ({"indptr": [0, 1]}, "not a readable scipy sparse"),
        ({"format": b"evil"}, "not a readable scipy sparse"),
        ({"shape": [2, 7]}, r"masks of shape \(2, 7\) for a mesh of 6 vertices"),
        ({"data": np.array([print, print], dtype=object)}, "not a readable scipy sparse"),
        ({"data": [1j, 1j]}, "masks of dtype complex128"),
        ({"format": b"dia", "offsets": [0, 1], "data": np.ones((2, 6))}, "sparse format 'dia'"),
    ],
)
def test_hostile_npz_is_one_error(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "mask.npz"
    save_arrays(path, **{**CSR, **changes})
    with pytest.raises(DataError, match=message) as caught:
        read_proposals(path, 6)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_npz_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "mask.npz"
    with pytest.raises(DataError, match="the proposals are missing; copy them there"):
        read_proposals(path, 6)
    scipy.sparse.save_npz(path, scipy.sparse.random(20, 6, density=0.5, format="csr"))
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="not a readable scipy sparse"):
            read_proposals(path, 6)
    header = b"\x93NUMPY\x01\x00"
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }\n"
    save_arrays(path, **{key: value for key, value in CSR.items() if key != "data"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", header + len(text).to_bytes(2, "little") + text)
    with pytest.raises(DataError, match="not a readable scipy sparse"):
        read_proposals(path, 6)


def test_file_round_trip_is_exact(tmp_path: Path) -> None:
    masks = np.zeros((3, 6))
    masks[0, [0, 3]] = masks[2, 4] = 1
    scan = make_scan(tmp_path, masks=masks)
    out = tmp_path / "boxes.json"
    extract_boxes([scan], out)
    found = read_boxes_file(out)
    assert list(found) == ["scene0000_00"]
    for name, (expected, _) in (("gt", ground_truth_boxes(scan)), ("pred", detector_boxes(scan))):
        boxes = found["scene0000_00"][name]
        np.testing.assert_array_equal(boxes.boxes, expected.boxes)
        np.testing.assert_array_equal(boxes.ids, expected.ids)
        assert boxes.labels == expected.labels
        assert boxes.boxes.dtype == np.float32
    assert json.loads(out.read_text())["notes"] == [
        {"scene": "scene0000_00", "note": "segments of objects that have no vertex: 1"},
        {"scene": "scene0000_00", "note": "object 9 (ghost) owns no vertex: no gt box"},
        {"scene": "scene0000_00", "note": "object ids are not 0..2 (last: 9): kept as ids"},
        {"scene": "scene0000_00", "note": "proposal 1 masks no vertex: left out"},
    ]


def test_a_scan_of_two_versions_is_left_out_of_the_file(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, masks=np.ones((1, 5)))
    out = tmp_path / "boxes.json"
    extract_boxes([scan], out)
    assert read_boxes_file(out) == {}
    content = json.loads(out.read_text())
    assert content["notes"] == []
    (row,) = content["left_out"]
    assert row["scene"] == "scene0000_00"
    assert "masks of shape (1, 5) for a mesh of 6 vertices" in row["reason"]


@pytest.mark.parametrize(
    ("far", "fits"), [(4e5, True), (6e5, False), (1e30, False), (-3e38, False)]
)
def test_a_vertex_far_out_leaves_its_scan_out_alone(tmp_path: Path, far: float, fits: bool) -> None:
    """What is left in the file is what its reader takes, at any distance."""
    other, scan = (make_scan(tmp_path, f"scene000{row}_00", masks=None) for row in range(2))
    scan.mesh.write_text(scan.mesh.read_text().replace("3.0 0.0 0.0\n", f"{far} {-far} 0.0\n"))
    out = tmp_path / "boxes.json"
    extract_boxes([other, scan], out)
    assert list(read_boxes_file(out)) == [other.scene] + [scan.scene] * fits
    reasons = [row["reason"] for row in json.loads(out.read_text())["left_out"]]
    assert len(reasons) == 1 - fits
    for reason in reasons:
        assert reason.startswith(f"{scan.mesh}: vertex 2 lies more than 500000 m from the origin")


def test_a_fault_of_the_machine_stops_the_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = make_scan(tmp_path, masks=None)

    def no_answer(*arguments: object, **options: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "open", no_answer)
    with pytest.raises(DataError, match="Stale file handle"):
        extract_boxes([scan], tmp_path / "boxes.json")
    assert not (tmp_path / "boxes.json").exists()


def test_scans_without_annotation_proposals_or_mesh(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, masks=None)
    bare = DataLayout(root=tmp_path).scan("scene0001_00")
    out = tmp_path / "boxes.json"
    extract_boxes([scan, bare], out)
    found = read_boxes_file(out)
    assert len(found["scene0000_00"]["gt"]) == 2
    assert len(found["scene0000_00"]["pred"]) == 0
    assert found["scene0001_00"]["gt"].boxes.shape == (0, 6)
    notes = [note["note"] for note in json.loads(out.read_text())["notes"]]
    assert "no proposals (scene0000_00.mask.npz): no pred boxes" in notes
    assert "no annotation (segments and aggregation): no gt boxes" in notes


def test_half_a_scan_is_an_error_that_names_the_missing_file(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, masks=np.ones((1, 6)))
    scan.aggregation.unlink()
    with pytest.raises(DataError, match=r"aggregation\.json: cannot be read"):
        ground_truth_boxes(scan)
    scan.mesh.unlink()
    with pytest.raises(DataError, match="the mesh is missing"):
        detector_boxes(scan)


def test_masks_of_another_mesh_are_refused(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, masks=np.ones((1, 5)))
    with pytest.raises(DataError, match="for a mesh of 6 vertices"):
        detector_boxes(scan)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format_version": 2, "scenes": {}}, "format version 2, expected 1"),
        ([], "format version None, expected 1"),
    ],
)
def test_a_boxes_file_of_another_version(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_boxes_file(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": []}, "1 boxes, 0 ids and 1 labels"),
        ({"boxes": [[0, 0, 0, 1, 1]]}, "boxes.0: List should have at least 6 items"),
        ({"boxes": [[0, 0, 0, 1, 1, -1]]}, "boxes.0: a size is negative"),
        ({"boxes": [[float("nan"), 0, 0, 1, 1, 1]]}, "boxes.0.0 is nan; expected a finite"),
        ({"ids": [1.5]}, "ids.0: 1.5 is not of type 'integer'"),
        ({"boxes": [[0] * 6] * 2, "ids": [1, 1], "labels": ["", ""]}, "stands more than once"),
        ({"labels": "a"}, "labels: 'a' is not of type 'array'"),
    ],
)
def test_malformed_ready_boxes(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    fields = {"boxes": [[0, 0, 0, 1, 1, 1]], "ids": [3], "labels": ["a"], **changes}
    ready = tmp_path / "gt.json"
    ready.write_text(json.dumps({"scene0000_00": fields}))
    scan = DataLayout(root=tmp_path).scan("scene0000_00")
    with pytest.raises(DataError, match=message):
        extract_boxes([scan], tmp_path / "boxes.json", {"gt": ready})


def slow_iou(first: np.ndarray, second: np.ndarray) -> float:
    shared = 1.0
    for axis in range(3):
        lower = max(b[axis] - b[axis + 3] / 2 for b in (first, second))
        upper = min(b[axis] + b[axis + 3] / 2 for b in (first, second))
        shared *= max(0.0, upper - lower)
    union = first[3] * first[4] * first[5] + second[3] * second[4] * second[5] - shared
    return float(shared / (union + 1e-8))


def test_iou_by_hand_and_against_a_loop() -> None:
    unit = np.array([[0, 0, 0, 1, 1, 1]], dtype=np.float32)
    others = np.array(
        [[0.5, 0, 0, 1, 1, 1], [2, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]],
        dtype=np.float32,
    )
    np.testing.assert_allclose(box_iou_NM(unit, others), [[1 / 3, 0, 1, 0]], atol=1e-7)
    assert box_iou_NM(others[3:], others[3:])[0, 0] == 0
    generator = np.random.default_rng(1)
    first, second = (
        np.concatenate(
            [generator.uniform(-1, 1, (count, 3)), generator.uniform(0, 2, (count, 3))], axis=1
        ).astype(np.float32)
        for count in (7, 5)
    )
    expected = [
        [slow_iou(a, b) for b in second.astype(np.float64)] for a in first.astype(np.float64)
    ]
    np.testing.assert_allclose(box_iou_NM(first, second), expected, rtol=1e-12)
    assert box_iou_NM(first, np.zeros((0, 6), dtype=np.float32)).shape == (7, 0)


def test_empty_set_has_shapes() -> None:
    empty = make_box_set()
    assert (empty.boxes.shape, empty.ids.shape, len(empty)) == ((0, 6), (0,), 0)
