"""The frames of a posed RGB-D folder: which images belong together, and their poses.

File names that are timestamps in seconds (TUM: ``1305031102.175304.png``) are paired by nearest
time. Otherwise the numbers in the names pair (``7`` and ``frame-000007.color``). Anything else is
refused: a shifted pairing would give a scan that looks whole and is wrong.

A trajectory, camera to world, comes in one of three forms:

- Open3D's ``.log``: per frame a line of three integers and a 4x4 matrix.
- TUM's ``groundtruth.txt``: lines ``timestamp tx ty tz qx qy qz qw``, with ``#`` before comments.
- A folder with one 4x4 text file per frame (ScanNet's export; a frame that was not localised holds
  ``-inf``).
"""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from threedrs.errors import DataError
from threedrs.io.files import parse_numbers, read_text
from threedrs.scannet.camera import check_poses

logger = logging.getLogger(__name__)
COLOR_FOLDERS = ("color", "rgb", "image", "images")
COLOR_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
TRAJECTORIES = ("trajectory.log", "groundtruth.txt", "pose", "poses")
MAX_TIME_DIFFERENCE = 0.02  # seconds; of TUM's own association tool
UNLOCALISED = np.full((4, 4), -np.inf)
_TIMESTAMP = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedImage:
    """One frame: its two files, its pose (4, 4) camera to world, its times in microseconds."""

    color: Path
    depth: Path
    pose: NDArray[np.float64]
    color_timestamp: int = 0
    depth_timestamp: int = 0


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


def read_rgbd_folder(folder: Path, trajectory: Path | None) -> list[PosedImage]:
    """List the frames of a posed RGB-D folder in order; no image is opened.

    A colour image without a pose within 0.02 s is kept with a pose of ``-inf`` (not localised);
    one without a depth image within 0.02 s is left out.

    Raises:
        DataError: a folder or the trajectory is missing or ambiguous, or counts or names disagree.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    colors = _images(_one_of(folder, COLOR_FOLDERS, "colour images", "rename the other"))
    formats = {COLOR_SUFFIXES[path.suffix.lower()] for path in colors}
    if len(formats) > 1:
        raise DataError(f"{colors[0].parent}: mixes JPEG and PNG images; convert one kind")
    depths = _images(_one_of(folder, ("depth",), "depth images", ""))
    for path in depths:
        if path.suffix.lower() != ".png":
            raise DataError(f"{path}: depth must be a 16-bit PNG")
    track = read_trajectory(find_trajectory(folder, trajectory))
    if not len(track.poses):
        raise DataError(f"{track.path}: holds no pose")

    color_times, depth_times = _timestamps(colors), _timestamps(depths)
    if color_times is None or depth_times is None:
        partners = _match_names(colors, depths, "colour images", "depth images")
        poses = _poses_of(colors, color_times, track)
        return [
            PosedImage(color=color, depth=depths[partner], pose=pose)
            for color, partner, pose in zip(colors, partners, poses, strict=True)
        ]
    pairs = _match_times(color_times, depth_times)
    if not pairs:
        raise DataError(
            f"{folder}: no depth image within {MAX_TIME_DIFFERENCE} s of a colour image"
        )
    poses = _poses_of(colors, color_times, track)
    return [
        PosedImage(
            color=colors[i],
            depth=depths[j],
            pose=poses[i],
            color_timestamp=round(color_times[i] * 1e6),
            depth_timestamp=round(depth_times[j] * 1e6),
        )
        for i, j in pairs
    ]


def find_trajectory(folder: Path, chosen: Path | None) -> Path:
    """Return the trajectory that is chosen, or else the one in ``folder``. Raises DataError."""
    return chosen or _one_of(folder, TRAJECTORIES, "a trajectory", "choose with --trajectory")


def is_tum(trajectory: Path) -> bool:
    """Whether a trajectory's path is taken for TUM's text form."""
    return not trajectory.is_dir() and trajectory.suffix.lower() != ".log"


def _one_of(folder: Path, names: tuple[str, ...], what: str, remedy: str) -> Path:
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise DataError(f"{folder}: holds no {what} (looked for {', '.join(names)})")
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise DataError(f"{folder}: both {both} could hold {what}; {remedy}")
    return found[0]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    images = [path for path in folder.iterdir() if path.suffix.lower() in COLOR_SUFFIXES]
    if not images:
        raise DataError(f"{folder}: holds no .jpg, .jpeg or .png image")
    return sorted(images, key=natural_order)


def _timestamps(files: list[Path]) -> NDArray[np.float64] | None:
    """Return the file names as times in seconds, or None if they are not times."""
    if not all(_TIMESTAMP.fullmatch(path.stem) for path in files):
        return None
    return np.array([float(path.stem) for path in files])


def _poses_of(
    colors: list[Path], color_times: NDArray[np.float64] | None, track: Trajectory
) -> NDArray[np.float64]:
    """Return the pose of each colour image, (N, 4, 4)."""
    if track.files is not None:
        return track.poses[_match_names(colors, list(track.files), "colour images", "pose files")]
    if track.timestamps is not None and color_times is not None:
        nearest, difference = _nearest(color_times, track.timestamps)
        localised = difference <= MAX_TIME_DIFFERENCE
        if not localised.any():
            raise DataError(
                f"{track.path}: no pose within {MAX_TIME_DIFFERENCE} s of a colour image "
                f"(images {color_times[0]:.3f} to {color_times[-1]:.3f}, "
                f"poses {track.timestamps.min():.3f} to {track.timestamps.max():.3f})"
            )
        return np.where(localised[:, None, None], track.poses[nearest], UNLOCALISED)
    if len(track.poses) != len(colors):
        raise DataError(
            f"{track.path}: holds {len(track.poses)} poses, {colors[0].parent} "
            f"{len(colors)} images; one pose a colour image is needed"
        )
    numbers = _frame_numbers(colors)
    # A log that counts its poses, or repeats one number, says nothing on which image is whose.
    if track.frames is not None and numbers is not None and len({*track.frames}) == len(colors):
        if sorted(track.frames) == sorted(numbers):
            row_of = {frame: row for row, frame in enumerate(track.frames)}
            return track.poses[[row_of[number] for number in numbers]]
        if [*track.frames] not in ([*range(len(colors))], [*range(1, len(colors) + 1)]):
            alone = next(frame for frame in track.frames if frame not in numbers)
            raise DataError(
                f"{track.path}: has a pose of frame {alone:.0f}, {colors[0].parent} no such image; "
                "add the image, or remove its pose"
            )
    return track.poses


def _match_names(first: list[Path], second: list[Path], what: str, others: str) -> list[int]:
    """Return for each of ``first`` the index of its partner in ``second``: the frame's number."""
    first_keys, second_keys = _frame_keys(first), _frame_keys(second)
    if {*first_keys}.isdisjoint(second_keys):
        # SUN3D's 0000001-000000020534 is a frame and a time, and the two cameras' times differ.
        numbers, other_numbers = _frame_numbers(first), _frame_numbers(second)
        if numbers and other_numbers:
            first_keys = [(number,) for number in numbers]
            second_keys = [(number,) for number in other_numbers]
    index_of = {key: index for index, key in enumerate(second_keys)}
    if set(first_keys) == set(index_of):
        return [index_of[key] for key in first_keys]
    alone = set(first_keys) ^ set(index_of)
    files, keys = [*first, *second], [*first_keys, *second_keys]
    path = next(path for path, key in zip(files, keys, strict=True) if key in alone)
    other = second[0] if path in first else first[0]
    raise DataError(
        f"{first[0].parent} holds {len(first)} {what}, {second[0].parent} {len(second)} {others}; "
        f"{path.parent.name}/{path.name} has no partner in {other.parent.name} by the number in "
        "its name; add the partner, or remove this file"
    )


