"""Rough boxes without a detector: clusters of a scene's points above the floor.

Floor, walls and ceiling are taken away and what is left falls into clusters (Open3D's DBSCAN). Two
things that touch are one cluster, and a thing that is seen in parts may be several, so these boxes
let a model be asked where something is, and do not replace a detector's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from threedrs.scannet.boxes import MOST_BOXES, BoxSet, make_box_set
from threedrs.scenes.upright import Plane

ROUGH = "rough, clusters of the points above the floor, as no proposals were given"
_FLOOR = 0.08  # metres; rugs and noise lie below
_ACROSS = 0.08  # metres around a wall
_WALL = (1.5, 1.2)  # metres, least width and height
_OUTSIDE = 0.15  # share of the points that doors and windows let be seen behind a wall
_REACH, _NEIGHBOURS = 0.08, 10  # metres and points of DBSCAN, on a cloud of 0.04 m
_FEWEST, _SMALLEST = 30, 0.15  # points, and metres of the longest side
_STRAY = 1.0  # percent of a cluster's points at either end that its box leaves out


def cluster_boxes(
    cloud_P3: NDArray[np.float64], planes: Sequence[Plane], alignment: NDArray[np.float64]
) -> BoxSet:
    """Return up to 50 boxes, (cx, cy, cz, dx, dy, dz) metres, those with most points first.

    Args:
        cloud_P3: (P,3) points of the capture's world, some 0.04 m apart.
        alignment: (4,4) the capture's world to one with z up and the floor at 0.
    """
    import open3d

    points_P3 = cloud_P3 @ alignment[:3, :3].T + alignment[:3, 3]
    kept_P = points_P3[:, 2] > _FLOOR
    for plane in planes:
        normal = alignment[:3, :3] @ plane.normal
        along_P = cloud_P3 @ plane.normal - plane.offset
        beyond = min((along_P > _ACROSS).mean(), (along_P < -_ACROSS).mean())
        extent = np.ptp(points_P3[plane.points], axis=0)
        wall = abs(normal[2]) < 0.2 and np.hypot(*extent[:2]) > _WALL[0] and extent[2] > _WALL[1]
        ceiling = abs(normal[2]) > 0.9 and points_P3[plane.points, 2].mean() > 1.9
        # What encloses a room has the room on one side; a cupboard's front has it on both.
        if beyond < _OUTSIDE and (wall or ceiling):
            kept_P &= np.abs(along_P) > _ACROSS
    left_L3 = points_P3[kept_P]
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(left_L3))
    labels_L = np.asarray(cloud.cluster_dbscan(_REACH, _NEIGHBOURS))
    found = []
    for label in range(labels_L.max(initial=-1) + 1):
        own = left_L3[labels_L == label]
        low, high = np.percentile(own, (_STRAY, 100 - _STRAY), axis=0)
        if low[2] < 2 * _FLOOR:
            low[2] = 0.0  # what stands on the floor was cut off from it above
        if len(own) >= _FEWEST and (high - low).max() >= _SMALLEST:
            found.append((len(own), np.concatenate([(low + high) / 2, high - low])))
    found.sort(key=lambda one: -one[0])
    return make_box_set([(box, row, "") for row, (_, box) in enumerate(found[:MOST_BOXES])])
