"""Scans that were exported to loose files: the ``posed_images/<scene>/`` layout.

Per frame ``00000.jpg``, ``00000.png`` (depth, 16-bit millimetres) and ``00000.txt`` (4x4 camera to
world, ``-inf`` where not localised); per scan ``intrinsic.txt`` (colour) and
``depth_intrinsic.txt``. The number in a name is the frame's index in the stream, so an export of
every 10th frame is numbered 0, 10, 20. `threedrs.scannet.export` writes this layout.

Opening lists the folder and reads the poses (small texts); images are read when asked for. What
comes out equals what the .sens gave, bit for bit: numbers are rounded to the f32 they came from.
"""

import io
import re
import stat
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.files import read_text
from threedrs.scannet.sens_format import HeaderFieldError, SensHeader, largest_payload
from threedrs.scannet.sens_payload import PayloadError, decode_color
from threedrs.scannet.trajectory import parse_numbers

_FRAME_FILE = re.compile(r"(\d{5,9})\.(jpg|png|txt)")
_KINDS = ("jpg", "png", "txt")
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I")  # Pillow's modes of a 16-bit grey PNG
MOST_MATRIX_BYTES = 64 * 2**10  # sixteen numbers
_REMEDY = "export the scan again (threedrs sens export)"


class PosedImagesReader:
    """Random access to the frames of an exported scan, as `threedrs.scannet.sens.SensReader`.

    Frames are counted by their place i = 0..N-1 in the folder; ``frame_ids`` has their numbers.

    Attributes:
        path: the folder.
        header: what holds for all frames; sizes are those of the first frame's images.
        header_bytes: the header as a .sens would hold it (for content hashes).
        frame_ids: (N,) int64, the number in the names of each frame, ascending.
        poses: (N,4,4) f64 camera to world, metres.
        valid: (N,) bool, False where the pose holds a non-finite value or is all zero.

    Raises:
        DataError: the folder is missing or incomplete, or a text is malformed; also later, by any
            method, if an image is missing, damaged or of another size.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._names = _frame_names(self.path)
        self.frame_ids = np.array([int(name) for name in self._names], dtype=np.int64)
        self.header = self._read_header()
        self.header_bytes = self.header.pack(len(self))
        self.poses = np.stack([_read_matrix(self.path / f"{name}.txt") for name in self._names])
        finite = np.isfinite(self.poses).all(axis=(1, 2))
        self.valid = finite & (self.poses != 0).any(axis=(1, 2))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held open."""

    def __len__(self) -> int:
        return len(self._names)

    def color(self, index: int) -> NDArray[np.uint8]:
        """Decode the colour image of the frame at place ``index``: (H, W, 3) uint8, RGB."""
        payload = self.color_bytes(index)
        try:
            return decode_color(payload, self.header)
        except PayloadError as error:
            raise DataError(f"{self._file(index, 'jpg')}: {error}; {_REMEDY}") from error

    def depth_millimetres(self, index: int) -> NDArray[np.uint16]:
        """Decode the depth image of the frame at place ``index``: (H, W) uint16, millimetres."""
        payload = self.depth_bytes(index)
        try:
            return _decode_depth(payload, self.header)
        except PayloadError as error:
            raise DataError(f"{self._file(index, 'png')}: {error}; {_REMEDY}") from error

    def color_bytes(self, index: int) -> bytes:
        """Return the JPEG of the frame at place ``index`` as it stands in its file."""
        return _read_bytes(self._file(index, "jpg"), self.header.color_bytes)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth PNG of the frame at place ``index`` as it stands in its file."""
        return _read_bytes(self._file(index, "png"), self.header.depth_bytes)

    def _file(self, index: int, kind: str) -> Path:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: frame {index} of {len(self)}")
        return self.path / f"{self._names[index]}.{kind}"

    def _read_header(self) -> SensHeader:
        color_size = _image_size(self._file(0, "jpg"), "JPEG")
        depth_size = _image_size(self._file(0, "png"), "PNG")
        try:
            return SensHeader(
                sensor_name="posed_images",
                intrinsic_color=_read_matrix(self.path / "intrinsic.txt"),
                extrinsic_color=np.eye(4),
                intrinsic_depth=_read_matrix(self.path / "depth_intrinsic.txt"),
                extrinsic_depth=np.eye(4),
                color_width=color_size[0],
                color_height=color_size[1],
                depth_width=depth_size[0],
                depth_height=depth_size[1],
            )
        except HeaderFieldError as error:
            raise DataError(f"{self.path}: {error.args[1]}; {_REMEDY}") from error


def _frame_names(folder: Path) -> list[str]:
    """Return the stems of the frames, by number; every frame has its three files."""
    try:
        matches = [_FRAME_FILE.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); it must hold the exported frames"
        ) from error
    found = {match.group(1, 2) for match in matches if match is not None}
    names = sorted({name for name, _ in found}, key=int)
    if not names:
        raise DataError(f"{folder}: holds no frame (00000.jpg, 00000.png, 00000.txt); {_REMEDY}")
    for name in names:
        for kind in _KINDS:
            if (name, kind) not in found:
                raise DataError(
                    f"{folder}: {name}.{kind} is missing, frame {name} is incomplete; {_REMEDY}, "
                    "or delete the frame's other files"
                )
    for name, following in pairwise(names):
        if int(name) == int(following):
            raise DataError(f"{folder}: {name} and {following} are the same frame; delete one")
    return names


def _read_matrix(path: Path) -> NDArray[np.float64]:
    """Return the (4,4) matrix of a text file, each number rounded to f32."""
    values = parse_numbers(read_text(path, most=MOST_MATRIX_BYTES), str(path))
    if len(values) != 16:
        raise DataError(f"{path}: holds {len(values)} numbers, a 4x4 matrix has 16; {_REMEDY}")
    with np.errstate(over="ignore"):
        return np.reshape(values, (4, 4)).astype(np.float32).astype(np.float64)


def _image_size(path: Path, kind: str) -> tuple[int, int]:
    """Return an image's (width, height) from its first bytes."""
    try:
        if not path.is_file():  # a named pipe would wait for its writer
            raise OSError("not a regular file")
        with Image.open(path, formats=[kind]) as image:
            return image.size
    except Exception as error:  # Pillow documents no closed set of exceptions for damaged input
        raise DataError(f"{path}: is not a readable {kind} ({error}); {_REMEDY}") from error


