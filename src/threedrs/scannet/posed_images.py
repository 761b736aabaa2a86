"""Scans as loose files, the ``posed_images/<scene>/`` layout of the field: its reader and writer.

Per frame ``00000.jpg``, ``00000.png`` (depth, 16-bit millimetres) and ``00000.txt`` (4x4 camera to
world, ``-inf`` where not localised); per scan ``intrinsic.txt`` (colour) and
``depth_intrinsic.txt``. The number in a name is the frame's index in the stream, so an export of
every 10th frame is numbered 0, 10, 20.

Opening lists the folder and reads the poses (small texts). Images are read when asked for. What
comes out equals what the .sens gave, bit for bit: numbers are rounded to the f32 they came from.
A depth of 65535, which measures nothing, is 0 in both, and where one is exported.
An export costs some 50 ms a frame, nearly all of it PNG compression.
"""

import io
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.files import atomic_folder, parse_numbers, read_text
from threedrs.io.images import ImageError, decode_depth_png, image_size
from threedrs.scannet.camera import has_valid_pose, without_unmeasured
from threedrs.scannet.sens import SensReader
from threedrs.scannet.sens_format import (
    HeaderFieldError,
    PayloadError,
    SensHeader,
    decode_color,
    largest_payload,
)

JPEG_QUALITY = 95
MOST_MATRIX_BYTES = 64 * 2**10  # sixteen numbers
_FRAME_FILE = re.compile(r"(\d{5,9})\.(jpg|png|txt)")
_EXPORTED_NAME = re.compile(r"\d{5,}\.(jpg|png|txt)|(depth_)?intrinsic\.txt")
_KINDS = ("jpg", "png", "txt")
_REMEDY = (
    "unpack or copy the scan's folder again, or where its .sens is here, export the scan again "
    "(threedrs sens export)"
)


class PosedImagesReader:
    """Random access to the frames of an exported scan, as `threedrs.scannet.sens.SensReader`.

    Frames are counted by their place i = 0..N-1 in the folder; ``frame_ids`` has their numbers.

    Attributes:
        path: the folder.
        header: what holds for all frames. Sizes are those of the first frame's images.
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
        self.valid = has_valid_pose(self.poses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
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
            size = (self.header.depth_width, self.header.depth_height)
            return without_unmeasured(decode_depth_png(payload, size))
        except ImageError as error:
            raise DataError(f"{self._file(index, 'png')}: {error}; {_REMEDY}") from error

    def color_bytes(self, index: int) -> bytes:
        """Return the JPEG of the frame at place ``index`` as it stands in its file."""
        return read_payload(self._file(index, "jpg"), self.header.color_bytes, _REMEDY)

    def depth_bytes(self, index: int) -> bytes:
        """Return the depth PNG of the frame at place ``index`` as it stands in its file."""
        return read_payload(self._file(index, "png"), self.header.depth_bytes, _REMEDY)

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
        return image_size(path, (kind,))
    except ImageError as error:
        raise DataError(f"{path}: {error}; {_REMEDY}") from error


def read_payload(path: Path, decoded_bytes: int, remedy: str) -> bytes:
    """Return the bytes of an image file from elsewhere.

    Args:
        path: the file.
        decoded_bytes: of the decoded image. A much larger file is refused unread.
        remedy: what to do about it, the end of a message.

    Raises:
        DataError: the file is missing, no regular file, or absurdly large.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a named pipe would wait for its writer
            raise DataError(f"{path}: is not a regular file; {remedy}")
        if state.st_size > largest_payload(decoded_bytes):
            raise DataError(
                f"{path}: {state.st_size} bytes are absurd for an image of {decoded_bytes}"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote: frames, how many have a valid pose, and whether JPEGs were encoded."""

    frames: int
    valid_poses: int
    reencoded: bool


def export_posed_images(
    path: Path, out: Path, *, stride: int = 1, say: Callable[[str], None] = lambda line: None
) -> ExportSummary:
    """Export every ``stride``-th frame of the scan ``path`` to the folder ``out``, told to ``say``.

    An earlier export in ``out`` is replaced once the new one is complete. A folder that holds
    anything else is refused.

    Raises:
        SensError: the scan is malformed.
        DataError: ``stride`` is not positive, or ``out`` is in use.
    """
    path, out = Path(path), Path(out)
    if stride < 1:
        raise DataError(f"stride {stride}: must be 1 or more")
    _check_target(out)
    with SensReader(path) as reader, atomic_folder(out) as folder:
        indices = range(0, len(reader), stride)
        _write_matrix(folder / "intrinsic.txt", reader.header.intrinsic_color)
        _write_matrix(folder / "depth_intrinsic.txt", reader.header.intrinsic_depth)
        for index in indices:
            say(f"frame {index} of {len(reader)}")
            name = f"{index:05d}"
            (folder / f"{name}.jpg").write_bytes(_jpeg(reader, index))
            Image.fromarray(reader.depth_millimetres(index)).save(folder / f"{name}.png")
            _write_matrix(folder / f"{name}.txt", reader.poses[index])
        return ExportSummary(
            frames=len(indices),
            valid_poses=int(reader.valid[::stride].sum()),
            reencoded=reader.header.color_compression != "jpeg",
        )


def _jpeg(reader: SensReader, index: int) -> bytes:
    color = reader.color(index)  # decoded in any case, so that no damaged image is handed on
    if reader.header.color_compression == "jpeg":
        return reader.color_bytes(index)
    stream = io.BytesIO()
    Image.fromarray(color).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _write_matrix(path: Path, matrix: NDArray[np.float64]) -> None:
    np.savetxt(path, matrix, fmt="%.9g")  # nine digits carry f32 exactly


def _check_target(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder")
    foreign = next((p.name for p in out.iterdir() if not _EXPORTED_NAME.fullmatch(p.name)), None)
    if foreign is not None:
        raise DataError(f"{out}: holds {foreign}, which is no export; name a new folder")
