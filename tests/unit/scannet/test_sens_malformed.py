"""Malformed .sens files: each ends in SensError, or in frames of the announced shape."""

import io
import os
import pickle
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fixtures.sens_files import (
    COLOR_H,
    COLOR_W,
    HEADER_BYTES,
    NAME,
    depth_image,
    frame_bytes,
    frame_of,
    header_bytes,
    one_frame,
    picture,
    pose,
    read_all,
    stream_bytes,
    write,
    zlib_depth,
)
from threedrs.errors import ThreedrsError
from threedrs.scannet.sens import SensError, SensReader


def refused(tmp_path, data: bytes) -> SensError:
    path = tmp_path / "bad.sens"
    path.write_bytes(data)
    with pytest.raises(SensError) as caught:
        read_all(path)
    error = caught.value
    assert error.path == path
    assert str(path) in str(error)
    assert f"byte {error.offset}" in str(error)
    assert ("header" if error.frame is None else f"frame {error.frame}") in str(error)
    assert "\n" not in str(error)
    return error


def test_missing_file_folder_and_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.sens")
    for path, message in (
        (tmp_path / "none.sens", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.sens", "not a regular file"),
    ):
        with pytest.raises(SensError, match=message) as caught:
            SensReader(path)
        assert isinstance(caught.value, ThreedrsError)


def test_error_survives_pickling(tmp_path):
    error = pickle.loads(pickle.dumps(SensError(tmp_path / "x.sens", "is odd", 3, 17)))
    assert (error.path, error.frame, error.offset) == (tmp_path / "x.sens", 3, 17)
    assert str(error) == f"{tmp_path / 'x.sens'}: frame 3, byte 17: is odd"


@pytest.mark.slow
def test_truncation_at_every_byte(tmp_path):
    data = stream_bytes()
    for size in range(len(data)):
        error = refused(tmp_path, data[:size])
        if size < HEADER_BYTES:
            assert error.frame is None
        assert error.offset <= size


def test_truncation_is_found_before_any_payload_is_read(tmp_path):
    data = stream_bytes()
    path = tmp_path / "bad.sens"
    path.write_bytes(data[:-1])
    with pytest.raises(SensError, match="truncated") as caught:
        SensReader(path)
    assert caught.value.frame == 2


@pytest.mark.parametrize("tail", [b"\0", bytes(7), bytes(9), b"\1" + bytes(7), b"\xff" * 136])
def test_trailing_garbage(tmp_path, tail):
    data = stream_bytes()
    error = refused(tmp_path, data + tail)
    assert "follow the last frame" in str(error)
    assert error.offset == len(data)


@pytest.mark.parametrize(
    ("header", "offset", "message"),
    [
        ({"version": 3}, 0, "version 3"),
        ({"name": b"\xff\xfe"}, 12, "UTF-8"),
        ({"color_code": -1}, 256, "unknown.*not supported"),
        ({"color_code": 7}, 256, "code 7.*not supported"),
        ({"depth_code": -1}, 260, "unknown.*not supported"),
        ({"depth_code": 2}, 260, "occi.*not supported"),
        ({"depth_code": 9}, 260, "code 9.*not supported"),
        ({"sizes": (0, 12, 8, 6)}, 264, "color_width 0"),
        ({"sizes": (16, 12, 8, 2**32 - 1)}, 276, "depth_height"),
        ({"shift": -1.0}, 280, "depth_shift"),
        ({"shift": float("inf")}, 280, "depth_shift"),
    ],
)
def test_bad_header_fields(tmp_path, header, offset, message):
    error = refused(tmp_path, stream_bytes(**header))
    name = header.get("name", NAME)
    assert error.offset == (offset if offset < 256 else 12 + len(name) + offset)
    assert error.frame is None
    assert re.search(message, str(error))


def test_non_finite_intrinsic(tmp_path):
    data = bytearray(stream_bytes())
    at = 12 + len(NAME) + 128
    data[at : at + 4] = struct.pack("<f", float("nan"))
    assert refused(tmp_path, bytes(data)).offset == at


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 10**12, 1_000_001, 4])
def test_absurd_frame_count(tmp_path, value):
    data = bytearray(stream_bytes())
    data[HEADER_BYTES - 8 : HEADER_BYTES] = struct.pack("<Q", value)
    refused(tmp_path, bytes(data))


