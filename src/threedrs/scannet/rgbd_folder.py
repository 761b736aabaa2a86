"""The frames of a posed RGB-D folder: which images belong together, and their poses.

File names that are timestamps in seconds (TUM: ``1305031102.175304.png``) are paired by nearest
time. Otherwise the numbers in the names pair (``7`` and ``frame-000007.color``). Anything else is
refused: a shifted pairing would give a scan that looks whole and is wrong.

Two layouts are read: colour images, depth images and a trajectory (`threedrs.scannet.trajectory`),
each in a place of its own, and that of 7-Scenes, ``frame-000000.{color.png,depth.png,pose.txt}`` in
one folder (https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/: depth in
millimetres, 65535 where nothing was measured, poses camera to world).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from threedrs.errors import DataError
from threedrs.scannet.trajectory import (
    UNLOCALISED,
    Trajectory,
    natural_order,
    read_pose_files,
    read_trajectory,
)

COLOR_FOLDERS = ("color", "rgb", "image", "images")
COLOR_SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}
TRAJECTORIES = ("trajectory.log", "groundtruth.txt", "pose", "poses")
MAX_TIME_DIFFERENCE = 0.02  # seconds; of TUM's own association tool
_TIMESTAMP = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, kw_only=True, eq=False)
class RgbdFolder:
    """The frames of a folder, in order, and what its format states about all of them."""

    color_files: list[Path]
    depth_files: list[Path]  # of the same frames
    poses: NDArray[np.float64]  # (N,4,4) camera to world, metres
    layout: str  # the format's name
    # Microseconds of each colour and depth image, where the names are times.
    timestamps: list[tuple[int, int]] | None = None
    intrinsic: tuple[float, ...] | None = None  # fx, fy, cx, cy of the colour images, pixels
    # Whether depth images show exactly what colour images show, at whatever resolution.
    registered: bool = False
    units_per_metre: tuple[float, ...] = (1000.0,)  # of depth images; several: any of them
    units_source: str = "the format's"
    takes_trajectory: bool = False  # whether other poses may be given than the folder's
    up: str | None = None  # the axis of the poses' world that gravity gives, as ``z``
    notes: list[str] = field(default_factory=list)


def read_rgbd_folder(folder: Path, trajectory: Path | None) -> RgbdFolder:
    """List the frames of a posed RGB-D folder in order; no image is opened.

    A colour image without a pose within 0.02 s is kept with a pose of ``-inf`` (not localised);
    one without a depth image within 0.02 s is left out.

    Raises:
        DataError: a folder or the trajectory is missing or ambiguous, or counts or names disagree.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; name the one that the capture's images lie in")
    color_folder = _one_of(folder, COLOR_FOLDERS, "colour images", "rename the other")
    colors = _one_format(_images(color_folder))
    depths = _images(_one_of(folder, ("depth",), "depth images", ""))
    for path in depths:
        if path.suffix.lower() != ".png":
            raise DataError(f"{path}: depth must be a 16-bit PNG; convert it, or remove it")
    track = read_trajectory(
        trajectory or _one_of(folder, TRAJECTORIES, "trajectory", "choose with --trajectory")
    )
    if not len(track.poses):
        raise DataError(f"{track.path}: holds no pose; export it again")
    color_times, depth_times = _timestamps(colors), _timestamps(depths)
    timestamps, notes = None, []
    if color_times is None or depth_times is None:
        pairs = [*enumerate(_match_names(colors, depths, "depth images"))]
    else:
        pairs = _match_times(color_times, depth_times)
        if not pairs:
            raise DataError(
                f"{folder}: no depth image within {MAX_TIME_DIFFERENCE} s of a colour image; "
                "check the numbers in their names, which count as times"
            )
        timestamps = [(round(color_times[i] * 1e6), round(depth_times[j] * 1e6)) for i, j in pairs]
        if alone := len(colors) - len(pairs):
            notes = [f"{alone} colour images have no depth image within 0.02 s: left out"]
    return RgbdFolder(
        color_files=[colors[i] for i, _ in pairs],
        depth_files=[depths[j] for _, j in pairs],
        poses=_poses_of(colors, color_times, track)[[i for i, _ in pairs]],
        layout=f"colour and depth images, poses of {track.path.name}",
        timestamps=timestamps,
        # TUM's depth images have 5000 units a metre; other tools write 1000 beside its texts.
        units_per_metre=(5000.0, 1000.0) if track.timestamps is not None else (1000.0,),
        units_source="millimetres, as 16-bit images mostly have",
        takes_trajectory=True,
        notes=notes,
    )


