"""Which way is up in a capture, and the turn that makes its scene stand: z up, floor at 0.

Two things tell. People hold a camera level, so that the images' horizontal axis (or, of a phone
held upright, the vertical one) stays level while the camera pans: up is the direction that this
axis never has. It is off by some degrees. The floor is exact: of the planes in the point cloud
(Open3D's RANSAC) that lie across this direction, it is the largest with next to nothing below it.
Where the format gives gravity, or the user an axis, that is up, and the floor only gives the
height. The walls turn the scene about z, so that boxes along the axes fit its furniture.

Costs about a second for a cloud of 100,000 points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from threedrs.errors import DataError

Vector = NDArray[np.float64]

AXES: dict[str, Vector] = {
    f"{sign}{name}": float(f"{sign}1") * np.eye(3)[index]
    for index, name in enumerate("xyz")
    for sign in ("", "-")
}
"""Name -> direction of the six axes of a capture's own world."""
_PLANES = 10  # the most that are looked for
_PLANE_DISTANCE = 0.04  # metres
_PLANE_SHARE = 0.02  # of the points; a smaller plane is not looked at
_BELOW = 0.1  # metres below the floor; farther points count as below it
_MOST_BELOW = 0.05  # share of the points that reflections and noise put below a floor
# An axis of the capture within this many degrees is what the capture means, as its software levels
# it and a floor's plane is no better.
_SNAP = 2.0
_LEVEL = 30.0  # degrees between a floor and the up of a camera that pans
# Mean squares of a level axis: across its main direction from here the camera pans, and along up
# there is at most so much, or it was not held level.
_PAN, _ROLL = 0.05, 0.1
_LOOKS = 0.1  # mean share of looking down from which it is sure, which is 6 degrees
_ON_ITS_SIDE = 45.0  # degrees


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """A plane in the cloud: the points p with ``normal`` . p = ``offset``."""

    normal: Vector  # (3,), of length 1
    offset: float  # metres
    points: NDArray[np.intp]  # which points of the cloud lie on it


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """How a capture is turned."""

    alignment: Vector  # (4,4) the capture's world to one with z up and the floor at 0
    facts: list[str]


def find_planes(cloud_P3: Vector) -> list[Plane]:
    """Return the largest planes of a point cloud, one after the other, largest first."""
    import open3d

    open3d.utility.random.seed(0)  # the same cloud, the same planes
    left, planes = np.arange(len(cloud_P3)), list[Plane]()
    while len(planes) < _PLANES and len(left) >= max(3, _PLANE_SHARE * len(cloud_P3)):
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud_P3[left]))
        _, inside = cloud.segment_plane(_PLANE_DISTANCE, ransac_n=3, num_iterations=500)
        if len(inside) < max(3, _PLANE_SHARE * len(cloud_P3)):
            break
        points = left[inside]
        # RANSAC's plane goes through three points; that of all of them is far better.
        centre = cloud_P3[points].mean(axis=0)
        normal = np.linalg.svd(cloud_P3[points] - centre, full_matrices=False)[2][2]
        planes.append(Plane(normal=normal, offset=float(normal @ centre), points=points))
        left = np.delete(left, inside)
    return sorted(planes, key=lambda plane: -len(plane.points))


def camera_ups(poses_F44: Vector) -> tuple[list[Vector], bool]:
    """Return the up that the way the camera was held gives, (3,), and whether it panned.

    Of a camera held upright that looked neither up nor down these are two, one against the other,
    as either side of its images may be their top. A camera that did not pan says only which way its
    images' top is.
    """
    right_F3, down_F3, ahead_F3 = (poses_F44[:, :3, axis] for axis in range(3))
    spreads = {}
    for name, level_F3 in (("landscape", right_F3), ("portrait", down_F3)):
        values, vectors = np.linalg.eigh(level_F3.T @ level_F3 / len(level_F3))
        spreads[name] = (float(values[0]), float(values[1]), vectors[:, 0])
    least, across, axis = spreads["landscape"]
    upright_least, upright_across, upright_axis = spreads["portrait"]
    sideways = float(right_F3.mean(axis=0) @ upright_axis)
    # Looking level, the other axis points up in all frames: it does not pan, and counts as held.
    level = upright_least < (_ROLL if across <= _PAN else min(_ROLL, least / 2))
    if upright_across > _PAN and level and abs(sideways) > 0.7:
        # One looks more down than up.
        looks = float(ahead_F3.mean(axis=0) @ upright_axis)
        up = -upright_axis if looks > 0 else upright_axis
        return ([up] if abs(looks) > _LOOKS else [up, -up]), True
    mean = -down_F3.mean(axis=0)
    if across > _PAN and least < _ROLL:
        return [axis if mean @ axis > 0 else -axis], True
    return [mean / max(float(np.linalg.norm(mean)), 1e-9)], False


