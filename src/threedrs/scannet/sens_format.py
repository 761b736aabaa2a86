"""The ``.sens`` RGB-D stream format, version 4: header, frame header, payloads, limits, errors.

Everything is little endian. Layout (ScanNet's SensReader, ``sensorData.h``)::

    header   u32 version = 4; u64 n, n bytes sensor name;
             4x4 f32 colour intrinsic, colour extrinsic, depth intrinsic, depth extrinsic;
             i32 colour compression, i32 depth compression;
             u32 colour width, colour height, depth width, depth height;
             f32 depth shift (depth units per metre); u64 frame count
    frame    4x4 f32 camera to world; u64 colour timestamp, depth timestamp (microseconds),
             colour bytes, depth bytes; colour payload; depth payload
    trailer  nothing, or u64 m and m motion-sensor records of 128 bytes (ScanNet's own files)

The limits below are far above any RGB-D sensor. They keep a damaged size field from turning into
an allocation. Decoding never allocates more than the image that the header announces: an image's
own size is compared with the header's before its pixels are decoded, and zlib stops one byte past
the expected end. PNG and zlib carry checksums, which are compared. JPEG carries none: damage that
still decodes to a full image of the right size cannot be told from an undamaged one.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from threedrs.errors import DataError
from threedrs.io.images import ImageError, decode_rgb, open_image

VERSION = 4
COLOR_COMPRESSIONS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_COMPRESSIONS = {0: "raw", 1: "zlib"}
UNREADABLE_COMPRESSIONS = {"color": {-1: "unknown"}, "depth": {-1: "unknown", 2: "occi"}}

MAX_NAME_BYTES = 4096
MAX_SIDE = 8192  # pixels
MAX_FRAMES = 1_000_000  # nine hours at 30 frames a second
ZLIB_LEVEL = 4  # of depth: half the time of the usual 6, and a seventh more bytes

FRAME_HEADER = struct.Struct("<16f4Q")
MOTION_RECORD_BYTES = 128  # five vectors of three f64, and a u64 timestamp
_PREFIX = struct.Struct("<IQ")
_SUFFIX = struct.Struct("<64f2i4IfQ")
# The header's fields after the sensor's name, in the order of the file: matrices of 64 bytes, then
# numbers of four; the frame count ends the header.
_MATRICES = ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth")
_SIZES = ("color_width", "color_height", "depth_width", "depth_height")
_NUMBERS = ("color_compression", "depth_compression", *_SIZES, "depth_shift")
_SUFFIX_OFFSETS = {name: 64 * place for place, name in enumerate(_MATRICES)} | {
    name: 256 + 4 * place for place, name in enumerate(_NUMBERS)
}
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")


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

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.field, self.problem = name, f"{name} {problem}"

    def __str__(self) -> str:
        return f".sens header: {self.problem}"


class PayloadError(DataError):
    """A payload is not what the header says: one clause, to which the caller adds the place."""


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
    extrinsic_color: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    intrinsic_depth: NDArray[np.float64]
    extrinsic_depth: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    color_compression: str = "jpeg"
    depth_compression: str = "zlib"
    color_width: int
    color_height: int
    depth_width: int
    depth_height: int
    depth_shift: float = 1000.0

    def __post_init__(self) -> None:
        for name in _MATRICES:
            with np.errstate(over="ignore"):
                matrix = np.asarray(getattr(self, name)).astype(np.float32).astype(np.float64)
            if matrix.shape != (4, 4):
                raise HeaderFieldError(name, "is not a 4x4 matrix")
            # Extrinsics take no part in any computation here, so a scan is not refused for them.
            if name.startswith("intrinsic") and not np.isfinite(matrix).all():
                raise HeaderFieldError(name, "holds a non-finite value")
            object.__setattr__(self, name, matrix)
        for name, valid in (
            ("color_compression", COLOR_COMPRESSIONS),
            ("depth_compression", DEPTH_COMPRESSIONS),
        ):
            if (found := getattr(self, name)) not in valid.values():
                choices = ", ".join(valid.values())
                raise HeaderFieldError(name, f"{found!r} is not supported (one of: {choices})")
        for name in _SIZES:
            if not 1 <= (side := getattr(self, name)) <= MAX_SIDE:
                raise HeaderFieldError(name, f"{side} is not between 1 and {MAX_SIDE} pixels")
        with np.errstate(over="ignore"):
            depth_shift = float(np.float32(self.depth_shift))
        object.__setattr__(self, "depth_shift", depth_shift)
        if not (np.isfinite(depth_shift) and depth_shift > 0):
            raise HeaderFieldError("depth_shift", f"{self.depth_shift} is not a positive number")

    @property
    def color_size(self) -> tuple[int, int]:
        """Width and height of a colour image."""
        return self.color_width, self.color_height

    @property
    def depth_size(self) -> tuple[int, int]:
        """Width and height of a depth image."""
        return self.depth_width, self.depth_height

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
        matrices = np.stack([getattr(self, matrix) for matrix in _MATRICES])
        return (
            _PREFIX.pack(VERSION, len(name))
            + name
            + _SUFFIX.pack(
                *matrices.ravel(),
                _code(COLOR_COMPRESSIONS, self.color_compression),
                _code(DEPTH_COMPRESSIONS, self.depth_compression),
                *(getattr(self, side) for side in _SIZES),
                self.depth_shift,
                frame_count,
            )
        )


def _code(names: dict[int, str], name: str) -> int:
    return next(code for code, known in names.items() if known == name)


def read_header(path: Path, read: Callable[[int, int], bytes]) -> tuple[SensHeader, int, bytes]:
    """Parse the header; return it with the frame count and the header's own bytes.

    Args:
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
    *values, frame_count = _SUFFIX.unpack(suffix)
    matrices = np.array(values[:64], dtype=np.float64).reshape(4, 4, 4)
    fields: dict[str, Any] = dict(zip(_MATRICES, matrices, strict=True))
    fields |= dict(zip(_NUMBERS, values[64:], strict=True))
    for kind, names in (("color", COLOR_COMPRESSIONS), ("depth", DEPTH_COMPRESSIONS)):
        # A compression that cannot be read gets a name too: SensHeader refuses it by that name.
        code = fields[f"{kind}_compression"]
        unreadable = UNREADABLE_COMPRESSIONS[kind].get(code, f"code {code}")
        fields[f"{kind}_compression"] = names.get(code, unreadable)
    try:
        header = SensHeader(sensor_name=name.decode(), **fields)
    except UnicodeDecodeError as error:
        raise SensError(path, "sensor name is not UTF-8", offset=_PREFIX.size) from error
    except HeaderFieldError as error:
        offset = start + _SUFFIX_OFFSETS[error.field]
        raise SensError(path, error.problem, offset=offset) from error
    return header, frame_count, prefix + name + suffix