def test_frame_count_too_low(tmp_path):
    data = bytearray(stream_bytes())
    data[HEADER_BYTES - 8 : HEADER_BYTES] = struct.pack("<Q", 2)
    assert "follow the last frame" in str(refused(tmp_path, bytes(data)))


@pytest.mark.parametrize("value", [2**64 - 1, 2**63, 2**40, 5000])
def test_absurd_name_length(tmp_path, value):
    data = bytearray(stream_bytes())
    data[4:12] = struct.pack("<Q", value)
    assert refused(tmp_path, bytes(data)).offset == 4


@pytest.mark.parametrize("field", [0, 8])
@pytest.mark.parametrize("value", [0, 2**64 - 1, 2**63, 2**40, 2**30])
def test_absurd_payload_sizes(tmp_path, field, value):
    data = bytearray(stream_bytes())
    at = HEADER_BYTES + 64 + 16 + field
    data[at : at + 8] = struct.pack("<Q", value)
    assert refused(tmp_path, bytes(data)).frame == 0


def test_sparse_giant_is_refused_without_allocation(tmp_path):
    """A hole of 4 GiB behind a valid header: announced sizes fit the file, no image needs them."""
    path = tmp_path / "giant.sens"
    with path.open("wb") as stream:
        stream.write(header_bytes(1) + frame_bytes(pose(0), b"", b"", sizes=(2**32, 64)))
        stream.truncate(2**32 + 10_000)
    tracemalloc.start()
    with pytest.raises(SensError, match="absurd"):
        SensReader(path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("mega", [1, 64])
def test_zlib_bomb(tmp_path, mega):
    payload = zlib.compress(bytes(mega << 20), 9)
    tracemalloc.start()
    error = refused(tmp_path, one_frame(picture(1), payload))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert "more than 96 bytes" in str(error)
    assert error.offset == HEADER_BYTES + 96 + len(picture(1))


@pytest.mark.parametrize("size", [(1000, 1000), (15, 12)])
@pytest.mark.parametrize(("kind", "code"), [("PNG", 1), ("JPEG", 2)])
def test_picture_larger_or_smaller_than_announced(tmp_path, size, kind, code):
    payload = picture(0, size=size, kind=kind)
    error = refused(tmp_path, one_frame(payload, zlib_depth(), color_code=code))
    assert f"{size[0]}x{size[1]} pixels, not 16x12" in str(error)
    assert (error.frame, error.offset) == (0, HEADER_BYTES + 96)


def test_picture_that_announces_65535_pixels_a_side(tmp_path):
    payload = bytearray(picture(0))
    at = payload.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, height, width
    payload[at : at + 4] = b"\xff\xff\xff\xff"
    tracemalloc.start()
    refused(tmp_path, one_frame(bytes(payload), zlib_depth()))
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_sixteen_bit_colour(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(depth_image(0, (COLOR_W, COLOR_H))).save(stream, "PNG")
    error = refused(tmp_path, one_frame(stream.getvalue(), zlib_depth(), color_code=1))
    assert "8 bits a channel" in str(error)


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", b"\xff\xd8", b"GIF89a" + bytes(50), picture(0)[:-2], picture(0)[:-4]],
)
def test_bad_jpeg(tmp_path, payload):
    refused(tmp_path, one_frame(payload, zlib_depth()))


def test_jpeg_cut_anywhere(tmp_path):
    whole = picture(0)
    for size in range(1, len(whole), 7):
        assert refused(tmp_path, one_frame(whole[:size], zlib_depth())).frame == 0


def test_png_with_a_flipped_byte_anywhere(tmp_path):
    whole = picture(0, kind="PNG")
    for at in range(0, len(whole) - 12):  # the end chunk carries nothing
        payload = bytearray(whole)
        payload[at] ^= 0x10
        path = tmp_path / "scan.sens"
        path.write_bytes(one_frame(bytes(payload), zlib_depth(), color_code=1))
        with pytest.raises(SensError):
            read_all(path)


def test_depth_with_a_flipped_byte_anywhere(tmp_path):
    whole = zlib_depth()
    for at in range(len(whole)):
        payload = bytearray(whole)
        payload[at] ^= 0x10
        path = tmp_path / "scan.sens"
        path.write_bytes(one_frame(picture(0), bytes(payload)))
        try:
            depth = read_all(path)[0].depth
        except SensError:
            continue
        # A few bits of a deflate stream are padding and mean nothing.
        assert np.array_equal(depth, depth_image(0))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"x", "damaged"),
        (zlib_depth()[:-1], "truncated"),
        (zlib_depth()[:20], "only"),
        (zlib_depth() + b"more", "4 bytes follow"),
        (zlib.compress(bytes(95)), "only 95 bytes"),
        (zlib.compress(bytes(97)), "more than 96 bytes"),
    ],
)
def test_bad_zlib(tmp_path, payload, message):
    assert message in str(refused(tmp_path, one_frame(picture(0), payload)))


