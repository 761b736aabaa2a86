"""Exporting scans to the posed_images layout, and the scan commands."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fixtures.sens_files import (
    depth_image,
    frame_of,
    make_header,
    picture,
    pose,
    stream_bytes,
    write,
)
from threedrs.errors import DataError
from threedrs.scannet.posed_images import ExportSummary, export_posed_images
from threedrs.scannet.sens import SensError, SensReader, SensWriter


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_layout_of_an_export(tmp_path):
    out = tmp_path / "posed_images" / "scene0000_00"
    summary = export_posed_images(write(tmp_path / "scan.sens"), out)
    assert summary == ExportSummary(frames=3, valid_poses=3, reencoded=False)
    frames = [f"{index:05d}.{kind}" for index in range(3) for kind in ("jpg", "png", "txt")]
    assert names(out) == sorted([*frames, "depth_intrinsic.txt", "intrinsic.txt"])
    header = make_header()
    assert np.array_equal(np.loadtxt(out / "intrinsic.txt"), header.intrinsic_color)
    assert np.array_equal(np.loadtxt(out / "depth_intrinsic.txt"), header.intrinsic_depth)
    for index in range(3):
        assert (out / f"{index:05d}.jpg").read_bytes() == picture(index)
        assert np.loadtxt(out / f"{index:05d}.txt").ravel().tolist() == pose(index)
        with Image.open(out / f"{index:05d}.png") as image:
            assert image.mode == "I;16"
            assert np.array_equal(np.array(image), depth_image(index))


def test_poses_survive_as_f32(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    lost = np.full((4, 4), -np.inf)
    with SensWriter.create(tmp_path / "scan.sens", make_header()) as writer:
        for value in (matrix, lost):
            writer.add(value, picture(0), depth_image(0))
    summary = export_posed_images(tmp_path / "scan.sens", tmp_path / "out")
    assert summary.valid_poses == 1
    read = np.loadtxt(tmp_path / "out" / "00000.txt").astype(np.float32)
    assert np.array_equal(read, matrix.astype(np.float32))
    assert np.array_equal(np.loadtxt(tmp_path / "out" / "00001.txt"), lost)


def test_stride_keeps_the_stream_numbering(tmp_path):
    out = tmp_path / "out"
    summary = export_posed_images(write(tmp_path / "scan.sens", count=6), out, stride=2)
    assert summary.frames == 3
    assert [name for name in names(out) if name.endswith("jpg")] == [
        "00000.jpg",
        "00002.jpg",
        "00004.jpg",
    ]
    assert (out / "00004.jpg").read_bytes() == picture(4)


def test_depth_is_exported_in_millimetres(tmp_path):
    header = make_header(depth_shift=5000.0, depth_width=2, depth_height=1)
    with SensWriter.create(tmp_path / "scan.sens", header) as writer:
        writer.add(np.eye(4), picture(0), np.array([[0, 12500]], dtype=np.uint16))
    export_posed_images(tmp_path / "scan.sens", tmp_path / "out")
    with Image.open(tmp_path / "out" / "00000.png") as image:
        assert np.array(image).tolist() == [[0, 2500]]


@pytest.mark.parametrize("kind", ["png", "raw"])
def test_other_payloads_become_jpeg(tmp_path, kind):
    payload = picture(1, kind="PNG")
    if kind == "raw":
        with SensReader(write_one(tmp_path / "png.sens", payload, "png")) as reader:
            payload = frame_of(reader, 0).color.tobytes()
    path = write_one(tmp_path / "scan.sens", payload, kind)
    assert export_posed_images(path, tmp_path / "out").reencoded
    with Image.open(tmp_path / "out" / "00000.jpg") as image, SensReader(path) as reader:
        assert image.format == "JPEG"
        difference = np.abs(np.array(image).astype(int) - frame_of(reader, 0).color)
    assert difference.mean() < 6


def write_one(path, payload: bytes, kind: str):
    with SensWriter.create(path, make_header(color_compression=kind)) as writer:
        writer.add(np.eye(4), payload, depth_image(0))
    return path


def test_earlier_export_is_replaced_and_nothing_else(tmp_path):
    scan, out = write(tmp_path / "scan.sens"), tmp_path / "out"
    export_posed_images(scan, out)
    export_posed_images(scan, out, stride=2)
    assert "00001.jpg" not in names(out)
    (out / "notes.md").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.md"):
        export_posed_images(scan, out)
    assert (out / "notes.md").read_text() == "mine"
    with pytest.raises(DataError, match="is a file; name a folder"):
        export_posed_images(scan, scan)
    with pytest.raises(DataError, match="stride 0"):
        export_posed_images(scan, tmp_path / "new", stride=0)


def test_damaged_scan_leaves_no_export(tmp_path):
    data = bytearray(stream_bytes())
    at = data.index(picture(2))
    data[at : at + 2] = b"XX"
    (tmp_path / "scan.sens").write_bytes(data)
    with pytest.raises(SensError, match="frame 2"):
        export_posed_images(tmp_path / "scan.sens", tmp_path / "out")
    assert names(tmp_path) == ["scan.sens"]


# Commands


@pytest.fixture
def run():
    from threedrs.cli import app

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return invoke


def test_info_command(tmp_path, run):
    path = write(tmp_path / "scan.sens")
    facts = json.loads(run("sens", "info", path, "--json"))
    assert facts["frames"] == facts["valid_poses"] == 3
    assert facts["sensor_name"] == "TestSensor"
    assert facts["bytes"] == path.stat().st_size
    assert (facts["color_size"], facts["depth_size"]) == ([16, 12], [8, 6])
    assert (facts["color_compression"], facts["depth_compression"]) == ("jpeg", "zlib")
    assert facts["intrinsic_depth"][0][0] == 5.25
    assert facts["depth_shift"] == 1000.0
    text = run("sens", "info", path)
    assert "16x12" in text
    assert "fx 5.25, fy 5.75, cx 4, cy 3" in text


def test_export_and_import_commands_give_the_scan_back(tmp_path, run):
    scan, out = write(tmp_path / "scan.sens"), tmp_path / "out"
    assert "3 frames, 3 with a valid pose" in run("sens", "export", scan, out)
    for folder, kind in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
        (out / folder).mkdir()
        for path in out.glob(f"[0-9]*.{kind}"):
            path.rename(out / folder / path.name)
    again = tmp_path / "again.sens"
    assert "again.sens: 3 frames, 3 with" in run("import-rgbd", out, again, "--depth-scale", 1000)
    with SensReader(scan) as first, SensReader(again) as second:
        assert np.array_equal(first.poses, second.poses)
        assert np.array_equal(first.header.intrinsic_depth, second.header.intrinsic_depth)
        for index in range(3):
            assert first.color_bytes(index) == second.color_bytes(index)
            assert np.array_equal(first.depth(index), second.depth(index))


def test_export_command_says_that_it_encodes(tmp_path, run):
    scan = write_one(tmp_path / "scan.sens", picture(0, kind="PNG"), "png")
    assert "encoded as JPEG, quality 95" in run("sens", "export", scan, tmp_path / "out")


def test_commands_pass_errors_on(tmp_path, run):
    with pytest.raises(DataError, match=r"none\.sens: is not there"):
        run("sens", "info", tmp_path / "none.sens")