def frame_count_offset(header_bytes: bytes) -> int:
    """Return the byte at which the header's frame count stands."""
    return len(header_bytes) - 8


def decode_color(payload: bytes, header: SensHeader) -> NDArray[np.uint8]:
    """Decode a colour payload.

    Returns:
        (H, W, 3) uint8, RGB, writable.

    Raises:
        PayloadError: not of the header's compression or size, truncated or damaged.
    """
    shape = (header.color_height, header.color_width, 3)
    # The size is compared first, so that no more is decoded than the header announces.
    check_color(payload, header)
    if header.color_compression == "raw":
        return np.frombuffer(payload, dtype=np.uint8).reshape(shape).copy()
    try:
        color = decode_rgb(payload, (header.color_compression.upper(),))
    except ImageError as error:
        raise _damaged_color(header, error) from error
    if color.shape != shape:
        raise PayloadError(f"colour payload decodes to shape {color.shape}, not {shape}")
    return color


def check_color(payload: bytes, header: SensHeader) -> None:
    """Check format and size of a colour payload from its first bytes, without decoding it.

    Raises:
        PayloadError: not of the header's compression or size.
    """
    if header.color_compression == "raw":
        if len(payload) != header.color_bytes:
            raise PayloadError(
                f"raw colour payload has {len(payload)} bytes, not {header.color_bytes}"
            )
        return
    try:
        with open_image(payload, (header.color_compression.upper(),)) as image:
            size, mode = image.size, image.mode
    except ImageError as error:
        raise _damaged_color(header, error) from error
    if size != header.color_size:
        sizes = "{}x{} pixels, not {}x{}".format(*size, *header.color_size)
        raise PayloadError(f"colour image is {sizes}")
    if mode not in _EIGHT_BIT_MODES:
        raise PayloadError(f"colour image has mode {mode}, not 8 bits a channel")


