"""Camera trajectories of posed RGB-D folders, in the three forms they come in.

- Open3D's ``.log``: per frame a line of three integers and a 4x4 matrix, camera to world.
- TUM's ``groundtruth.txt``: lines ``timestamp tx ty tz qx qy qz qw``, camera to world, with ``#``
  before comments.
- A folder with one 4x4 text file per frame, camera to world (ScanNet's export; a frame that was not
  localised holds ``-inf``).
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from threedrs.errors import DataError
from threedrs.io.files import read_text

RIGID_TOLERANCE = 1e-2  # of a rotation's orthonormality; text files round to a few decimals


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Poses in the order of the source.

    ``poses`` (N, 4, 4) float64 camera to world, metres; ``timestamps`` (N,) float64 seconds where
    the source has them; ``files`` the pose files where there is one a frame.
    """

    path: Path
    poses: NDArray[np.float64]
    timestamps: NDArray[np.float64] | None = None
    files: tuple[Path, ...] | None = None


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory: a folder of 4x4 texts, a ``.log`` file, or else TUM's text form.

    Raises:
        DataError: missing or malformed, or a pose is no rigid motion; names file and line.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".log":
        return _read_log(path)
    return _read_tum(path)


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key of a file name by which ``2.png`` comes before ``10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def parse_numbers(text: str, where: str) -> list[float]:
    """Return the white-space separated numbers of ``text`` (``inf`` and ``nan`` included).

    Raises:
        DataError: something is not a number; ``where`` names file and line.
    """
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _read_log(path: Path) -> Trajectory:
    lines = [
        (number, line)
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]
    if len(lines) % 5:
        raise DataError(
            f"{path}: {len(lines)} lines are no whole number of frames "
            "(an Open3D log has 5 lines a frame)"
        )
    poses = np.empty((len(lines) // 5, 4, 4))
    for index in range(len(poses)):
        number, head = lines[5 * index]
        if len(parse_numbers(head, f"{path}: line {number}")) != 3:
            raise DataError(f"{path}: line {number} does not hold the three numbers of a frame")
        for row, (row_number, line) in enumerate(lines[5 * index + 1 : 5 * index + 5]):
            where = f"{path}: line {row_number}"
            values = parse_numbers(line, where)
            if len(values) != 4:
                raise DataError(f"{where} holds {len(values)} numbers, a matrix row has 4")
            poses[index, row] = values
        _check_rigid(poses[index], f"{path}: line {number}")
    return Trajectory(path=path, poses=poses)


def _read_tum(path: Path) -> Trajectory:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}: line {number}"
        values = parse_numbers(line, where)
        if len(values) != 8 or not all(map(math.isfinite, values)):
            raise DataError(f"{where} is not of the form 'timestamp tx ty tz qx qy qz qw'")
        if not any(values[4:]):
            raise DataError(f"{where} holds a quaternion of length 0")
        rows.append(values)
    table = np.array(rows).reshape(-1, 8)
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
        poses[:, :3, 3] = table[:, 1:4]
    return Trajectory(path=path, poses=poses, timestamps=table[:, 0])


def _read_folder(folder: Path) -> Trajectory:
    files = sorted(folder.glob("*.txt"), key=natural_order)
    poses = np.empty((len(files), 4, 4))
    for index, file in enumerate(files):
        values = parse_numbers(read_text(file), str(file))
        if len(values) != 16:
            raise DataError(f"{file}: holds {len(values)} numbers, a pose is a 4x4 matrix")
        poses[index] = np.reshape(values, (4, 4))
        _check_rigid(poses[index], str(file))
    return Trajectory(path=folder, poses=poses, files=tuple(files))


def _check_rigid(pose: NDArray[np.float64], where: str) -> None:
    """Refuse a pose that is no rigid motion (transposed, scaled); invalid ones pass as such."""
    if not np.isfinite(pose).all() or not pose.any():
        return
    rotation = pose[:3, :3]
    if (
        np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-4
        or np.abs(rotation @ rotation.T - np.eye(3)).max() > RIGID_TOLERANCE
        or np.linalg.det(rotation) < 0
    ):
        raise DataError(
            f"{where}: the matrix is not a rigid camera-to-world pose "
            "(rotation and translation row by row, last row 0 0 0 1)"
        )