def _read_bytes(path: Path, decoded_bytes: int) -> bytes:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a named pipe would wait for its writer
            raise DataError(f"{path}: is not a regular file; {_REMEDY}")
        if state.st_size > largest_payload(decoded_bytes):
            raise DataError(
                f"{path}: {state.st_size} bytes are absurd for an image of {decoded_bytes}"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error


def _decode_depth(payload: bytes, header: SensHeader) -> NDArray[np.uint16]:
    expected = (header.depth_width, header.depth_height)
    try:
        with Image.open(io.BytesIO(payload), formats=["PNG"]) as image:
            size, mode = image.size, image.mode
            image.verify()  # checksums of all chunks; Pillow's decoder skips them
        if size == expected and mode in SIXTEEN_BIT_MODES:
            with Image.open(io.BytesIO(payload), formats=["PNG"]) as image:
                return np.array(image).astype(np.uint16)
    except Exception as error:  # Pillow documents no closed set of exceptions for damaged input
        raise PayloadError(f"is not a readable PNG ({error})") from error
    if size != expected:
        raise PayloadError(
            f"is {size[0]}x{size[1]} pixels, the scan's depth images {expected[0]}x{expected[1]}"
        )
    raise PayloadError(f"is not a 16-bit grey PNG (Pillow mode {mode})")
