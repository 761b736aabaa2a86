"""Whether poses, intrinsics and depth can be those of a camera in a room.

One set of checks for every entrance: a ``.sens``, exported images, an imported RGB-D folder, and
EmbodiedScan's matrices. A file may be whole and still say a wrong thing (a transposed pose, depth
in another unit, the intrinsic of images that were resized later), and nothing after it would
notice. What has one known cause is named with the value that mends it.
"""

import math
from collections.abc import Callable

import numpy as np

from threedrs.errors import DataError

NOT_MEASURED = 65535
"""A depth value that sensors write where they measure nothing, as 7-Scenes does, beside 0."""
DEPTH_VALUES = 2**16
PINHOLE = ([0, 1, 0, 1], [0, 1, 2, 2])
"""Where fx, fy, cx, cy stand in an intrinsic matrix, as its index."""
# Depth units a metre in use, so that a scale that is wrong by a known factor can be named.
KNOWN_SCALES = {
    100.0: "centimetres",
    1000.0: "millimetres",
    4000.0: "Matterport3D",
    5000.0: "TUM",
    6553.5: "Replica",
    10000.0: "a tenth of a millimetre",
}
# Median depth, metres. A hand-held capture of a room has 1 to 3; beyond the outer pair the unit is
# wrong, between the pairs it may be.
_POSSIBLE = (0.1, 12.0)
_USUAL = (0.25, 6.0)
# A marker of no measurement: farther than sensors of rooms see, frequent, with nothing near it.
_MARKER_METRES, _MARKER_SHARE, _MARKER_GAP = 9.0, 1e-3, 0.6
_FIELD_OF_VIEW = (10.0, 150.0)  # degrees, along either side of the image
# Along the longer side; the cameras that rooms are captured with have 55 to 87.
_USUAL_VIEW = (40.0, 90.0)
_SAME_SIZE = 1.25  # image sizes within this factor count as one: principal points are not centred
_MOST_MOTION = 1000.0  # metres between two places of the camera


