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

MOST_MATRIX_BYTES = 64 * 2**10  # sixteen numbers
_REMEDY = "unpack, copy or export the file again"
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
        DataError: missing or malformed, or a pose is not a rigid motion; names file and pose.
    """
    if path.is_dir():
        return read_pose_files(path)
    readers = {".log": _read_log, ".traj": _read_arkit}
    found = readers.get(path.suffix.lower(), _read_tum)(path)
    check_poses(found.poses, lambda index: f"{path}: pose {index + 1}")
    return found


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key of a file name by which ``2.png`` comes before ``10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _read_log(path: Path) -> Trajectory:
    lines = enumerate(read_text(path).splitlines(), start=1)
    rows = [(f"{path}: line {number}", line) for number, line in lines if line.strip()]
    if len(rows) % 5:
        raise DataError(
            f"{path}: holds {len(rows)} lines, an Open3D log has 5 a frame; export it again"
        )
    numbers: list[float] = []
    for index, (where, line) in enumerate(rows):
        values, wanted = parse_numbers(line, where, "export it again"), 4 if index % 5 else 3
        if len(values) != wanted:
            raise DataError(
                f"{where} holds {len(values)} numbers and not {wanted}, as a frame of an Open3D "
                "log is a line of three and four lines of its matrix; export it again"
            )
        numbers += values
    table = np.reshape(numbers, (-1, 19))
    poses = table[:, 3:].reshape(-1, 4, 4)
    return Trajectory(path=path, poses=poses, frames=table[:, 0].tolist())


def _read_tum(path: Path) -> Trajectory:
    table = _rows(path, "timestamp tx ty tz qx qy qz qw")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
        poses[:, :3, 3] = table[:, 1:4]
    return Trajectory(path=path, poses=poses, timestamps=table[:, 0])


def _read_arkit(path: Path) -> Trajectory:
    """Read ARKitScenes' form (https://github.com/apple/ARKitScenes/blob/main/DATA.md)."""
    table = _rows(path, "timestamp rx ry rz tx ty tz")
    world_to_camera = np.tile(np.eye(4), (len(table), 1, 1))
    world_to_camera[:, :3, :3] = Rotation.from_rotvec(table[:, 1:4]).as_matrix()
    world_to_camera[:, :3, 3] = table[:, 4:]
    poses = np.linalg.inv(world_to_camera).astype(np.float64)
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
            raise DataError(f"{where} is not of the form '{form}'; export it again")
        if form.endswith("qw") and not any(values[4:]):
            raise DataError(f"{where} holds a quaternion of length 0; export it again")
        rows.append(values)
    return np.array(rows).reshape(-1, columns)


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Return the (4,4) matrix of a text file, which may hold ``inf`` and ``nan``."""
    values = parse_numbers(read_text(path, most=MOST_MATRIX_BYTES), str(path))
    if len(values) != 16:
        raise DataError(f"{path}: holds {len(values)} numbers, a 4x4 matrix has 16; {_REMEDY}")
    return np.reshape(values, (4, 4))


def read_pose_files(folder: Path, pattern: str = "*.txt") -> Trajectory:
    """Read the 4x4 texts of a folder, one a frame, in the order of the numbers in their names."""
    files = sorted(folder.glob(pattern), key=natural_order)
    poses = np.array([read_matrix(file) for file in files]).reshape(-1, 4, 4)
    check_poses(poses, lambda index: str(files[index]))
    return Trajectory(path=folder, poses=poses, files=tuple(files))
