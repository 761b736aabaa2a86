"""The pinhole intrinsics of a posed RGB-D folder, as given, or as found beside its images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError
from threedrs.io.files import parse_numbers, read_json, read_text
from threedrs.scannet.camera import check_intrinsic

COLOR_INTRINSICS = (
    "intrinsic.txt",
    "intrinsic.json",
    "camera_intrinsic.json",
    "camera.json",
    "intrinsic/intrinsic_color.txt",
)
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
        color_size: width and height, pixels.
        depth_size: likewise.
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
    if isinstance(source, str) and "," in source:
        where = f"intrinsic {source!r}"
        matrix = _from_four(parse_numbers(source.replace(",", " "), where), where)
    elif isinstance(source, str | Path):
        where = str(source)
        path = Path(source)
        matrix = _from_json(path, size) if path.suffix.lower() == ".json" else _from_text(path)
    else:
        where = f"intrinsic {tuple(source)}"
        matrix = _from_four(list(source), where)
    return matrix, check_intrinsic(matrix, size, where, remedy)


def _from_four(values: list[float], where: str) -> NDArray[np.float64]:
    if len(values) != 4:
        raise DataError(f"{where}: holds {len(values)} numbers, expected fx,fy,cx,cy")
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2] = values
    return matrix


def _from_text(path: Path) -> NDArray[np.float64]:
    values = parse_numbers(read_text(path).replace(",", " "), str(path))
    if len(values) == 4:
        return _from_four(values, str(path))
    if len(values) not in (9, 16):
        raise DataError(
            f"{path}: holds {len(values)} numbers, an intrinsic is fx,fy,cx,cy, 3x3 or 4x4"
        )
    return _embed(np.reshape(values, (3, 3) if len(values) == 9 else (4, 4)), path)


def _from_json(path: Path, size: Size) -> NDArray[np.float64]:
    """Read Open3D's PinholeCameraIntrinsic: width, height, and the matrix column by column."""
    value = read_json(path)
    try:
        columns = np.array(value["intrinsic_matrix"], dtype=np.float64).reshape(3, 3)
        stated = (int(value["width"]), int(value["height"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: is not an Open3D camera intrinsic (width, height, intrinsic_matrix of 9)"
        ) from error
    if stated != size:
        resized = (np.array(size) / stated)[[0, 1, 0, 1]]
        fitting = columns.T[[0, 1, 0, 1], [0, 1, 2, 2]] * resized
        values = ",".join(f"{value:.6g}" for value in fitting)
        raise DataError(
            f"{path}: is for {stated[0]}x{stated[1]} pixels, the images have {size[0]}x{size[1]}; "
            f"if they were resized, give --intrinsic {values}"
        )
    return _embed(columns.T, path)


def _embed(values: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[: len(values), : len(values)] = values
    if matrix[2, :2].any() or matrix[1, 0] != 0 or matrix[2, 2] != 1:
        raise DataError(f"{path}: is not a pinhole intrinsic [fx 0 cx; 0 fy cy; 0 0 1]")
    return matrix