def is_rigid(transforms: np.ndarray) -> np.ndarray:
    """Return which (...,4,4) transforms are a rotation and a translation, (...) bool.

    Texts round: published matrices have six decimals, and other tools' fewer.
    """
    rotations = transforms[..., :3, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        products = rotations @ np.swapaxes(rotations, -1, -2)
        last_row = np.abs(transforms[..., 3, :] - (0.0, 0.0, 0.0, 1.0)).max(axis=-1)
        off = np.abs(products - np.eye(3)).max(axis=(-1, -2))
        return (last_row <= 1e-4) & (off <= 1e-2) & (np.linalg.det(rotations) > 0)


def has_valid_pose(poses_F44: np.ndarray) -> np.ndarray:
    """Return which poses are valid, (F,) bool: finite and not all zero.

    ScanNet marks frames that its tracking lost by ``-inf``; other captures by zeros.
    """
    return np.isfinite(poses_F44).all(axis=(1, 2)) & (poses_F44 != 0).any(axis=(1, 2))


def check_poses(poses_F44: np.ndarray, where: Callable[[int], str]) -> list[str]:
    """Check that every valid pose is a rigid motion, and that the camera stays within a kilometre.

    Args:
        poses_F44: (F,4,4) camera to world, metres. Frames that were not localised pass.
        where: names the source of the pose at an index, for messages.

    Returns:
        Notes on a few poses that lie farther from the others.

    Raises:
        DataError: a pose is transposed, mirrored or scaled, or the translations are millimetres.
    """
    valid_F = has_valid_pose(poses_F44)
    for wrong in np.flatnonzero(valid_F & ~is_rigid(poses_F44)).tolist():
        raise DataError(
            f"{where(wrong)}: the matrix is not a rigid camera-to-world pose (rotation and "
            f"translation row by row, last row 0 0 0 1){_pose_cause(poses_F44[wrong])}"
        )
    centres_F3 = poses_F44[valid_F, :3, 3]
    if not len(centres_F3):
        return []
    # A few frames that tracking lost may be given as the identity, far from a capture in
    # geographic coordinates, and say nothing about the unit.
    low_3, high_3 = np.quantile(centres_F3, (0.05, 0.95), axis=0, method="inverted_cdf")
    motion = float((high_3 - low_3).max())
    if motion > _MOST_MOTION:
        index = int(np.flatnonzero(valid_F)[np.abs(centres_F3).max(axis=1).argmax()])
        raise DataError(
            f"{where(index)}: the poses lie {motion:.0f} m apart; their unit must be metres, so "
            "divide the translations by 1000 if they are millimetres"
        )
    distances_F3 = np.abs(centres_F3 - np.median(centres_F3, axis=0))
    far = np.flatnonzero(valid_F)[distances_F3.max(axis=1) > _MOST_MOTION].tolist()
    if not far:
        return []
    return [
        f"{where(far[0])}: the pose lies over {_MOST_MOTION:.0f} m from the others, the first "
        f"of {len(far)}; write -inf where a frame was not localised"
    ]


def _pose_cause(pose: np.ndarray) -> str:
    """Return the clause that says how to mend a pose that is not rigid, or nothing."""
    if is_rigid(pose.T):
        return "; it is transposed, so write its columns as rows"
    determinant = np.linalg.det(pose[:3, :3])
    factor = abs(determinant) ** (1 / 3)
    rotation = pose.copy()
    # The negative of a mirrored rotation is a rotation.
    rotation[:3, :3] /= math.copysign(max(factor, 1e-12), determinant)
    if not is_rigid(rotation):
        return ""
    scale = "" if abs(factor - 1) < 1e-2 else f"; its rotation is scaled by {factor:.4g}"
    return scale + ("; it is mirrored" if determinant < 0 else "")


def check_intrinsic(
    matrix: np.ndarray, size: tuple[int, int], where: str, remedy: str = "scaled to them it is"
) -> list[str]:
    """Check that a pinhole matrix can be that of images of ``size``, and return notes on doubts.

    A crop may move the principal point, so it only has to lie inside the image. But if it lies off
    the middle by one factor in both directions, and the field of view is usual for the size that
    this implies and not for ``size``, the image was resized and the matrix was not.

    Args:
        matrix: (4,4), pixels.
        remedy: the words before ``fx,fy,cx,cy`` as they would be at this size.

    Raises:
        DataError: a focal length is not positive, the principal point or the field of view is
            impossible, or the matrix is that of images of another size.
    """
    focal, centre = np.array([matrix[0, 0], matrix[1, 1]]), matrix[:2, 2]
    if not (np.isfinite(matrix).all() and (focal > 0).all()):
        raise DataError(f"{where}: focal lengths must be positive and all values finite")
    notes = []
    views = np.degrees(2 * np.arctan(np.array(size) / (2 * focal)))
    factors = 2 * centre / size
    width, height = (float(side) for side in 2 * centre)
    alike = factors.min() > 0 and factors.max() / factors.min() <= 1.1
    if alike and not 1 / _SAME_SIZE <= factors.mean() <= _SAME_SIZE:
        scaled = np.concatenate([focal, centre]) / factors.mean()
        values = ",".join(f"{value:.6g}" for value in scaled)
        sizes = f"images of about {width:.0f}x{height:.0f} pixels, these have {size[0]}x{size[1]}"
        implied = np.degrees(2 * np.arctan(centre / focal))
        if _is_usual(implied) and not _is_usual(views):
            raise DataError(f"{where}: is the intrinsic of {sizes}; {remedy} {values}")
        notes.append(
            f"{where}: is that of a crop, or of {sizes}; if they were resized, {remedy} {values}"
        )
    turned = np.array([width / size[1], height / size[0]])
    if size[0] != size[1] and (np.abs(turned - 1) < 0.1).all() and not alike:
        raise DataError(
            f"{where}: is the intrinsic of images of about {width:.0f}x{height:.0f} pixels, these "
            f"have {size[0]}x{size[1]}; turn the images or exchange fx with fy and cx with cy"
        )
    if not ((centre > 0) & (centre < size)).all():
        raise DataError(
            f"{where}: the principal point {centre[0]:g},{centre[1]:g} is not inside the images of "
            f"{size[0]}x{size[1]} pixels; give the intrinsic of these images"
        )
    if views.min() < _FIELD_OF_VIEW[0] or views.max() > _FIELD_OF_VIEW[1]:
        raise DataError(
            f"{where}: the field of view of images of {size[0]}x{size[1]} pixels would be "
            f"{views[0]:.0f} by {views[1]:.0f} degrees; give focal lengths in pixels of these "
            "images"
        )
    return notes


def _is_usual(views: np.ndarray) -> bool:
    return bool(_USUAL_VIEW[0] <= views.max() <= _USUAL_VIEW[1])


def without_unmeasured(depth: np.ndarray) -> np.ndarray:
    """Return uint16 depth of any shape with 0 also where 65535 says that nothing was measured."""
    return np.where(depth == NOT_MEASURED, np.uint16(0), depth)


def count_depths(depth: np.ndarray) -> np.ndarray:
    """Return how often each measured value stands in uint16 depth images, (65536,) int64."""
    counts = np.bincount(depth.ravel(), minlength=DEPTH_VALUES)
    counts[[0, NOT_MEASURED]] = 0
    return counts


def to_millimetres(depth: np.ndarray, units_per_metre: float) -> np.ndarray:
    """Return uint16 depth of any shape in millimetres, rounded; 0 beyond 65.535 m."""
    if units_per_metre == 1000.0:
        return depth
    millimetres = np.rint(depth * (1000.0 / units_per_metre))
    return np.where(millimetres <= NOT_MEASURED, millimetres, 0).astype(np.uint16)


def median_depth(counts: np.ndarray) -> int:
    """Return the median of the values of `count_depths`, in their units; 0 of none."""
    return int(np.searchsorted(counts.cumsum(), (counts.sum() + 1) // 2))


def check_depths(
    counts: np.ndarray, units_per_metre: float, where: str, remedy: str = "the unit may be"
) -> list[str]:
    """Check that depth values can be those of a room, and return notes on unusual ones.

    Args:
        counts: `count_depths`, summed over the frames.
        remedy: the words before a scale that would fit.

    Raises:
        DataError: nothing is measured, the median is no distance in a room, or one far value marks
            pixels without measurement.
    """
    total = int(counts.sum())
    if not total:
        raise DataError(
            f"{where}: no pixel has a depth; check the depth images and their scale "
            f"({units_per_metre:g} units a metre)"
        )
    farthest = int(np.flatnonzero(counts)[-1])
    near_it = counts[int(farthest * _MARKER_GAP) : farthest].sum()
    if (
        farthest / units_per_metre > _MARKER_METRES
        and not near_it
        and _MARKER_SHARE * total <= counts[farthest] < total
    ):
        raise DataError(
            f"{where}: the depth value {farthest} stands in {counts[farthest] / total:.1%} of "
            f"the pixels and nothing else is near it, so it marks pixels without measurement; set "
            "them to 0"
        )
    median = median_depth(counts)
    metres = median / units_per_metre
    if _USUAL[0] <= metres <= _USUAL[1]:
        return []
    fitting = [
        f"{scale:g} ({name}: {median / scale:.2g} m)"
        for scale, name in KNOWN_SCALES.items()
        if scale != units_per_metre and 0.4 <= median / scale <= 4.0
    ]
    said = f"the median depth is {metres:.3g} m at {units_per_metre:g} units a metre"
    advice = f"{remedy} {' or '.join(fitting)}" if fitting else "check the depth images"
    if not _POSSIBLE[0] <= metres <= _POSSIBLE[1]:
        raise DataError(f"{where}: {said}, which no room has; {advice}")
    return [f"{said}, unusual for a room; {advice}"]
