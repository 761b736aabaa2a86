"""Turning a posed RGB-D folder into a ``.sens`` scan.

One pass over the files with one frame in memory. Colour files become payloads byte for byte. Each
is decoded once to be sure of it. Depth PNGs are re-packed as zlib, their units stay as they are and
are stated in the header. Costs some 40 ms a frame of 640x480.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError
from threedrs.io.files import parse_numbers, read_json, read_text
from threedrs.io.images import ImageError, decode_depth_png, image_size
from threedrs.scannet.camera import (
    DEPTH_VALUES,
    check_depths,
    check_intrinsic,
    count_depths,
    without_unmeasured,
)
from threedrs.scannet.posed_images import read_payload
from threedrs.scannet.rgbd_folder import (
    COLOR_SUFFIXES,
    PosedImage,
    find_trajectory,
    is_tum,
    read_rgbd_folder,
)
from threedrs.scannet.sens import SensWriter
from threedrs.scannet.sens_format import PayloadError, SensHeader, decode_color

logger = logging.getLogger(__name__)
SENSOR_NAME = "imported RGB-D folder"
COLOR_INTRINSICS = (
    "intrinsic.txt",
    "intrinsic.json",
    "camera_intrinsic.json",
    "camera.json",
    "intrinsic/intrinsic_color.txt",
)
DEPTH_INTRINSICS = ("depth_intrinsic.txt", "intrinsic/intrinsic_depth.txt")
_LOOKED_AT_FIRST = 20  # frames

Size = tuple[int, int]  # width, height


def import_rgbd(
    folder: Path,
    out: Path,
    *,
    intrinsic: str | Path | Sequence[float] | None = None,
    trajectory: Path | None = None,
    depth_shift: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Write the posed RGB-D images of ``folder`` to the ``.sens`` file ``out``.

    Args:
        folder: holds colour images (``color/``, ``rgb/``, ``image/`` or ``images/``), 16-bit depth
            PNGs (``depth/``), and unless given otherwise an intrinsic and a trajectory.
        out: the file to write; replaced if it exists.
        intrinsic: four numbers or text ``fx,fy,cx,cy`` in pixels, or a file: that text, 3x3 or 4x4
            text, or Open3D's camera JSON. None: looked up in ``folder``. It holds for both images
            where they have one size; else ``folder/depth_intrinsic.txt`` is the depth camera's.
        trajectory: ``.log`` file, TUM text, or folder of 4x4 texts. None: looked up in ``folder``.
        depth_shift: depth units per metre. None: 1000, but TUM's trajectories need it stated,
            because that data set's own depth images have 5000, and other tools' 1000.
        say: is told of each frame.

    Returns:
        The number of frames written.

    Raises:
        DataError: something is missing, malformed or contradictory; names file and remedy.
    """
    folder, out = Path(folder), Path(out)
    if out.is_dir():
        raise DataError(f"{out}: is a folder; name the .sens file to write")
    frames = read_rgbd_folder(folder, trajectory)
    if depth_shift is None and is_tum(find_trajectory(folder, trajectory)):
        raise DataError(
            f"{folder}: the trajectory is TUM's, whose depth images have 5000 units a metre, while "
            "other tools write 1000; say which by --depth-scale 5000 or --depth-scale 1000"
        )
    color_size, depth_size = _size(frames[0].color), _size(frames[0].depth)
    color_matrix, depth_matrix = _intrinsics(folder, intrinsic, color_size, depth_size)
    header = SensHeader(
        sensor_name=SENSOR_NAME,
        intrinsic_color=color_matrix,
        extrinsic_color=np.eye(4),
        intrinsic_depth=depth_matrix,
        extrinsic_depth=np.eye(4),
        color_compression=COLOR_SUFFIXES[frames[0].color.suffix.lower()],
        depth_compression="zlib",
        color_width=color_size[0],
        color_height=color_size[1],
        depth_width=depth_size[0],
        depth_height=depth_size[1],
        depth_shift=1000.0 if depth_shift is None else depth_shift,
    )
    _check_some_depths(frames, header)
    counts = np.zeros(DEPTH_VALUES, dtype=np.int64)
    with SensWriter(out, header) as writer:
        for number, frame in enumerate(frames, start=1):
            say(f"frame {number} of {len(frames)}")
            depth = _read_depth(frame.depth, header)
            counts += count_depths(depth)
            writer.add(
                frame.pose,
                _read_color(frame.color, header),
                depth,
                frame.color_timestamp,
                frame.depth_timestamp,
            )
        # Within the block, so that nothing is written of a capture that is refused.
        depths = str(frames[0].depth.parent)
        for note in check_depths(counts, header.depth_shift, depths, "give --depth-scale"):
            logger.warning("%s: %s", depths, note)
    return len(frames)


def _check_some_depths(frames: Sequence[PosedImage], header: SensHeader) -> None:
    """Refuse a wrong scale by frames spread over the capture, before minutes go into all."""
    some = frames[:: -(-len(frames) // _LOOKED_AT_FIRST)]
    counts = np.sum([count_depths(_read_depth(frame.depth, header)) for frame in some], axis=0)
    check_depths(counts, header.depth_shift, str(some[0].depth.parent), "give --depth-scale")


def _size(path: Path) -> Size:
    try:
        return image_size(path)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error


def _read_color(path: Path, header: SensHeader) -> bytes:
    payload = read_payload(path, header.color_bytes, "copy it again")
    try:
        decode_color(payload, header)
    except PayloadError as error:
        raise DataError(f"{path}: {error}") from error
    return payload


def _read_depth(path: Path, header: SensHeader) -> NDArray[np.uint16]:
    """Return the (H, W) uint16 values of a 16-bit PNG."""
    payload = read_payload(path, header.depth_bytes, "copy it again")
    size = (header.depth_width, header.depth_height)
    try:
        return without_unmeasured(decode_depth_png(payload, size, others="the first depth image"))
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error


def _intrinsics(
    folder: Path,
    intrinsic: str | Path | Sequence[float] | None,
    color_size: Size,
    depth_size: Size,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 4x4 intrinsics of the colour and of the depth images."""
    if intrinsic is None:
        intrinsic = _first_file(folder, COLOR_INTRINSICS)
        if intrinsic is None:
            raise DataError(
                f"{folder}: holds no intrinsic (looked for {', '.join(COLOR_INTRINSICS)}); "
                "give --intrinsic fx,fy,cx,cy"
            )
    color_matrix = _intrinsic(intrinsic, color_size)
    depth_file = _first_file(folder, DEPTH_INTRINSICS)
    if depth_file is not None:
        return color_matrix, _intrinsic(depth_file, depth_size, "write there")
    if color_size != depth_size:
        raise DataError(
            f"{folder}: colour images are {color_size[0]}x{color_size[1]} pixels, depth images "
            f"{depth_size[0]}x{depth_size[1]}; add {DEPTH_INTRINSICS[0]} with the depth intrinsic"
        )
    return color_matrix, color_matrix


def _first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _intrinsic(
    source: str | Path | Sequence[float], size: Size, remedy: str = "give --intrinsic"
) -> NDArray[np.float64]:
    """Return a 4x4 pinhole matrix from numbers, text ``fx,fy,cx,cy``, or a file."""
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
    for note in check_intrinsic(matrix, size, where, remedy):
        logger.warning("%s", note)
    return matrix


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