def stand_up(
    cloud_P3: Vector,
    planes: Sequence[Plane],
    poses_F44: Vector,
    *,
    asked: str | None = None,
    gravity: str | None = None,
    along_walls: bool = True,
) -> Standing:
    """Find up and the floor, and return the turn that makes the scene stand.

    Args:
        cloud_P3: (P,3) points of the capture's world, metres.
        poses_F44: (F,4,4) camera to world, valid ones.
        gravity: the axis that the format gives, likewise.
        along_walls: whether to turn the scene about z so that most walls lie along the axes.

    Raises:
        DataError: no floor is seen, and nobody says which way is up.
    """
    ups, panned = camera_ups(poses_F44)
    floor: Plane | None
    if given := asked or gravity:
        up = AXES[given]
        floor = _floor(cloud_P3, planes, up, _LEVEL / 3)
        source = "as asked (--up)" if asked else "as the format says"
        facts = [f"up: {given} of the capture, {source}", *_lying_warning(ups, up)]
    else:
        floor = _only_floor(cloud_P3, planes, ups, _LEVEL if panned else 2 * _LEVEL)
        # The axis of the capture that is as good as up, or up itself.
        name, angle = _nearest_axis(floor.normal)
        up = AXES[name] if angle <= _SNAP else floor.normal
        if angle > _SNAP:
            name = f"({', '.join(f'{value:.3f}' for value in up)})"
        share = len(floor.points) / len(cloud_P3)
        off = min(_degrees(floor.normal, held) for held in ups)
        facts = [
            f"up: {name} of the capture, found by the floor ({share:.0%} of the points, "
            f"{off:.0f} degrees off the camera's level)"
        ]
    heights = cloud_P3 @ up if floor is None else cloud_P3[floor.points] @ up
    ground = float(np.median(heights) if floor else np.percentile(heights, 1))
    if floor is None:
        facts.append("warning: no floor is seen; the lowest hundredth of the points is put at 0")
    alignment = np.eye(4)
    alignment[:3, :3] = _turn_to_z(up)
    if along_walls:
        yaw = _wall_yaw(cloud_P3 @ alignment[:3, :3].T)
        turn = Rotation.from_euler("z", yaw, degrees=True).as_matrix()
        alignment[:3, :3] = turn @ alignment[:3, :3]
        if yaw:
            facts.append(f"walls: along the axes after {yaw:.1f} degrees about z")
    alignment[2, 3] = -ground
    return Standing(alignment=alignment, facts=facts)


def _lying_warning(ups: Sequence[Vector], up: Vector) -> list[str]:
    """Return a warning where the camera was held otherwise than ``up`` says."""
    other = _other_up(ups, up)
    if other is None:
        return []
    how = "be upside down" if AXES[other] @ up < -0.5 else "lie on its side"
    return [
        f"warning: the scene seems to {how}, as the camera was held with {other} up; look at it "
        f"with threedrs scene show, and give --up {other} if so"
    ]


def quarter_turns(poses_F44: Vector) -> int:
    """Return how often the images must be turned left by a quarter so that up is their top.

    Args:
        poses_F44: (F,4,4) camera to a world with z up.
    """
    # Up in the axes of each image: x to the right, y down. Steep views say little.
    rightward_F, downward_F = poses_F44[:, 2, 0], poses_F44[:, 2, 1]
    return round(float(np.arctan2(rightward_F.sum(), -downward_F.sum())) / (np.pi / 2)) % 4