def read_seven_scenes(folder: Path) -> RgbdFolder:
    """List the frames of a folder in the layout of 7-Scenes; no image is opened.

    Raises:
        DataError: a frame lacks one of its three files, or a pose is malformed.
    """
    colors = _one_format(sorted(folder.glob("*.color.*"), key=natural_order))
    depths = sorted(folder.glob("*.depth.png"), key=natural_order)
    poses = read_pose_files(folder, "*.pose.txt")
    if not depths or poses.files is None or not poses.files:
        lacking = "*.pose.txt" if depths else "*.depth.png"
        raise DataError(f"{folder}: holds {colors[0].name}, and no {lacking} beside it")
    partners = _match_names(colors, depths, "depth images")
    return RgbdFolder(
        color_files=colors,
        depth_files=[depths[partner] for partner in partners],
        poses=_poses_of(colors, None, poses),
        layout="7-Scenes",
    )


def _one_format(colors: list[Path]) -> list[Path]:
    formats = {COLOR_SUFFIXES.get(path.suffix.lower(), path.suffix) for path in colors}
    if len(formats) > 1:
        raise DataError(f"{colors[0].parent}: mixes JPEG and PNG images; convert one kind")
    return colors


def _one_of(folder: Path, names: tuple[str, ...], what: str, remedy: str) -> Path:
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        video = next((path.name for path in folder.glob("*.m[pok][4v]")), None)
        how = "add them"
        if video and names == COLOR_FOLDERS:
            how = f"extract them where each has a depth image: ffmpeg -i {video} -start_number 0 "
            how += f"{names[0]}/%06d.jpg"
        raise DataError(f"{folder}: holds no {what} (looked for {', '.join(names)}); {how}")
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise DataError(f"{folder}: both {both} could hold {what}; {remedy}")
    return found[0]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    images = [path for path in folder.iterdir() if path.suffix.lower() in COLOR_SUFFIXES]
    if not images:
        kinds = sorted({path.suffix or path.name for path in folder.iterdir()})[:5]
        raise DataError(
            f"{folder}: holds no .jpg, .jpeg or .png image (but {', '.join(kinds) or 'nothing'}); "
            "convert them, depth to 16-bit PNG in millimetres"
        )
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
        return track.poses[_match_names(colors, list(track.files), "pose files")]
    if track.timestamps is not None and color_times is not None:
        rows, difference = nearest(color_times, track.timestamps)
        localised = difference <= MAX_TIME_DIFFERENCE
        if not localised.any():
            raise DataError(
                f"{track.path}: no pose within {MAX_TIME_DIFFERENCE} s of a colour image "
                f"(images {color_times[0]:.3f} to {color_times[-1]:.3f}, "
                f"poses {track.timestamps.min():.3f} to {track.timestamps.max():.3f})"
            )
        return np.where(localised[:, None, None], track.poses[rows], UNLOCALISED)
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


def _match_names(colors: list[Path], others: list[Path], what: str) -> list[int]:
    """Return for each colour image the index of its partner in ``others``: the frame's number."""
    color_keys, other_keys = _frame_keys(colors), _frame_keys(others)
    if {*color_keys}.isdisjoint(other_keys):
        # SUN3D's 0000001-000000020534 is a frame and a time, and the two cameras' times differ.
        numbers, other_numbers = _frame_numbers(colors), _frame_numbers(others)
        if numbers and other_numbers:
            color_keys = [(number,) for number in numbers]
            other_keys = [(number,) for number in other_numbers]
    index_of = {key: index for index, key in enumerate(other_keys)}
    if set(color_keys) == set(index_of):
        return [index_of[key] for key in color_keys]
    alone = set(color_keys) ^ set(index_of)
    files, keys = [*colors, *others], [*color_keys, *other_keys]
    path = next(path for path, key in zip(files, keys, strict=True) if key in alone)
    other = others[0] if path in colors else colors[0]
    raise DataError(
        f"{colors[0].parent} holds {len(colors)} colour images, {others[0].parent} {len(others)} "
        f"{what}; {path.parent.name}/{path.name} has no partner in {other.parent.name} by the "
        "number in its name; add the partner, or remove this file"
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
    forward, difference = nearest(first, second)
    backward, _ = nearest(second, first)
    return [
        (i, int(j))
        for i, j in enumerate(forward)
        if backward[j] == i and difference[i] <= MAX_TIME_DIFFERENCE
    ]


def nearest(
    times: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return index and distance of the nearest of ``others`` for each time (ties: the earlier)."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    right = np.searchsorted(ordered, times).clip(0, len(ordered) - 1)
    left = (right - 1).clip(0)
    nearest = np.where(np.abs(times - ordered[left]) <= np.abs(ordered[right] - times), left, right)
    return order[nearest], np.abs(ordered[nearest] - times)
