"""Data files made to harm: no code runs, no path leads out, memory stays bounded, one line says it.

docs/RELIABILITY.md lists every format that is read from outside, with its tests. Stores are in
test_zarr_store.py, checkpoints in test_untrusted_checkpoints.py, the pages in
test_untrusted_pages.py.
"""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.hostile import little_memory, one_line
from fixtures.instruction_files import description, rejected, run, write_annotations
from fixtures.posed_images import folder, scan  # noqa: F401 (fixtures)
from fixtures.prediction_files import GROUNDING, error_of
from fixtures.proposal_files import CSR, save_arrays
from threedrs.errors import DataError
from threedrs.instructions.llava_format import load_records
from threedrs.io.files import read_json, read_json_lines, read_text
from threedrs.scannet import boxes
from threedrs.scannet.boxes import extract_boxes, read_proposals
from threedrs.scannet.embodiedscan import read_infos
from threedrs.scannet.geometry import read_axis_alignment
from threedrs.scannet.label_table import read_label_table
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.mesh import read_vertices
from threedrs.scannet.posed_images import PosedImagesReader
from threedrs.tasks.record import Record, conversation
from threedrs.teachers import precomputed as imported
from threedrs.teachers.precomputed import read_features

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.125, 0.25, 0.5]], dtype=np.float32)
DIGITS = "9" * 5000  # more than Python converts


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory():
        yield


