"""The frames of two public data sets' phone captures: ScanNet++'s iPhone part, and ARKitScenes.

ScanNet++ (https://kaldir.vc.in.tum.de/scannetpp/documentation; toolkit
https://github.com/scannetpp/scannetpp, whose ``iphone/prepare_iphone_data.py`` writes the images
and ``iphone/arkit_pcl.py`` shows how they fit together): ``rgb/frame_000000.jpg`` (1920x1440),
``depth/frame_000000.png`` (256x192, millimetres, of the same view), and
``pose_intrinsic_imu.json``: frame -> ``aligned_pose`` (4x4 camera to world, metres) and
``intrinsic`` (3x3, pixels of the colour image).

ARKitScenes (https://github.com/apple/ARKitScenes/blob/main/DATA.md and ``raw/README.md`` there):
``lowres_wide/<video>_<time>.png`` and ``lowres_depth/<video>_<time>.png`` (256x192, millimetres),
``lowres_wide_intrinsics/<video>_<time>.pincam`` (``width height fx fy cx cy``), and
``lowres_wide.traj``. Its world has z up.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, check_external, read_external_json
from threedrs.io.files import parse_numbers, read_text
from threedrs.scannet.camera import PINHOLE, check_poses
from threedrs.scannet.rgbd_folder import RgbdFolder, nearest
from threedrs.scannet.trajectory import UNLOCALISED, read_trajectory

SCANNETPP_POSES = "pose_intrinsic_imu.json"
ARKIT_TRAJECTORY = "lowres_wide.traj"
_ARKIT_WINDOW = 0.005  # seconds between an image and its pose; of the data set's own reader
# A phone's autofocus moves the focal length a little from frame to frame; one is kept for all.
_MOST_SPREAD = 0.05


_Row3 = Annotated[list[float], Field(min_length=3, max_length=3)]
# A frame that was not localised has values that are not finite.
_Row4 = Annotated[
    list[Annotated[float, Field(allow_inf_nan=True)]], Field(min_length=4, max_length=4)
]


class _Frame(ExternalRow):
    aligned_pose: Annotated[list[_Row4], Field(min_length=4, max_length=4)] | None = None
    intrinsic: Annotated[list[_Row3], Field(min_length=3, max_length=3)]


def read_scannetpp(folder: Path) -> RgbdFolder:
    """List the frames of a ScanNet++ scene's ``iphone`` folder; no image is opened.

    Images without an entry are left out; an entry without ``aligned_pose`` was not localised.

    Raises:
        DataError: the images were not extracted, or an entry is malformed.
    """
    path = folder / SCANNETPP_POSES
    colors = {file.stem: file for file in folder.glob("rgb/*.jpg")}
    depths = {file.stem: file for file in folder.glob("depth/*.png")}
    if not colors or not depths:
        raise DataError(
            f"{folder}: holds no rgb/*.jpg or no depth/*.png; extract them from rgb.mkv and "
            "depth.bin with ScanNet++'s toolkit (python -m iphone.prepare_iphone_data)"
        )
    stated = read_external_json(path, dict[str, Any], "copy it again")
    names = sorted({*colors} & {*depths} & {*stated})
    # The others' images were not extracted, so that nothing is taken of their entries.
    used = {name: stated[name] for name in names}
    entries = check_external(used, dict[str, _Frame], str(path), "copy it again")
    poses = [entries[name].aligned_pose or UNLOCALISED for name in names]
    matrices = np.array([entries[name].intrinsic for name in names]).reshape(-1, 3, 3)
    folder_poses = np.array(poses).reshape(-1, 4, 4)
    check_poses(folder_poses, lambda index: f"{path}: {names[index]}")
    return _phone_folder(
        "ScanNet++ iPhone",
        path,
        [colors[name] for name in names],
        [depths[name] for name in names],
        folder_poses,
        matrices[:, *PINHOLE],
        len({*colors, *depths}),
    )


def read_arkitscenes(folder: Path) -> RgbdFolder:
    """List the frames of an ARKitScenes video; no image is opened.

    Colour and depth have one time; images without a pose within 5 ms are left out, as poses come
    at a lower rate.

    Raises:
        DataError: a part is missing or malformed.
    """
    colors, depths, pinholes = (
        {_time(file): file for file in (folder / name).glob(pattern)}
        for name, pattern in (
            ("lowres_wide", "*.png"),
            ("lowres_depth", "*.png"),
            ("lowres_wide_intrinsics", "*.pincam"),
        )
    )
    path = folder / ARKIT_TRAJECTORY
    track = read_trajectory(path)
    if not (colors and depths and pinholes and len(track.poses)) or track.timestamps is None:
        raise DataError(
            f"{folder}: lacks lowres_wide/*.png, lowres_depth/*.png, "
            f"lowres_wide_intrinsics/*.pincam, or a pose in {path.name}; download all four assets"
        )
    times = sorted({*colors} & {*depths})
    rows, difference = nearest(np.array(times), track.timestamps)
    posed = np.flatnonzero(difference <= _ARKIT_WINDOW).tolist()
    intrinsics = []
    for file in pinholes.values():
        values = parse_numbers(read_text(file), str(file))
        if len(values) != 6:
            raise DataError(
                f"{file}: is not of the form 'width height fx fy cx cy'; export it again"
            )
        intrinsics.append(values[2:])
    return _phone_folder(
        "ARKitScenes",
        path,
        [colors[times[i]] for i in posed],
        [depths[times[i]] for i in posed],
        track.poses[rows[posed]],
        np.array(intrinsics),
        len({*colors, *depths}),
        up="z",
    )


def _phone_folder(
    layout: str,
    path: Path,
    colors: list[Path],
    depths: list[Path],
    poses: NDArray[np.float64],
    intrinsics_N4: NDArray[np.float64],
    images: int,
    up: str | None = None,
) -> RgbdFolder:
    """Return the folder, with one intrinsic for all frames and notes on what it leaves out."""
    if not colors:
        raise DataError(f"{path}: no image has a depth image and a pose; are both of one capture?")
    median = np.median(intrinsics_N4, axis=0)
    spread = float(np.abs(intrinsics_N4[:, :2] / median[:2] - 1).max())
    if spread > _MOST_SPREAD:
        raise DataError(
            f"{path}: focal lengths differ by {spread:.0%} among the frames, as after a zoom; "
            "build a scene from the frames of one zoom"
        )
    notes = [f"intrinsic: the median of {len(intrinsics_N4)} frames', which differ by {spread:.1%}"]
    if images > len(colors):
        notes.append(
            f"{images - len(colors)} of {images} images lack colour, depth or a pose: left out"
        )
    return RgbdFolder(
        color_files=colors,
        depth_files=depths,
        poses=poses,
        layout=layout,
        intrinsic=tuple(median.tolist()),
        registered=True,
        up=up,
        notes=notes,
    )


def _time(file: Path) -> float:
    """Return the seconds that a file of ARKitScenes is named by, ``<video>_<seconds>``."""
    try:
        return float(file.stem.rpartition("_")[2])
    except ValueError as error:
        raise DataError(f"{file}: its name does not end in a time; remove the file") from error