@pytest.mark.parametrize("size", [95, 97])
def test_bad_raw_sizes(tmp_path, size):
    error = refused(tmp_path, one_frame(picture(0), bytes(size), depth_code=0))
    assert f"raw depth payload of {size} bytes, the image has 96" in str(error)


# A file that changes under its reader


def test_file_shrinks_while_open(tmp_path):
    path = write(tmp_path / "scan.sens")
    with SensReader(path) as reader:
        os.truncate(path, HEADER_BYTES + 200)
        with pytest.raises(SensError) as caught:
            frame_of(reader, 2)
    assert caught.value.frame == 2


def test_file_is_rewritten_in_place_while_open(tmp_path):
    path = write(tmp_path / "scan.sens")
    with SensReader(path) as reader:
        with path.open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"!")
        os.utime(path, ns=(1, 1))
        with pytest.raises(SensError, match="changed after it was opened"):
            reader.color_bytes(0)


def test_file_replaced_by_rename_is_read_on_unchanged(tmp_path):
    path = write(tmp_path / "scan.sens")
    with SensReader(path) as reader:
        write(path, count=1)
        assert np.array_equal(reader.depth(2), depth_image(2))


# Fuzz: whatever the bytes, an error of the documented kind or frames of the announced shape

fuzz = settings(
    max_examples=500,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
VALID = stream_bytes(2)


@pytest.fixture(scope="module")
def fuzz_path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "fuzz.sens"


def reads_or_refuses(path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        frames = read_all(path)
    except SensError as caught:
        error = caught
    else:
        assert len(frames) <= 2
        return
    assert error.path == path
    assert 0 <= error.offset <= len(data)


@pytest.mark.slow
@fuzz
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(VALID) - 1), st.integers(1, 255)), min_size=1, max_size=4
    )
)
def test_fuzz_flipped_bytes(fuzz_path, flips):
    data = bytearray(VALID)
    for at, mask in flips:
        data[at] ^= mask
    reads_or_refuses(fuzz_path, bytes(data))


@fuzz
@given(
    at=st.integers(0, len(VALID) - 8),
    word=st.sampled_from(
        [
            struct.pack("<Q", value)
            for value in (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
        ]
        + [struct.pack("<2f", *pair) for pair in ((np.nan, np.inf), (-np.inf, 0.0), (1e38, 1e-40))]
    ),
)
def test_fuzz_absurd_words(fuzz_path, at, word):
    reads_or_refuses(fuzz_path, VALID[:at] + word + VALID[at + 8 :])


@fuzz
@given(
    start=st.integers(0, len(VALID)),
    length=st.integers(0, 400),
    insert=st.binary(max_size=40),
)
def test_fuzz_cut_and_inserted(fuzz_path, start, length, insert):
    reads_or_refuses(fuzz_path, VALID[:start] + insert + VALID[start + length :])