def _damaged_color(header: SensHeader, error: ImageError) -> PayloadError:
    if isinstance(error.__cause__, UnidentifiedImageError):
        return PayloadError(f"colour payload is not a {header.color_compression} image")
    return PayloadError(f"{header.color_compression} colour payload is damaged ({error.__cause__})")


def decode_depth(payload: bytes, header: SensHeader) -> NDArray[np.uint16]:
    """Decode a depth payload.

    Returns:
        (H, W) uint16 in the header's depth units (0: no measurement), writable.

    Raises:
        PayloadError: truncated, damaged, or of another size than the header says.
    """
    expected = header.depth_bytes
    if header.depth_compression == "zlib":
        decoder = zlib.decompressobj()
        try:
            # One byte more than the image shows an oversized payload without unpacking all of it.
            data = decoder.decompress(payload, expected + 1)
        except zlib.error as error:
            raise PayloadError(f"zlib depth payload is damaged ({error})") from error
        if len(data) == expected and not decoder.eof:
            raise PayloadError("zlib depth payload is truncated")
        if decoder.unused_data:
            raise PayloadError(f"{len(decoder.unused_data)} bytes follow the zlib depth payload")
    else:
        data = payload
    if len(data) != expected:
        relation = "more than" if len(data) > expected else "only"
        raise PayloadError(
            f"depth payload holds {relation} {min(expected, len(data))} bytes, a "
            f"{header.depth_width}x{header.depth_height} image needs {expected}"
        )
    depth = np.frombuffer(data, dtype="<u2").astype(np.uint16)
    return depth.reshape(header.depth_height, header.depth_width)


def encode_depth(depth: NDArray[np.uint16], header: SensHeader) -> bytes:
    """Return the depth payload of (H, W) uint16; the same array gives the same bytes.

    Raises:
        PayloadError: the array has another shape or dtype than the header says.
    """
    shape = (header.depth_height, header.depth_width)
    if depth.shape != shape or depth.dtype != np.uint16:
        raise PayloadError(
            f"depth is {depth.dtype} of shape {depth.shape}, not uint16 of shape {shape}"
        )
    data = depth.astype("<u2").tobytes()
    return zlib.compress(data, ZLIB_LEVEL) if header.depth_compression == "zlib" else data


def check_payload_sizes(color_bytes: int, depth_bytes: int, header: SensHeader) -> None:
    """Check payload sizes against what the header's images can need.

    Raises:
        PayloadError: a raw payload of the wrong size, or a compressed one of an absurd size.
    """
    for kind, size, compression, decoded in (
        ("colour", color_bytes, header.color_compression, header.color_bytes),
        ("depth", depth_bytes, header.depth_compression, header.depth_bytes),
    ):
        if compression == "raw" and size != decoded:
            raise PayloadError(f"raw {kind} payload of {size} bytes, the image has {decoded}")
        if size == 0 or size > largest_payload(decoded):
            raise PayloadError(
                f"{compression} {kind} payload of {size} bytes is absurd for an image of {decoded}"
            )


def largest_payload(decoded_bytes: int) -> int:
    """Return the most bytes that a sane payload has: twice the decoded image, and a MiB of tags."""
    return 2 * decoded_bytes + (1 << 20)
