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

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.files import atomic_folder
from threedrs.io.images import ImageError, encode_image, image_size
from threedrs.scannet.camera import has_valid_pose
from threedrs.scannet.frames import LooseFrames
from threedrs.scannet.sens import SensReader
from threedrs.scannet.sens_format import HeaderFieldError, SensHeader
from threedrs.scannet.trajectory import read_matrix

JPEG_QUALITY = 95
_FRAME_FILE = re.compile(r"(\d{5,9})\.(jpg|png|txt)")
_EXPORTED_NAME = re.compile(r"\d{5,}\.(jpg|png|txt)|(depth_)?intrinsic\.txt")
_KINDS = ("jpg", "png", "txt")
_REMEDY = (
    "unpack or copy the scan's folder again, or where its .sens is here, export the scan again "
    "(threedrs sens export)"
)


class PosedImagesReader(LooseFrames):
    """Random access to the frames of an exported scan, as `threedrs.scannet.sens.SensReader`.

    Attributes:
        header: what holds for all frames. Sizes are those of the first frame's images.
        frame_ids: (N,) int64, the number in the names of each frame, ascending.

    Raises:
        DataError: the folder is missing or incomplete, or a text is malformed; also later, by any
            method, if an image is missing, damaged or of another size.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.name = f"{self.path.parent.name}/{self.path.name}"
        self.remedy = _REMEDY
        names = _frame_names(self.path)
        self.color_files = [self.path / f"{name}.jpg" for name in names]
        self.depth_files = [self.path / f"{name}.png" for name in names]
        self.frame_ids = np.array([int(name) for name in names], dtype=np.int64)
        self.poses = np.stack([_read_f32(self.path / f"{name}.txt") for name in names])
        self.valid = has_valid_pose(self.poses)
        self.header = self._read_header()
        self.header_bytes = self.header.pack(len(self))

    def _read_header(self) -> SensHeader:
        color_size = _image_size(self.color_files[0], "JPEG")
        depth_size = _image_size(self.depth_files[0], "PNG")
        try:
            return SensHeader(
                sensor_name="posed_images",
                intrinsic_color=_read_f32(self.path / "intrinsic.txt"),
                intrinsic_depth=_read_f32(self.path / "depth_intrinsic.txt"),
                color_width=color_size[0],
                color_height=color_size[1],
                depth_width=depth_size[0],
                depth_height=depth_size[1],
            )
        except HeaderFieldError as error:
            raise DataError(f"{self.path}: {error.problem}; {_REMEDY}") from error


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


def _read_f32(path: Path) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return read_matrix(path).astype(np.float32).astype(np.float64)


def _image_size(path: Path, kind: str) -> tuple[int, int]:
    """Return an image's (width, height) from its first bytes."""
    try:
        return image_size(path, (kind,))
    except ImageError as error:
        raise DataError(f"{path}: {error}; {_REMEDY}") from error


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
    if stride < 1:
        raise DataError(f"stride {stride}: must be 1 or more")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder")
    for there in out.iterdir() if out.exists() else ():
        if not _EXPORTED_NAME.fullmatch(there.name):
            raise DataError(f"{out}: holds {there.name}, which is no export; name a new folder")
    with SensReader(path) as reader, atomic_folder(out) as folder:
        indices = range(0, len(reader), stride)
        _write_matrix(folder / "intrinsic.txt", reader.header.intrinsic_color)
        _write_matrix(folder / "depth_intrinsic.txt", reader.header.intrinsic_depth)
        for index in indices:
            say(f"frame {index} of {len(reader)}")
            name = f"{index:05d}"
            color = reader.color(index)  # decoded in any case, so that no damaged image goes on
            payload = reader.color_bytes(index)
            if reader.header.color_compression != "jpeg":
                payload = encode_image(Image.fromarray(color), "JPEG", quality=JPEG_QUALITY)
            (folder / f"{name}.jpg").write_bytes(payload)
            Image.fromarray(reader.depth_millimetres(index)).save(folder / f"{name}.png")
            _write_matrix(folder / f"{name}.txt", reader.poses[index])
        return ExportSummary(
            frames=len(indices),
            valid_poses=int(reader.valid[::stride].sum()),
            reencoded=reader.header.color_compression != "jpeg",
        )


def _write_matrix(path: Path, matrix: NDArray[np.float64]) -> None:
    np.savetxt(path, matrix, fmt="%.9g")  # nine digits carry f32 exactly
