"""The ``.sens`` RGB-D stream format, version 4: header, frame header, limits and the error type.

Everything is little endian. Layout (ScanNet's SensReader, ``sensorData.h``)::

    header   u32 version = 4; u64 n, n bytes sensor name;
             4x4 f32 colour intrinsic, colour extrinsic, depth intrinsic, depth extrinsic;
             i32 colour compression, i32 depth compression;
             u32 colour width, colour height, depth width, depth height;
             f32 depth shift (depth units per metre); u64 frame count
    frame    4x4 f32 camera to world; u64 colour timestamp, depth timestamp (microseconds),
             colour bytes, depth bytes; colour payload; depth payload
    trailer  nothing, or u64 m and m motion-sensor records of 128 bytes (ScanNet's own files)

The limits below are far above any RGB-D sensor; they keep a damaged size field from turning into
an allocation.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError

VERSION = 4
COLOR_COMPRESSIONS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSIONS = {0: "raw", 1: "zlib"}
UNREADABLE_COMPRESSIONS = {"color": {-1: "unknown"}, "depth": {-1: "unknown", 2: "occi"}}

MAX_NAME_BYTES = 4096
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 1_000_000  # nine hours at 30 frames a second

FRAME_HEADER = struct.Struct("<16f4Q")
MOTION_RECORD_BYTES = 128  # five vectors of three f64, and a u64 timestamp
_PREFIX = struct.Struct("<IQ")
_SUFFIX = struct.Struct("<64f2i4IfQ")
_SUFFIX_OFFSETS = {
    "intrinsic_color": 0,
    "extrinsic_color": 64,
    "intrinsic_depth": 128,
    "extrinsic_depth": 192,
    "color_compression": 256,
    "depth_compression": 260,
    "color_width": 264,
    "color_height": 268,
    "depth_width": 272,
    "depth_height": 276,
    "depth_shift": 280,
    "frame_count": 284,
}


class SensError(DataError):
    """A ``.sens`` file is malformed, unsupported, or changed while being read.

    Attributes:
        path: the file.
        frame: the frame's index in the stream, or None where the fault is in no one frame.
        offset: the byte of the file at which the faulty field, frame or payload starts.
    """

    def __init__(self, path: Path, problem: str, frame: int | None = None, offset: int = 0) -> None:
        # All four are kept as arguments so that the error survives pickling between processes.
        super().__init__(path, problem, frame, offset)
        self.path = Path(path)
        self.problem = problem
        self.frame = frame
        self.offset = offset

    def __str__(self) -> str:
        place = "header" if self.frame is None else f"frame {self.frame}"
        return f"{self.path}: {place}, byte {self.offset}: {self.problem}"


class HeaderFieldError(DataError):
    """A header field holds a value that no scan can have; ``field`` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field

    def __str__(self) -> str:
        return f".sens header: {self.args[1]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class SensHeader:
    """The facts that hold for all frames of a stream.

    ``intrinsic_*`` are 4x4 pinhole matrices in pixels, ``extrinsic_*`` 4x4 (identity in ScanNet),
    ``depth_shift`` is depth units per metre. All are held as float64, rounded to the f32 that the
    file stores.

    Raises:
        DataError: a field's value is impossible; the message names field and valid values.
    """

    sensor_name: str
    intrinsic_color: NDArray[np.float64]
    extrinsic_color: NDArray[np.float64]
    intrinsic_depth: NDArray[np.float64]
    extrinsic_depth: NDArray[np.float64]
    color_compression: str = "jpeg"
    depth_compression: str = "zlib"
    color_width: int
    color_height: int
    depth_width: int
    depth_height: int
    depth_shift: float = 1000.0

    def __post_init__(self) -> None:
        if len(self.sensor_name.encode()) > MAX_NAME_BYTES:
            raise HeaderFieldError("sensor_name", f"sensor name exceeds {MAX_NAME_BYTES} bytes")
        for field in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
            with np.errstate(over="ignore"):
                matrix = np.asarray(getattr(self, field)).astype(np.float32).astype(np.float64)
            if matrix.shape != (4, 4):
                raise HeaderFieldError(field, f"{field} is not a 4x4 matrix")
            # Extrinsics take no part in any computation here, so a scan is not refused for them.
            if field.startswith("intrinsic") and not np.isfinite(matrix).all():
                raise HeaderFieldError(field, f"{field} holds a non-finite value")
            object.__setattr__(self, field, matrix)
        for field, valid in (
            ("color_compression", COLOR_COMPRESSIONS),
            ("depth_compression", DEPTH_COMPRESSIONS),
        ):
            if getattr(self, field) not in valid.values():
                choices = ", ".join(valid.values())
                raise HeaderFieldError(
                    field, f"{field} {getattr(self, field)!r} is not supported (one of: {choices})"
                )
        for field in ("color_width", "color_height", "depth_width", "depth_height"):
            if not 1 <= getattr(self, field) <= MAX_SIDE:
                raise HeaderFieldError(
                    field, f"{field} {getattr(self, field)} is not between 1 and {MAX_SIDE} pixels"
                )
        with np.errstate(over="ignore"):
            depth_shift = float(np.float32(self.depth_shift))
        object.__setattr__(self, "depth_shift", depth_shift)
        if not (np.isfinite(depth_shift) and depth_shift > 0):
            raise HeaderFieldError(
                "depth_shift", f"depth_shift {self.depth_shift} is not a positive number"
            )

    @property
    def color_bytes(self) -> int:
        """Bytes of one decoded colour image."""
        return self.color_width * self.color_height * 3

    @property
    def depth_bytes(self) -> int:
        """Bytes of one decoded depth image."""
        return self.depth_width * self.depth_height * 2

    def pack(self, frame_count: int) -> bytes:
        """Return the header's bytes."""
        name = self.sensor_name.encode()
        matrices = np.stack(
            [
                self.intrinsic_color,
                self.extrinsic_color,
                self.intrinsic_depth,
                self.extrinsic_depth,
            ]
        )
        return (
            _PREFIX.pack(VERSION, len(name))
            + name
            + _SUFFIX.pack(
                *matrices.ravel(),
                _code(COLOR_COMPRESSIONS, self.color_compression),
                _code(DEPTH_COMPRESSIONS, self.depth_compression),
                self.color_width,
                self.color_height,
                self.depth_width,
                self.depth_height,
                self.depth_shift,
                frame_count,
            )
        )


