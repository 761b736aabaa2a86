"""Hand-made .sens streams for tests: bytes packed with struct from the format's description."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from threedrs.scannet.sens import SensFrame, SensHeader, SensReader, SensWriter

COLOR_W, COLOR_H, DEPTH_W, DEPTH_H = 16, 12, 8, 6
NAME = b"TestSensor"
HEADER_BYTES = 4 + 8 + len(NAME) + 4 * 64 + 2 * 4 + 4 * 4 + 4 + 8
INTRINSIC_COLOR = [10.5, 0, 8, 0, 0, 11.5, 6, 0, 0, 0, 1, 0, 0, 0, 0, 1]
INTRINSIC_DEPTH = [5.25, 0, 4, 0, 0, 5.75, 3, 0, 0, 0, 1, 0, 0, 0, 0, 1]
IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


def picture(seed: int, size=(COLOR_W, COLOR_H), kind="JPEG") -> bytes:
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    array = np.stack([x, y, np.full_like(x, 20 * seed)], axis=-1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def depth_image(seed: int, size=(DEPTH_W, DEPTH_H)) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 65536, size=(size[1], size[0]))
    return values.astype(np.uint16)


def pose(seed: int) -> list[float]:
    values = list(map(float, IDENTITY))
    values[3] = 0.5 * seed
    return values


def header_bytes(
    frames,
    *,
    version=4,
    name=NAME,
    color_code=2,
    depth_code=1,
    sizes=(COLOR_W, COLOR_H, DEPTH_W, DEPTH_H),
    shift=1000.0,
):
    out = struct.pack("<I", version) + struct.pack("<Q", len(name)) + name
    for matrix in (INTRINSIC_COLOR, IDENTITY, INTRINSIC_DEPTH, IDENTITY):
        out += struct.pack("<16f", *matrix)
    out += struct.pack("<i", color_code) + struct.pack("<i", depth_code)
    out += struct.pack("<4I", *sizes) + struct.pack("<f", shift) + struct.pack("<Q", frames)
    return out


def frame_bytes(pose_values, color, depth, times=(0, 0), sizes=None):
    color_size, depth_size = sizes or (len(color), len(depth))
    out = struct.pack("<16f", *pose_values)
    out += struct.pack("<4Q", *times, color_size, depth_size)
    return out + color + depth


def stream_bytes(count=3, **header) -> bytes:
    out = header_bytes(count, **header)
    for index in range(count):
        depth = zlib.compress(depth_image(index).astype("<u2").tobytes(), 6)
        out += frame_bytes(pose(index), picture(index), depth, (100 + index, 200 + index))
    return out


def one_frame(color: bytes, depth: bytes, **header) -> bytes:
    return header_bytes(1, **header) + frame_bytes(pose(1), color, depth)


def zlib_depth(seed=0) -> bytes:
    return zlib.compress(depth_image(seed).astype("<u2").tobytes(), 6)


def make_header(**changes) -> SensHeader:
    values = {
        "sensor_name": NAME.decode(),
        "intrinsic_color": np.reshape(INTRINSIC_COLOR, (4, 4)),
        "extrinsic_color": np.eye(4),
        "intrinsic_depth": np.reshape(INTRINSIC_DEPTH, (4, 4)),
        "extrinsic_depth": np.eye(4),
        "color_width": COLOR_W,
        "color_height": COLOR_H,
        "depth_width": DEPTH_W,
        "depth_height": DEPTH_H,
    }
    return SensHeader(**(values | changes))


def write(path, count=3):
    with SensWriter(path, make_header()) as writer:
        for index in range(count):
            writer.add(
                np.reshape(pose(index), (4, 4)),
                picture(index),
                depth_image(index),
                100 + index,
                200 + index,
            )
    return path


def read_all(path) -> list[SensFrame]:
    with SensReader(path) as reader:
        frames = list(reader)
        header = reader.header
    for frame in frames:
        assert frame.color.shape == (header.color_height, header.color_width, 3)
        assert frame.depth.shape == (header.depth_height, header.depth_width)
        assert frame.color.dtype == np.uint8
        assert frame.depth.dtype == np.uint16
    return frames