def lying_note(poses_F44: Vector, meta: str) -> str | None:
    """Return what to do where the cameras say that z is not up, or None.

    Args:
        poses_F44: (F,4,4) camera to world, valid ones.
    """
    ups, panned = camera_ups(poses_F44)
    axis = _other_up(ups, AXES["z"])
    if not panned or axis is None:
        return None
    how = "is upside down" if axis == "-z" else "lies on its side"
    alignment = np.eye(4)
    alignment[:3, :3] = _turn_to_z(AXES[axis])
    values = " ".join(f"{value + 0.0:g}" for value in alignment.ravel())
    return (
        f"the scene {how}, as the camera was held with {axis} up; write a line "
        f"'axisAlignment = {values}' to {meta}, or build it with threedrs scene build"
    )


def _other_up(ups: Sequence[Vector], up: Vector) -> str | None:
    """Return the axis that was held up, where that is far from ``up``; or None."""
    if min(_degrees(up, held) for held in ups) <= _ON_ITS_SIDE:
        return None
    return _nearest_axis(ups[0])[0]


def _only_floor(
    cloud_P3: Vector, planes: Sequence[Plane], ups: Sequence[Vector], within: float
) -> Plane:
    """Return the floor, where exactly one of ``ups`` has one. Raises DataError."""
    found = [_floor(cloud_P3, planes, up, within) for up in ups]
    floors = [floor for floor in found if floor is not None]
    axes = " or ".join(f"--up {_nearest_axis(up)[0]}" for up in ups)
    if not floors:
        raise DataError(
            "no floor is seen, so up is not known; by the way the camera was held give "
            f"{axes}, or look at the images and give another axis"
        )
    if len(floors) > 1:
        raise DataError(
            "floor and ceiling are seen by a camera that was held upright and looked level, so "
            f"which is which is not known; give {axes}"
        )
    return floors[0]


def _floor(cloud_P3: Vector, planes: Sequence[Plane], up: Vector, within: float) -> Plane | None:
    """Return the largest plane across ``up`` with next to nothing below it, its normal up."""
    for plane in planes:
        sign = 1.0 if plane.normal @ up > 0 else -1.0
        if _degrees(sign * plane.normal, up) > within:
            continue
        below = cloud_P3 @ (sign * plane.normal) < sign * plane.offset - _BELOW
        if below.mean() <= _MOST_BELOW:
            return Plane(
                normal=sign * plane.normal, offset=sign * plane.offset, points=plane.points
            )
    return None


def _degrees(first: Vector, second: Vector) -> float:
    return float(np.degrees(np.arccos(np.clip(first @ second, -1.0, 1.0))))


def _nearest_axis(direction: Vector) -> tuple[str, float]:
    """Return the nearest axis, and how many degrees off it is."""
    name = max(AXES, key=lambda axis: float(AXES[axis] @ direction))
    return name, _degrees(AXES[name], direction)


def _turn_to_z(up: Vector) -> Vector:
    """Return the smallest rotation, (3,3), that takes ``up`` to z; exact for an axis."""
    axis = np.cross(up, AXES["z"])
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.eye(3) if up[2] > 0 else np.diag([1.0, -1.0, -1.0])
    angle = np.arctan2(length, up[2])
    return np.round(Rotation.from_rotvec(axis / length * angle).as_matrix(), 12)


def _wall_yaw(cloud_P3: Vector) -> float:
    """Return the degrees about z, -45 to 45, that bring most walls along the axes; 0: none do."""
    import open3d

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud_P3))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(20))
    normals_P3 = np.asarray(cloud.normals)
    walls_W3 = normals_P3[np.abs(normals_P3[:, 2]) < 0.2]
    if not len(walls_W3):
        return 0.0
    # Four times the angle is the same for all four directions of a room's walls.
    mean = np.exp(4j * np.arctan2(walls_W3[:, 1], walls_W3[:, 0])).mean()
    yaw = -float(np.degrees(np.angle(mean))) / 4
    return 0.0 if abs(mean) < 0.2 or abs(yaw) < _SNAP else yaw
