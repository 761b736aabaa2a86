"""Camera trajectories, camera to world, in the forms that posed RGB-D folders have them.

- Open3D's ``.log``: per frame a line of three integers and a 4x4 matrix.
- TUM's ``groundtruth.txt``: lines ``timestamp tx ty tz qx qy qz qw``, with ``#`` before comments.
- ARKitScenes' ``.traj``: lines ``timestamp rx ry rz tx ty tz``, the rotation as axis and angle in
  radians. The data set's own reader takes them for world to camera, so they are inverted here.
- A folder with one 4x4 text file per frame (ScanNet's export; a frame that was not localised holds
  ``-inf``).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from threedrs.errors import DataError
from threedrs.io.files import parse_numbers, read_text
from threedrs.scannet.camera import check_poses

UNLOCALISED = np.full((4, 4), -np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Poses in the order of the source.

    ``poses`` (N, 4, 4) float64 camera to world, metres; ``timestamps`` (N,) float64 seconds where
    the source has them; ``files`` the pose files where there is one a frame; ``frames`` the numbers
    that a ``.log`` gives its frames.
    """

    path: Path
    poses: NDArray[np.float64]
    timestamps: NDArray[np.float64] | None = None
    files: tuple[Path, ...] | None = None
    frames: Sequence[float] | None = None


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory: a folder of 4x4 texts, a ``.log`` file, or else TUM's text form.

    Raises:
        DataError: missing or malformed, or a pose is not a rigid motion; names file and line.
    """
    path = Path(path)
    if path.is_dir():
        return read_pose_files(path)
    readers = {".log": _read_log, ".traj": _read_arkit}
    return readers.get(path.suffix.lower(), _read_tum)(path)


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key of a file name by which ``2.png`` comes before ``10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


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
    frames: list[float] = []
    for index in range(len(poses)):
        number, head = lines[5 * index]
        numbers = parse_numbers(head, f"{path}: line {number}")
        if len(numbers) != 3:
            raise DataError(f"{path}: line {number} does not hold the three numbers of a frame")
        frames.append(numbers[0])
        for row, (row_number, line) in enumerate(lines[5 * index + 1 : 5 * index + 5]):
            where = f"{path}: line {row_number}"
            values = parse_numbers(line, where)
            if len(values) != 4:
                raise DataError(f"{where} holds {len(values)} numbers, a matrix row has 4")
            poses[index, row] = values
    check_poses(poses, lambda index: f"{path}: line {lines[5 * index][0]}")
    return Trajectory(path=path, poses=poses, frames=frames)


def _read_tum(path: Path) -> Trajectory:
    table = _rows(path, "timestamp tx ty tz qx qy qz qw")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
        poses[:, :3, 3] = table[:, 1:4]
    check_poses(poses, lambda index: f"{path}: pose {index + 1}")
    return Trajectory(path=path, poses=poses, timestamps=table[:, 0])


def _read_arkit(path: Path) -> Trajectory:
    """Read ARKitScenes' form (https://github.com/apple/ARKitScenes/blob/main/DATA.md)."""
    table = _rows(path, "timestamp rx ry rz tx ty tz")
    world_to_camera = np.tile(np.eye(4), (len(table), 1, 1))
    world_to_camera[:, :3, :3] = Rotation.from_rotvec(table[:, 1:4]).as_matrix()
    world_to_camera[:, :3, 3] = table[:, 4:]
    poses = np.linalg.inv(world_to_camera).astype(np.float64)
    check_poses(poses, lambda index: f"{path}: pose {index + 1}")
    return Trajectory(path=path, poses=poses, timestamps=table[:, 0])


def _rows(path: Path, form: str) -> NDArray[np.float64]:
    """Return the numbers of a text with ``form`` in each line, (N, columns), comments left out."""
    columns = len(form.split())
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}: line {number}"
        values = parse_numbers(line, where)
        if len(values) != columns or not all(map(math.isfinite, values)):
            raise DataError(f"{where} is not of the form '{form}'")
        if form.endswith("qw") and not any(values[4:]):
            raise DataError(f"{where} holds a quaternion of length 0")
        rows.append(values)
    return np.array(rows).reshape(-1, columns)


def read_pose_files(folder: Path, pattern: str = "*.txt") -> Trajectory:
    """Read the 4x4 texts of a folder, one a frame, in the order of the numbers in their names."""
    files = sorted(folder.glob(pattern), key=natural_order)
    poses = np.empty((len(files), 4, 4))
    for index, file in enumerate(files):
        values = parse_numbers(read_text(file), str(file))
        if len(values) != 16:
            raise DataError(f"{file}: holds {len(values)} numbers, a pose is a 4x4 matrix")
        poses[index] = np.reshape(values, (4, 4))
    check_poses(poses, lambda index: str(files[index]))
    return Trajectory(path=folder, poses=poses, files=tuple(files))