def _code(names: dict[int, str], name: str) -> int:
    return next(code for code, known in names.items() if known == name)


def read_header(path: Path, read: Callable[[int, int], bytes]) -> tuple[SensHeader, int, bytes]:
    """Parse the header; return it with the frame count and the header's own bytes.

    Args:
        path: the file, for messages.
        read: ``read(offset, size)`` returns exactly ``size`` bytes, or raises SensError.

    Raises:
        SensError: the header is truncated, of another version, or holds impossible values.
    """
    prefix = read(0, _PREFIX.size)
    version, name_bytes = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise SensError(
            path, f"version {version} is not supported (only {VERSION}: is it a .sens?)"
        )
    if name_bytes > MAX_NAME_BYTES:
        raise SensError(path, f"sensor name of {name_bytes} bytes is absurd", offset=4)
    name = read(_PREFIX.size, name_bytes)
    start = _PREFIX.size + name_bytes
    suffix = read(start, _SUFFIX.size)
    values = _SUFFIX.unpack(suffix)
    matrices = np.array(values[:64], dtype=np.float64).reshape(4, 4, 4)
    color_code, depth_code, color_width, color_height, depth_width, depth_height = values[64:70]
    try:
        header = SensHeader(
            sensor_name=name.decode(),
            intrinsic_color=matrices[0],
            extrinsic_color=matrices[1],
            intrinsic_depth=matrices[2],
            extrinsic_depth=matrices[3],
            color_compression=_compression("color", COLOR_COMPRESSIONS, color_code),
            depth_compression=_compression("depth", DEPTH_COMPRESSIONS, depth_code),
            color_width=color_width,
            color_height=color_height,
            depth_width=depth_width,
            depth_height=depth_height,
            depth_shift=values[70],
        )
    except UnicodeDecodeError as error:
        raise SensError(path, "sensor name is not UTF-8", offset=_PREFIX.size) from error
    except HeaderFieldError as error:
        offset = start + _SUFFIX_OFFSETS[error.field]
        raise SensError(path, str(error.args[1]), offset=offset) from error
    return header, values[71], prefix + name + suffix


def _compression(kind: str, names: dict[int, str], code: int) -> str:
    """Return the compression's name; one that cannot be read is refused by SensHeader."""
    return names.get(code) or UNREADABLE_COMPRESSIONS[kind].get(code, f"code {code}")


def frame_count_offset(header_bytes: bytes) -> int:
    """Return the byte at which the header's frame count stands."""
    return len(header_bytes) - 8


def largest_payload(decoded_bytes: int) -> int:
    """Return the most bytes that a sane payload has: twice the decoded image, and a MiB of tags."""
    return 2 * decoded_bytes + (1 << 20)