def _frame_keys(files: list[Path]) -> list[tuple[int, ...] | str]:
    """Return for each file of a folder the numbers in its name that tell its frame.

    ``7``, ``00007`` and ``frame-000007.color`` are the same frame. A number that all files share
    (``rgb_640_00007``) tells none, and files without numbers go by their names.

    Raises:
        DataError: two files are of the same frame.
    """
    numbers = [tuple(map(int, re.findall(r"\d+", path.stem))) for path in files]
    keys: list[tuple[int, ...] | str] = [path.stem for path in files]
    if all(numbers) and len({len(found) for found in numbers}) == 1:
        columns = [*zip(*numbers, strict=True)]
        telling = [column for column in columns if len(set(column)) > 1] or columns[-1:]
        keys = [*zip(*telling, strict=True)]
    file_of: dict[tuple[int, ...] | str, Path] = {}
    for path, key in zip(files, keys, strict=True):
        if file_of.setdefault(key, path) is not path:
            both = f"{file_of[key].name} and {path.name}"
            raise DataError(f"{path.parent}: {both} are of the same frame; delete one")
    return keys


def _frame_numbers(files: list[Path]) -> list[int] | None:
    """Return the first number in the names that differs, or None where files share one."""
    numbers = [key[0] for key in _frame_keys(files) if isinstance(key, tuple)]
    return numbers if len({*numbers}) == len(files) else None


def _match_times(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pair times that are each other's nearest and close enough."""
    forward, difference = _nearest(first, second)
    backward, _ = _nearest(second, first)
    return [
        (i, int(j))
        for i, j in enumerate(forward)
        if backward[j] == i and difference[i] <= MAX_TIME_DIFFERENCE
    ]


def _nearest(
    times: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return index and distance of the nearest of ``others`` for each time (ties: the earlier)."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    right = np.searchsorted(ordered, times).clip(0, len(ordered) - 1)
    left = (right - 1).clip(0)
    nearest = np.where(np.abs(times - ordered[left]) <= np.abs(ordered[right] - times), left, right)
    return order[nearest], np.abs(ordered[nearest] - times)


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory: a folder of 4x4 texts, a ``.log`` file, or else TUM's text form.

    Raises:
        DataError: missing or malformed, or a pose is not a rigid motion; names file and line.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    return _read_tum(path) if is_tum(path) else _read_log(path)


def natural_order(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key of a file name by which ``2.png`` comes before ``10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _check(poses: NDArray[np.float64], where: Callable[[int], str]) -> None:
    for note in check_poses(poses, where):
        logger.warning("%s", note)


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
    _check(poses, lambda index: f"{path}: line {lines[5 * index][0]}")
    return Trajectory(path=path, poses=poses, frames=frames)


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
    _check(poses, lambda index: f"{path}: pose {index + 1}")
    return Trajectory(path=path, poses=poses, timestamps=table[:, 0])


def _read_folder(folder: Path) -> Trajectory:
    files = sorted(folder.glob("*.txt"), key=natural_order)
    poses = np.empty((len(files), 4, 4))
    for index, file in enumerate(files):
        values = parse_numbers(read_text(file), str(file))
        if len(values) != 16:
            raise DataError(f"{file}: holds {len(values)} numbers, a pose is a 4x4 matrix")
        poses[index] = np.reshape(values, (4, 4))
    _check(poses, lambda index: str(files[index]))
    return Trajectory(path=folder, poses=poses, files=tuple(files))
