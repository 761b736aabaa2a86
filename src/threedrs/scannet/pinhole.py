"""The pinhole intrinsics of a posed RGB-D folder, as given, or as found beside its images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, read_external_json
from threedrs.io.files import parse_numbers, read_text
from threedrs.scannet.camera import PINHOLE, check_intrinsic

COLOR_INTRINSICS = ("intrinsic.txt", "intrinsic.json", "camera_intrinsic.json", "camera.json",
                    "intrinsic/intrinsic_color.txt")  # fmt: skip
DEPTH_INTRINSICS = ("depth_intrinsic.txt", "intrinsic/intrinsic_depth.txt")

Size = tuple[int, int]  # width, height


def find_intrinsics(
    folder: Path,
    given: str | Path | Sequence[float] | None,
    color_size: Size,
    depth_size: Size,
    *,
    registered: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Return the 4x4 intrinsics of the colour and of the depth images, and notes on doubts.

    Args:
        folder: looked into for what is not given.
        given: four numbers or text ``fx,fy,cx,cy``, or a file, of the colour images.
        registered: whether depth images show what colour images show, at another resolution.

    Raises:
        DataError: there is none, it is malformed, or it cannot be that of these images.
    """
    if given is None:
        given = _first_file(folder, COLOR_INTRINSICS)
        if given is None:
            raise DataError(
                f"{folder}: holds no intrinsic (looked for {', '.join(COLOR_INTRINSICS)}); "
                "give --intrinsic fx,fy,cx,cy"
            )
    color_matrix, notes = _intrinsic(given, color_size)
    depth_file = _first_file(folder, DEPTH_INTRINSICS)
    if depth_file is not None:
        depth_matrix, more = _intrinsic(depth_file, depth_size, "write there")
        return color_matrix, depth_matrix, notes + more
    if registered:
        scale = np.array([[depth_size[0] / color_size[0]], [depth_size[1] / color_size[1]]])
        depth_matrix = color_matrix.copy()
        depth_matrix[:2] *= scale
        return color_matrix, depth_matrix, notes
    if color_size != depth_size:
        raise DataError(
            f"{folder}: colour images are {color_size[0]}x{color_size[1]} pixels, depth images "
            f"{depth_size[0]}x{depth_size[1]}; add {DEPTH_INTRINSICS[0]} with the depth intrinsic"
        )
    return color_matrix, color_matrix, notes


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _intrinsic(
    source: str | Path | Sequence[float], size: Size, remedy: str = "give --intrinsic"
) -> tuple[NDArray[np.float64], list[str]]:
    """Return a 4x4 pinhole matrix from numbers, text ``fx,fy,cx,cy``, or a file, and notes."""
    where = str(source)
    if not isinstance(source, str | Path):
        values, where = [*source], f"intrinsic {tuple(source)}"
    elif "," in where:
        values = parse_numbers(where.replace(",", " "), f"intrinsic {where!r}")
    elif where.lower().endswith(".json"):
        values = _from_json(Path(source), size)
    else:
        values = parse_numbers(read_text(Path(source)).replace(",", " "), where)
    matrix = np.eye(4)
    if len(values) == 4:
        matrix[PINHOLE] = values
    elif len(values) in (9, 16):
        side = 3 if len(values) == 9 else 4
        matrix[:side, :side] = np.reshape(values, (side, side))
    else:
        raise DataError(
            f"{where}: holds {len(values)} numbers, an intrinsic is fx,fy,cx,cy, 3x3 or 4x4"
        )
    if matrix[2, :2].any() or matrix[1, 0] != 0 or matrix[2, 2] != 1:
        raise DataError(f"{where}: is not a pinhole intrinsic [fx 0 cx; 0 fy cy; 0 0 1]")
    return matrix, check_intrinsic(matrix, size, where, remedy)


class _Open3dIntrinsic(ExternalRow):
    width: Annotated[PositiveInt, Field(strict=False)]  # 640.0 is written, too
    height: Annotated[PositiveInt, Field(strict=False)]
    intrinsic_matrix: Annotated[list[float], Field(min_length=9, max_length=9)]  # by columns


def _from_json(path: Path, size: Size) -> list[float]:
    """Return the nine numbers, row by row, of Open3D's PinholeCameraIntrinsic."""
    remedy = "write it as an Open3D camera intrinsic, or give --intrinsic fx,fy,cx,cy"
    stated = read_external_json(path, _Open3dIntrinsic, remedy)
    values = np.reshape(stated.intrinsic_matrix, (3, 3)).T
    width, height = stated.width, stated.height
    if (width, height) != size:
        resized = values * [[size[0] / width], [size[1] / height], [1]]
        fitting = ",".join(f"{value:.6g}" for value in resized[PINHOLE])
        raise DataError(
            f"{path}: is for {width}x{height} pixels, the images have {size[0]}x{size[1]}; "
            f"if they were resized, give --intrinsic {fitting}"
        )
    return values.ravel().tolist()
