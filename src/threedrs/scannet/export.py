"""A ``.sens`` scan as loose files, in the ``posed_images`` layout that the field's tools read.

Per frame ``<index>.jpg``, ``<index>.png`` (depth, 16-bit millimetres) and ``<index>.txt`` (4x4
camera to world, ``-inf`` where not localised); per scan ``intrinsic.txt`` (colour) and
``depth_intrinsic.txt``. ``<index>`` is the frame's index in the stream, five digits. JPEG payloads
are written as they stand; others are encoded as JPEG of quality 95. Costs some 50 ms a frame,
nearly all of it PNG compression.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.files import atomic_folder
from threedrs.scannet.sens import SensReader

JPEG_QUALITY = 95
_EXPORTED_NAME = re.compile(r"\d{5,}\.(jpg|png|txt)|(depth_)?intrinsic\.txt")


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote: frames, how many have a valid pose, and whether JPEGs were encoded."""

    frames: int
    valid_poses: int
    reencoded: bool


def export_posed_images(path: Path, out: Path, *, stride: int = 1) -> ExportSummary:
    """Export every ``stride``-th frame of the scan ``path`` to the folder ``out``.

    An earlier export in ``out`` is replaced once the new one is complete; a folder that holds
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
