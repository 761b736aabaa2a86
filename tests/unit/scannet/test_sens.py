"""Reading and writing whole .sens streams, against bytes packed by hand."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from fixtures.sens_files import (
    COLOR_H,
    COLOR_W,
    DEPTH_H,
    DEPTH_W,
    HEADER_BYTES,
    INTRINSIC_COLOR,
    INTRINSIC_DEPTH,
    depth_image,
    frame_of,
    frames_of,
    make_header,
    one_frame,
    picture,
    pose,
    read_all,
    stream_bytes,
    write,
    zlib_depth,
)
from threedrs.errors import DataError
from threedrs.scannet.sens import SensError, SensReader, SensWriter

# Reading and writing whole streams


def test_reads_hand_made_stream(tmp_path):
    path = tmp_path / "hand.sens"
    path.write_bytes(stream_bytes())
    with SensReader(path) as reader:
        header = reader.header
        assert len(reader) == 3
        assert header.sensor_name == "TestSensor"
        assert header.intrinsic_color.ravel().tolist() == INTRINSIC_COLOR
        assert header.intrinsic_depth.ravel().tolist() == INTRINSIC_DEPTH
        assert np.array_equal(header.extrinsic_color, np.eye(4))
        assert (header.color_compression, header.depth_compression) == ("jpeg", "zlib")
        assert (header.color_width, header.color_height) == (COLOR_W, COLOR_H)
        assert (header.depth_width, header.depth_height) == (DEPTH_W, DEPTH_H)
        assert header.depth_shift == 1000.0
        assert reader.header_bytes == stream_bytes()[:HEADER_BYTES]
        assert reader.poses.dtype == np.float64
        assert reader.poses[2].ravel().tolist() == pose(2)
        assert reader.color_timestamps.tolist() == [100, 101, 102]
        assert reader.depth_timestamps.tolist() == [200, 201, 202]
        for index, frame in enumerate(frames_of(reader)):
            assert reader.color_bytes(index) == picture(index)
            assert reader.depth_bytes(index) == zlib_depth(index)
            with Image.open(io.BytesIO(picture(index))) as image:
                assert np.array_equal(frame.color, np.array(image))
            assert np.array_equal(frame.depth, depth_image(index))
            assert frame.pose.ravel().tolist() == pose(index)


def test_writer_makes_the_hand_made_bytes(tmp_path):
    path = write(tmp_path / "written.sens")
    assert path.read_bytes() == stream_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_writes_are_repeatable_and_timestamps_default_to_zero(tmp_path):
    paths = [tmp_path / "a.sens", tmp_path / "b.sens"]
    for path in paths:
        with SensWriter.create(path, make_header()) as writer:
            writer.add(np.eye(4), picture(0), depth_image(0))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with SensReader(paths[0]) as reader:
        assert reader.color_timestamps.tolist() == reader.depth_timestamps.tolist() == [0]


@pytest.mark.parametrize("color_kind", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth_kind", ["raw", "zlib"])
def test_round_trip_of_every_compression(tmp_path, color_kind, depth_kind):
    header = make_header(color_compression=color_kind, depth_compression=depth_kind)
    pixels = np.random.default_rng(0).integers(0, 256, (COLOR_H, COLOR_W, 3)).astype(np.uint8)
    if color_kind == "raw":
        payload = pixels.tobytes()
    else:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, color_kind)
        payload = stream.getvalue()
    path = tmp_path / "scan.sens"
    with SensWriter.create(path, header) as writer:
        writer.add(np.eye(4), payload, depth_image(5))
    with SensReader(path) as reader:
        frame = frame_of(reader, 0)
        assert reader.color_bytes(0) == payload
    assert np.array_equal(frame.depth, depth_image(5))
    if color_kind == "jpeg":
        with Image.open(io.BytesIO(payload)) as image:
            pixels = np.array(image)
    assert np.array_equal(frame.color, pixels)


def test_grey_and_transparent_colour_images_become_rgb(tmp_path):
    grey = np.arange(COLOR_H * COLOR_W, dtype=np.uint8).reshape(COLOR_H, COLOR_W)
    for mode in ("L", "RGBA"):
        stream = io.BytesIO()
        Image.fromarray(grey).convert(mode).save(stream, "PNG")
        path = tmp_path / f"{mode}.sens"
        path.write_bytes(one_frame(stream.getvalue(), zlib_depth(), color_code=1))
        assert np.array_equal(read_all(path)[0].color, np.repeat(grey[..., None], 3, axis=2))


def test_empty_stream(tmp_path):
    path = write(tmp_path / "empty.sens", count=0)
    with SensReader(path) as reader:
        assert len(reader) == 0
        assert reader.poses.shape == (0, 4, 4)
        assert frames_of(reader) == []


def test_closing(tmp_path):
    reader = SensReader(write(tmp_path / "scan.sens"))
    assert reader.depth(0).shape == (DEPTH_H, DEPTH_W)
    reader.close()
    reader.close()
    with pytest.raises(SensError, match="closed"):
        reader.depth(0)


def test_index_outside_the_stream(tmp_path):
    with SensReader(write(tmp_path / "scan.sens")) as reader:
        for index in (-1, 3):
            with pytest.raises(IndexError, match="of 3"):
                frame_of(reader, index)


def test_invalid_poses(tmp_path):
    lost, nan, zero, nearly_zero = np.full((4, 4), -np.inf), np.eye(4), np.zeros((4, 4)), np.eye(4)
    nan[1, 2] = np.nan
    nearly_zero[:] = 0
    nearly_zero[3, 3] = 1
    with SensWriter.create(tmp_path / "scan.sens", make_header()) as writer:
        for matrix in (np.eye(4), lost, nan, zero, nearly_zero):
            writer.add(matrix, picture(0), depth_image(0))
    with SensReader(tmp_path / "scan.sens") as reader:
        assert reader.valid.tolist() == [True, False, False, False, True]
        assert np.array_equal(frame_of(reader, 1).pose, lost)


def test_depth_in_millimetres(tmp_path):
    # 5000 units a metre: 5000 -> 1000 mm, 7 -> 1.4 -> 1 mm; 500 a metre: 40000 -> 80 m, too far.
    for shift, stored, expected in (
        (1000.0, [0, 7, 40000], [0, 7, 40000]),
        (5000.0, [0, 7, 5000], [0, 1, 1000]),
        (500.0, [0, 32767, 40000], [0, 65534, 0]),
    ):
        header = make_header(depth_shift=shift, depth_width=3, depth_height=1)
        with SensWriter.create(tmp_path / "scan.sens", header) as writer:
            writer.add(np.eye(4), picture(0), np.array([stored], dtype=np.uint16))
        with SensReader(tmp_path / "scan.sens") as reader:
            assert reader.depth(0).tolist() == [stored]
            assert reader.depth_millimetres(0).tolist() == [expected]
            assert reader.depth_millimetres(0).dtype == np.uint16


def test_motion_sensor_records_after_the_frames(tmp_path):
    path = tmp_path / "scan.sens"
    for records in (0, 2):
        path.write_bytes(stream_bytes() + struct.pack("<Q", records) + bytes(128 * records))
        assert len(read_all(path)) == 3


# Writer refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": np.eye(3)}, r"pose has shape \(3, 3\)"),
        ({"color_bytes": b"not a jpeg"}, "not a jpeg image"),
        ({"color_bytes": picture(0, kind="PNG")}, "not a jpeg image"),
        ({"color_bytes": picture(0, size=(8, 8))}, "8x8 pixels, not 16x12"),
        ({"depth": depth_image(0).astype(np.int32)}, "int32"),
        ({"depth": depth_image(0).T}, r"shape \(8, 6\)"),
        ({"color_timestamp": -1}, "timestamp"),
        ({"depth_timestamp": 2**64}, "timestamp"),
    ],
)
def test_writer_refuses_what_contradicts_the_header(tmp_path, changes, message):
    frame = {"pose": np.eye(4), "color_bytes": picture(0), "depth": depth_image(0)}
    with SensWriter.create(tmp_path / "scan.sens", make_header()) as writer:
        writer.add(**frame)
        with pytest.raises(DataError, match=message) as caught:
            writer.add(**(frame | changes))
    assert "scan.sens: frame 1" in str(caught.value)
    assert len(read_all(tmp_path / "scan.sens")) == 1


def test_failed_writer_keeps_the_earlier_file(tmp_path):
    path = write(tmp_path / "scan.sens")

    def fail():
        with SensWriter.create(path, make_header()) as writer:
            writer.add(np.eye(4), picture(0), depth_image(0))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == stream_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color_compression": "webp"}, "raw, png, jpeg"),
        ({"depth_compression": "occi"}, "not supported .*raw, zlib"),
        ({"color_width": 0}, "between 1 and 8192"),
        ({"depth_height": 10**6}, "between 1 and 8192"),
        ({"depth_shift": 0.0}, "positive"),
        ({"depth_shift": float("nan")}, "positive"),
        ({"intrinsic_depth": np.full((4, 4), np.nan)}, "intrinsic_depth .*non-finite"),
        ({"extrinsic_color": np.eye(3)}, "extrinsic_color .*4x4"),
    ],
)
def test_header_refuses_impossible_values(changes, message):
    with pytest.raises(DataError, match=message):
        make_header(**changes)