def sparse(path: Path, size: int) -> Path:
    """A file of ``size`` bytes that takes none."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


# Texts and JSON


@pytest.mark.parametrize("content", [f"[{DIGITS}]", "[" * 100_000, '{"a": 1e', "\x01"])
def test_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert "is not valid JSON" in one_line(lambda: read_json(path), path)
    assert "line 1 is not valid JSON" in one_line(lambda: list(read_json_lines(path)), path)


def test_texts_that_never_end(tmp_path: Path) -> None:
    large, pipe = sparse(tmp_path / "large", 2**40), tmp_path / "pipe"
    os.mkfifo(pipe)
    readers: tuple[Callable[[Path], Any], ...] = (
        read_text,
        read_json,
        lambda path: list(read_json_lines(path)),
    )
    for read in readers:
        assert "1099511627776 bytes, such a text" in one_line(partial(read, large), large)
        assert "not a regular file" in one_line(partial(read, pipe), pipe)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{'x' * 200_000}\t3", "line 2 is not a table row"),
        (f"chair\t{DIGITS}", "line 2: nyu40id '999"),
    ],
)
def test_label_table(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text(f"raw_category\tnyu40id\n{row}\n")
    assert message in one_line(lambda: read_label_table(path), path)
    sparse(path, 2**30)
    assert "such a text has at most" in one_line(lambda: read_label_table(path), path)


def test_alignment(tmp_path: Path) -> None:
    path = sparse(tmp_path / "scene0000_00.txt", 2**30)
    assert "such a text has at most" in one_line(lambda: read_axis_alignment(path), path)


def test_scene_lists_name_no_folders(tmp_path: Path) -> None:
    layout = DataLayout(root=tmp_path)
    layout.split_file("train").parent.mkdir(parents=True)
    layout.split_file("train").write_text("../../etc\n")
    message = one_line(lambda: layout.scenes("train"), layout.split_file("train"))
    assert "line 1: '../../etc' is not a scene name" in message


# Meshes


def ply(path: Path, *, count: int, faces: bytes, encoding: str = "binary_little_endian") -> Path:
    header = (
        f"ply\nformat {encoding} 1.0\nelement vertex {count}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(header.encode() + VERTICES.astype("<f4").tobytes() + faces)
    return path


TRIANGLE = b"\x03" + struct.pack("<3i", 0, 1, 2)


@pytest.mark.parametrize("count", [5, 10**8, 10**14])
def test_a_mesh_that_announces_more_than_it_holds(tmp_path: Path, count: int) -> None:
    path = ply(tmp_path / "mesh.ply", count=count, faces=TRIANGLE)
    message = one_line(lambda: read_vertices(path), path)
    assert "holds no vertices that can be read (61 bytes follow the header, it announces" in message


def test_polygons_of_vertices_that_do_not_exist(tmp_path: Path) -> None:
    # Open3D 0.20 reads outside its memory where such a polygon has more than three corners.
    faces = b"\x04" + struct.pack("<4i", 0, 1, 2, 10**9)
    path = ply(tmp_path / "mesh.ply", count=4, faces=faces)
    np.testing.assert_array_equal(read_vertices(path), VERTICES)


def test_a_mesh_without_its_last_face(tmp_path: Path) -> None:
    path = ply(tmp_path / "mesh.ply", count=4, faces=TRIANGLE[:-1])
    assert "it announces 61" in one_line(lambda: read_vertices(path), path)


def test_a_mesh_as_text(tmp_path: Path) -> None:
    path = ply(tmp_path / "mesh.ply", count=4, faces=b"", encoding="ascii")
    header, _, _ = path.read_bytes().partition(b"end_header\n")
    rows = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in VERTICES)
    whole = header.decode() + "end_header\n" + rows + "3 0 1 2\n"
    path.write_text(whole)
    np.testing.assert_array_equal(read_vertices(path), VERTICES)
    path.write_text(whole.replace("3 0 1 2\n", ""))
    assert "4 lines follow the header, it announces 5" in one_line(
        lambda: read_vertices(path), path
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("element vertex 4", "element edge 4", "the first element is not vertex"),
        ("property float z", "property list int float z", "the first element is not vertex"),
        ("property float z", "property string z", "the header's line 'property string z'"),
        ("element vertex 4", "element vertex -4", "the header's line 'element vertex -4'"),
        ("binary_little_endian", "binary", "format 'binary' is none of"),
        ("end_header", "end", "no ply header"),
    ],
)
def test_headers_of_meshes(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = ply(tmp_path / "mesh.ply", count=4, faces=TRIANGLE)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    assert message in one_line(lambda: read_vertices(path), path)


# Archives of arrays


class Runs:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.mark}'",)


def npy(shape: tuple[int, ...], content: bytes, descr: str = "<f4") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def archive(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr(name, content)
    return path


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("feature.npy", read_features),
    ("data.npy", lambda path: read_proposals(path, 6)),
]


@pytest.mark.parametrize(("member", "read"), READERS, ids=["features", "masks"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((2, 2**40, 2**10), b"x"), "is not an array of shape"),
        (npy((2, -1, 4), b"x" * 400), "is not an array of shape"),
        (npy((2,), b"x" * 16, "|O"), "holds Python objects"),
        (b"\x93NUMPY\x09\x00hello", "unknown version"),
        (b"hello", "magic"),
    ],
)
def test_arrays_that_are_none(
    tmp_path: Path, member: str, read: Callable[[Path], Any], content: bytes, message: str
) -> None:
    path = archive(tmp_path / "a.npz", member, content)
    assert message in one_line(lambda: read(path), path)


@pytest.mark.parametrize(("member", "read"), READERS, ids=["features", "masks"])
def test_pickles_and_bombs_in_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, read: Callable[[Path], Any]
) -> None:
    path, mark = tmp_path / "a.npz", tmp_path / "was_run"
    np.savez(path, **{member.removesuffix(".npy"): np.array([Runs(mark)], object)})  # type: ignore[arg-type]
    assert "holds Python objects" in one_line(lambda: read(path), path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros((2, 3, 4), np.float32))
    assert "not a zip file" in one_line(lambda: read(path), path)
    monkeypatch.setattr(imported, "MOST_BYTES", 2**20)
    monkeypatch.setattr(boxes, "MOST_PROPOSAL_BYTES", 2**20)
    archive(path, member, npy((2, 2**9, 2**10), bytes(2**22)))
    assert path.stat().st_size < 2**14
    assert "claims to unpack to 0.0 GiB, more than" in one_line(lambda: read(path), path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", [b"coo", b"csc"])
def test_billions_of_empty_masks(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "scene0000_00.mask.npz"
    places = {"row": [0, 1], "col": [0, 1]} if kind == b"coo" else {"indptr": [0, 1, *[2] * 5]}
    save_arrays(path, **{**CSR, "format": kind, "shape": [2**40, 6], "indices": [0, 1], **places})
    assert "1099511627776 proposals are absurd" in one_line(lambda: read_proposals(path, 6), path)


# EmbodiedScan's pickle


def copies_of_copies() -> bytes:
    """A list of 100,000 numbers, and 5,000 sets of them."""
    numbers = b"".join(b"J" + struct.pack("<i", number) for number in range(100_000))
    one = b"cbuiltins\nset\nh\x00\x85R"
    return b"\x80\x02]q\x00(" + numbers + b"e(" + one * 5_000 + b"t."


@pytest.mark.parametrize(
    "content",
    [b"\x80\x04}r" + struct.pack("<I", 2**32 - 1) + b".", copies_of_copies()],
    ids=["a memo of four billion places", "copies of copies"],
)
def test_pickles_that_fill_the_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "infos.pkl"
    path.write_bytes(content)
    message = one_line(lambda: read_infos(path), path)
    assert "is not a readable pickle (MemoryError)" in message


# Exported frames


def png_header(width: int, height: int) -> bytes:
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(fields))
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + fields + checksum
    return start + struct.pack(">I", 64) + b"IDAT"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_announce_gigabytes(folder: Path) -> None:  # noqa: F811
    path = folder / "00000.png"
    for side, message in ((60_000, "exceeds limit"), (12_000, "is not between 1 and 8192 pixels")):
        path.write_bytes(png_header(side, side) + bytes(64))
        assert message in one_line(lambda: PosedImagesReader(folder), folder)


def test_pictures_and_poses_that_never_end(folder: Path) -> None:  # noqa: F811
    reader = PosedImagesReader(folder)
    for name, read in (("00003.jpg", reader.color), ("00003.png", reader.depth_millimetres)):
        path = sparse(folder / name, 2**40)
        assert "absurd for an image" in one_line(partial(read, 1), path)
        path.unlink()
        os.mkfifo(path)
        assert "is not a regular file" in one_line(partial(read, 1), path)
    path = sparse(folder / "00003.txt", 2**30)
    assert "such a text has at most" in one_line(lambda: PosedImagesReader(folder), path)
    path.write_text("nan " * 16)
    assert PosedImagesReader(folder).valid.tolist() == [True, False, True]
    first = folder / "00000.jpg"
    first.unlink()
    os.mkfifo(first)
    assert "not a regular file" in one_line(lambda: PosedImagesReader(folder), first)


# Annotations, boxes and instructions


def test_annotation_rows_lead_nowhere(tmp_path: Path) -> None:
    rows = [
        description(1, 0, "a chair"),
        description(1, 1, "a chair", scene_id="../../etc"),
        description(1, 2, "a chair", scene_id=["scene0000_00"]),
        description(1, 3, "a chair") | {"object_id": 10**400},
        description(1, 4, "a chair") | {"object_id": DIGITS},
        description(1, 5, "a chair") | {"description": {"a": "chair"}},
        "../../etc/passwd",
    ]
    write_annotations(tmp_path, "scanrefer/ScanRefer_filtered_train.json", rows)
    records, _ = run(tmp_path, "scanrefer", "train")
    assert len(records) == 1
    assert len(rejected(tmp_path, "scanrefer", "train")) == 6
    assert {file.name.partition(".")[0] for file in tmp_path.rglob("*.json*")} == {
        "ScanRefer_filtered_train",
        "scanrefer_train",
    }


@pytest.mark.parametrize(
    "box", [[10**400, 0, 0, 1, 1, 1], [1e300, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, float("inf")]]
)
def test_boxes_beyond_every_room(tmp_path: Path, box: list[Any]) -> None:
    path = tmp_path / "ready.json"
    path.write_text(json.dumps({"scene0000_00": [box], "../../etc/passwd": [box]}))
    out = tmp_path / "boxes.json"
    files = DataLayout(root=tmp_path).scan("scene0000_00")
    message = one_line(lambda: extract_boxes([files], out, {"gt": path}), path)
    assert "scene0000_00: boxes.0." in message
    assert not out.exists()
    row = {"id": "a", "benchmark": "scanqa", "scene": "scene0000_00"}
    row |= {"format_version": 1, "conversations": conversation("what", "that"), "box_input": box}
    with pytest.raises(DataError, match="box_input: expected six finite numbers"):
        Record.from_json(row, "line 1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "scannet/../../etc"}, "'../../etc' is not a scene name"),
        ({"video": ["scannet/scene0000_00"]}, "video: ['scannet/scene0000_00'] is not"),
        ({"metadata": {"dataset": "scanrefer", "object_id": float("inf")}}, "object_id.0: inf"),
        ({"metadata": {"dataset": "scanrefer", "object_id": DIGITS}}, "object_id.0: '999"),
        ({"metadata": {"dataset": ["scanrefer"]}}, "metadata.dataset: ["),
        (
            {"conversations": [{"from": "human", "value": {}}, {}]},
            "conversations.0.value: {} is not",
        ),
    ],
)
def test_ready_instructions(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entry: dict[str, Any] = {
        "id": "a",
        "video": "scannet/scene0000_00",
        "metadata": {"dataset": "scanrefer", "object_id": 1},
        "conversations": conversation("which", "<ground>"),
    }
    path = tmp_path / "all.json"
    path.write_text(json.dumps([entry]))
    assert len(list(load_records(path))) == 1
    path.write_text(json.dumps([entry | change]))
    assert message in one_line(lambda: list(load_records(path)), path)


# Predictions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [10**400, 0.5]}, "scores.0: 1000000"),
        ({"scores": [float("inf"), 0.5]}, "scores.0 is inf; expected a finite number"),
        ({"boxes": [[[[[[1]]]]]]}, "boxes.0.0: [[[[1]]]] is not of type 'number'"),
        ({"scene": {"a": 1}}, "scene: {'a': 1} is not"),
    ],
)
def test_predictions_from_elsewhere(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(GROUNDING | change) + "\n")
    assert message in error_of(path, "scanrefer")
    stream = io.StringIO(json.dumps(GROUNDING).replace("0.5", DIGITS, 1))
    path.write_text(stream.getvalue() + "\n")
    assert "line 1 is not valid JSON" in error_of(path, "scanrefer")
