"""Rough boxes from clusters of points."""

import numpy as np

from fixtures.captures import FURNITURE, ROOM, room_capture
from threedrs.scannet.geometry import unproject
from threedrs.scenes.clusters import MOST_BOXES, cluster_boxes
from threedrs.scenes.upright import find_planes


def grid(low, high, step=0.04) -> np.ndarray:
    """Points every 4 cm on the surface of a box without its bottom."""
    axes = [np.arange(a, b + 1e-9, step) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes), -1).reshape(-1, 3)
    on = (np.isclose(points, low) | np.isclose(points, high))[:, [0, 1]].any(axis=1)
    return points[on | np.isclose(points[:, 2], high[2])]


def floor() -> np.ndarray:
    x, y = np.meshgrid(np.arange(0, 5, 0.04), np.arange(0, 4, 0.04))
    return np.stack([x, y, 0 * x], -1).reshape(-1, 3)


def test_each_thing_apart_is_a_box_and_the_largest_comes_first():
    large, small = ([1.0, 1.0, 0.0], [2.0, 1.6, 0.8]), ([3.0, 3.0, 0.0], [3.4, 3.4, 0.4])
    cloud = np.concatenate([floor(), grid(*small), grid(*large)])
    boxes = cluster_boxes(cloud, find_planes(cloud), np.eye(4))
    assert boxes.ids.tolist() == [0, 1]
    assert boxes.labels == ("", "")
    assert np.allclose(
        boxes.boxes, [[1.5, 1.3, 0.4, 1.0, 0.6, 0.8], [3.2, 3.2, 0.2, 0.4, 0.4, 0.4]], atol=0.05
    )


def test_crumbs_are_no_boxes_and_there_are_at_most_fifty():
    spots = [(0.3 + 0.6 * i, 0.3 + 0.5 * j) for i in range(8) for j in range(7)]
    things = [grid([x, y, 0.0], [x + 0.2, y + 0.2, 0.28]) for x, y in spots]
    crumb = np.array([[4.9, 3.9, 0.5 + 0.01 * n] for n in range(12)])
    cloud = np.concatenate([floor(), *things, crumb])
    assert len(cluster_boxes(cloud, find_planes(cloud), np.eye(4))) == MOST_BOXES


def test_an_empty_floor_has_no_boxes():
    cloud = floor()
    assert len(cluster_boxes(cloud, find_planes(cloud), np.eye(4))) == 0


def test_walls_are_no_boxes_and_furniture_is():
    capture = room_capture(24)
    columns, rows = np.arange(160), np.arange(120)
    intrinsic = np.array([[130.0, 0, 80], [0, 130, 60], [0, 0, 1]])
    cloud = np.concatenate(
        [
            unproject(depth, intrinsic, pose, columns_W=columns, rows_H=rows)[::2, ::2].reshape(
                -1, 3
            )
            for depth, pose in zip(capture.depths, capture.poses, strict=True)
        ]
    )
    cloud = np.unique(np.rint(cloud / 0.04), axis=0) * 0.04
    boxes = cluster_boxes(cloud, find_planes(cloud), np.eye(4)).boxes
    lower, upper = FURNITURE[:, 0], FURNITURE[:, 1]
    expected = np.concatenate([(lower + upper) / 2, upper - lower], axis=1)
    assert len(boxes) == len(expected)
    for box in expected:
        assert np.abs(boxes - box).max(axis=1).min() < 0.15
    assert (boxes[:, 3:] < ROOM[1] - 1).all()
