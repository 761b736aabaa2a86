"""A fast, deterministic mutator of .sens files, and what must hold for whatever it makes.

Case i of a seed is the same bytes everywhere. Each case takes one of three small streams (JPEG and
zlib, PNG and zlib, raw) and changes it in one to three places: cut, bytes flipped, a field set to
an absurd value, a part removed, doubled, overwritten or replaced by one of another stream.
"""

import struct
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sens_files import (
    COLOR_H,
    COLOR_W,
    DEPTH_H,
    DEPTH_W,
    HEADER_BYTES,
    depth_image,
    frame_bytes,
    header_bytes,
    picture,
    pose,
    zlib_depth,
)

from threedrs.scannet.sens import SensError, SensReader

FRAMES = 2
# What a decoder may hold beside twice the file and the frame that the header announces: Pillow's
# and zlib's buffers and the interpreter's own objects.
DECODER_BYTES = 1 << 20
_U32 = (0, 1, 3, 5, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_U64 = (0, 1, 96, 2**16, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_F32 = (0.0, -1.0, 1e-40, 1e38, float("inf"), float("-inf"), float("nan"))


def _raw_picture(seed: int) -> bytes:
    values = np.random.default_rng(seed + 50).integers(0, 256, (COLOR_H, COLOR_W, 3))
    return values.astype(np.uint8).tobytes()


def _stream(color_code: int, depth_code: int) -> bytes:
    out = header_bytes(FRAMES, color_code=color_code, depth_code=depth_code)
    for index in range(FRAMES):
        color = {
            0: lambda index=index: _raw_picture(index),
            1: lambda index=index: picture(index, kind="PNG"),
            2: lambda index=index: picture(index),
        }[color_code]()
        depth = zlib_depth(index) if depth_code else depth_image(index).astype("<u2").tobytes()
        out += frame_bytes(pose(index), color, depth, (100 + index, 200 + index))
    return out


STREAMS = (_stream(2, 1), _stream(1, 1), _stream(0, 0))


@dataclass
class Tally:
    """What became of the cases so far; ``largest`` is the most memory beyond the file's size."""

    cases: int = 0
    refused: int = 0
    frames: int = 0
    largest: int = 0
    reasons: set[str] = field(default_factory=set)


def structure(data: bytes) -> list[int]:
    """Offsets of the fields of a valid stream: header, and each frame's pose and sizes."""
    fields = [0, 4, *range(HEADER_BYTES - 292, HEADER_BYTES, 4)]
    offset = HEADER_BYTES
    for _ in range(FRAMES):
        fields += [offset, offset + 60, offset + 64, offset + 72, offset + 80, offset + 88]
        color, depth = struct.unpack_from("<2Q", data, offset + 80)
        fields += [offset + 96, offset + 96 + color]
        offset += 96 + color + depth
    return [at for at in fields if at < len(data) - 8]


FIELDS = tuple(structure(data) for data in STREAMS)


def mutated(generator: np.random.Generator) -> bytes:
    """Return the next case."""
    which = int(generator.integers(len(STREAMS)))
    data = bytearray(STREAMS[which])
    for _ in range(int(generator.integers(1, 4))):
        if not data:
            break
        kind = int(generator.integers(8))
        at = int(generator.integers(len(data)))
        length = int(generator.integers(1, 200))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at] ^= int(generator.integers(1, 256))
        elif kind in (2, 3):  # a field of the format
            at = FIELDS[which][int(generator.integers(len(FIELDS[which])))]
            data[at : at + 8] = _word(generator, data[at : at + 8])
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + length]
        elif kind == 6:
            data[at : at + length] = generator.bytes(min(length, len(data) - at))
        else:
            other = STREAMS[int(generator.integers(len(STREAMS)))]
            start = int(generator.integers(len(other)))
            data[at : at + length] = other[start : start + length]
    return bytes(data)


def _word(generator: np.random.Generator, present: bytes) -> bytes:
    kind = int(generator.integers(4))
    if kind == 0:
        return struct.pack("<Q", _U64[int(generator.integers(len(_U64)))])
    if kind == 1:
        return struct.pack("<I", _U32[int(generator.integers(len(_U32)))]) + present[4:]
    if kind == 2:
        return struct.pack("<f", _F32[int(generator.integers(len(_F32)))]) + present[4:]
    near = int.from_bytes(present, "little") + int(generator.integers(-3, 4))
    return (near % 2**64).to_bytes(8, "little")[: len(present)]


_DEPTHS = {depth_image(index).astype("<u2").tobytes() for index in range(FRAMES)}


def check_case(path: Path, data: bytes, tally: Tally) -> None:
    """Read ``data`` as a file: frames as announced, or SensError; count it, and its memory.

    Needs tracemalloc to run. A depth image that zlib's checksum passes must be one of the original
    ones; a JPEG carries no checksum, so of colour only the shape is known.
    """
    path.write_bytes(data)
    tally.cases += 1
    announced = 0
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        with SensReader(path) as reader:
            header = reader.header
            announced = header.color_bytes + header.depth_bytes
            assert len(reader) * 96 <= len(data)
            for frame in reader:
                assert frame.color.shape == (header.color_height, header.color_width, 3)
                assert frame.depth.shape == (header.depth_height, header.depth_width)
                assert (frame.color.dtype, frame.depth.dtype) == (np.uint8, np.uint16)
                if header.depth_compression == "zlib" and frame.depth.size == DEPTH_W * DEPTH_H:
                    assert frame.depth.astype("<u2").tobytes() in _DEPTHS
                tally.frames += 1
    except SensError as refusal:
        check_refusal(refusal, path, len(data))
        tally.refused += 1
        tally.reasons.add(refusal.problem[:14])
    peak = tracemalloc.get_traced_memory()[1] - before
    tally.largest = max(tally.largest, peak - 2 * announced)
    assert peak <= 2 * len(data) + 2 * announced + DECODER_BYTES


def check_refusal(refusal: SensError, path: Path, size: int) -> None:
    """Check that an error names its file and a byte of it, in one line."""
    assert refusal.path == path
    assert 0 <= refusal.offset <= size
    assert "\n" not in str(refusal)


def run_cases(path: Path, count: int, seed: int) -> Tally:
    """Run ``count`` cases of ``seed``.

    Raises:
        AssertionError: a case broke a promise; its bytes are left at ``path``.
    """
    generator = np.random.default_rng(seed)
    tally = Tally()
    tracemalloc.start()
    try:
        for _ in range(count):
            check_case(path, mutated(generator), tally)
    finally:
        tracemalloc.stop()
    return tally
