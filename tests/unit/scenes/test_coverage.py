"""Coverage sampling against a greedy on Python sets, written from the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.plain_coverage import frame_voxels, plain_greedy, voxel_of
from threedrs.errors import DataError
from threedrs.scenes.coverage import (
    PERCENT,
    MeshVoxels,
    coverage_indices,
    greedy_rows,
    prefix_length,
)

INTRINSIC = np.array([[34.7, 0, 19.5, 0], [0, 35.1, 14.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SQUARE = 4.03  # metres: half the side of the room


def make_pose(angle: float) -> np.ndarray:
    """A camera near the middle of the room that looks along ``angle`` and slightly down."""
    forward = np.array([np.cos(angle), np.sin(angle), -0.3]) / np.sqrt(1.09)
    right = np.array([np.sin(angle), -np.cos(angle), 0])
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = [0.4 * np.cos(3 * angle), 0.3, 1.51]
    return pose


def make_depth(pose: np.ndarray, seed: int) -> np.ndarray:
    """The inside of a room of 8 x 8 x 2.5 m, with holes and noise, 40x30 pixels."""
    generator = np.random.default_rng(seed)
    v, u = np.mgrid[:30, :40]
    rays = np.stack([(u - 19.5) / 34.7, (v - 14.5) / 35.1, np.ones(u.shape)], axis=-1)
    rays = rays @ pose[:3, :3].T
    upper = (np.array([SQUARE, SQUARE, 2.52]) - pose[:3, 3]) / rays
    lower = (np.array([-SQUARE, -SQUARE, 0.02]) - pose[:3, 3]) / rays
    depth = np.maximum(upper, lower).min(axis=-1) * 1000 + generator.normal(0, 20, u.shape)
    depth[generator.random(u.shape) < 0.1] = 0
    return depth.astype(np.uint16)


def make_mesh() -> np.ndarray:
    """Vertices on the floor and two of the walls."""
    along, height = np.arange(-SQUARE, SQUARE, 0.06), np.arange(0.02, 2.5, 0.06)
    floor = np.stack([*np.meshgrid(along, along), np.full((len(along),) * 2, 0.02)], axis=-1)
    wall = np.stack(np.meshgrid(along, [SQUARE, -SQUARE], height), axis=-1)
    vertices = np.concatenate([floor.reshape(-1, 3), wall.reshape(-1, 3)])
    return vertices + np.random.default_rng(1).normal(0, 0.01, vertices.shape)


@given(
    st.lists(st.sets(st.integers(0, 40)), min_size=1, max_size=12),
    st.sampled_from(sorted(PERCENT)),
    st.none() | st.integers(1, 14),
)
def test_greedy_equals_a_greedy_on_sets(
    frames: list[set], strategy: str, count: int | None
) -> None:
    seen_FM = np.zeros((len(frames), 41), dtype=bool)
    for row, voxels in enumerate(frames):
        seen_FM[row, sorted(voxels)] = True
    rows, covered = greedy_rows(seen_FM, count, PERCENT[strategy])
    assert rows == plain_greedy(dict(enumerate(frames)), strategy, count)
    assert covered == len(set().union(*(frames[row] for row in rows)))
    # A published list says how many voxels each frame added: it is cut as the choice is.
    order, _ = greedy_rows(seen_FM, len(frames), None)
    gains = [
        len(frames[row] - set().union(*(frames[other] for other in order[:place])))
        for place, row in enumerate(order)
    ]
    total = len(set().union(*frames))
    if PERCENT[strategy] is not None or count is not None:
        length = prefix_length(gains, total, count, PERCENT[strategy])
        assert order[:length] == rows


def test_frames_that_add_nothing_are_spread() -> None:
    seen_FM = np.ones((9, 3), dtype=bool)
    # The first sees all; then the last, the middle, and the middles of both halves.
    assert greedy_rows(seen_FM, 5, None) == ([0, 8, 4, 2, 6], 3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", sorted(PERCENT))
def test_a_scene_equals_the_definition(strategy: str) -> None:
    poses = [make_pose(0.1 * frame) for frame in range(70)]
    depths = [make_depth(pose, seed) for seed, pose in enumerate(poses)]
    mesh = make_mesh()
    mesh_set = {voxel_of(vertex) for vertex in mesh}
    sets = {
        frame: frame_voxels(depths[frame], INTRINSIC, poses[frame], mesh_set)
        for frame in range(0, 70, 2)
    }
    voxels = MeshVoxels(mesh, "mesh.ply")
    assert len(voxels) == len(mesh_set)
    asked: list[int] = []

    def seen(frame: int) -> np.ndarray:
        asked.append(frame)
        return voxels.seen(depths[frame], INTRINSIC, poses[frame])

    count = 6 if strategy == "coverage" else None
    found = coverage_indices(70, strategy, count, len(voxels), seen)
    taken = plain_greedy(sets, strategy, count)
    assert found.indices == sorted(taken)
    assert asked == list(range(0, 70, 2))
    assert all(type(index) is int for index in found.indices)
    assert (found.looked_at, found.voxels) == (35, len(mesh_set))
    assert found.coverable == len(set().union(*sets.values()))
    assert found.covered == len(set().union(*(sets[frame] for frame in taken)))
    assert 1000 < found.coverable < found.voxels
    if strategy != "coverage":
        share = int(strategy.removeprefix("coverage")) / 100
        assert found.covered >= share * found.coverable
        shorter = set().union(*(sets[frame] for frame in taken[:-1]))
        assert len(shorter) < share * found.coverable


def test_greedy_by_hand() -> None:
    seen = {0: [0, 1, 2], 1: [2, 3, 4], 2: [0, 1, 2, 3], 3: [4, 5], 4: [0, 1, 2, 3], 5: []}
    choose = {
        strategy: coverage_indices(6, strategy, 3, 6, lambda i: np.array(seen[i], dtype=int))
        for strategy in PERCENT
    }
    # Frame 2 (before its equal, 4), then 3; nothing is left to add, so frame 0 fills up.
    assert choose["coverage"].indices == [0, 2, 3]
    assert choose["coverage90"].indices == choose["coverage95"].indices == [2, 3]
    assert (choose["coverage"].covered, choose["coverage"].coverable) == (6, 6)


def test_shares_are_reached_exactly() -> None:
    frames = np.zeros((4, 20), dtype=bool)
    for row, (start, stop) in enumerate([(0, 10), (10, 18), (18, 19), (19, 20)]):
        frames[row, start:stop] = True
    assert greedy_rows(frames, 4, 90) == ([0, 1], 18)  # 18 of 20 is 90 %
    assert greedy_rows(frames, 4, 95) == ([0, 1, 2], 19)  # 19 of 20 is 95 %


@pytest.mark.parametrize(
    ("n", "looked_at"),
    [(5, range(5)), (62, range(62)), (63, range(0, 63, 2)), (64, range(0, 64, 2))],
)
def test_every_second_candidate_unless_fewer_than_32(n: int, looked_at: range) -> None:
    asked: list[int] = []

    def seen(frame: int) -> np.ndarray:
        asked.append(frame)
        return np.array([frame])

    found = coverage_indices(n, "coverage", 40, n, seen)
    assert asked == list(looked_at)
    assert found.indices == list(looked_at)[:40]  # fewer than asked for are not repeated


def test_voxels_by_hand() -> None:
    # Voxels (0,0,0), (0,0,1), (5,0,2); 0.26 rounds to 3, 0.24 to 2.
    voxels = MeshVoxels(np.array([[0.04, 0, 0], [0, 0, 0.13], [0.5, 0, 0.24]]), "mesh.ply")
    assert len(voxels) == 3
    intrinsic = np.array([[100.0, 0, 0, 0], [0, 100, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    depth = np.array([[90, 240, 0, 40_000]], dtype=np.uint16)
    assert voxels.seen(depth, intrinsic, np.eye(4)).tolist() == [1]
    moved = np.eye(4)
    moved[0, 3] = 0.5
    assert voxels.seen(depth, intrinsic, moved).tolist() == [2]
    assert voxels.seen(np.zeros((2, 2), np.uint16), intrinsic, np.eye(4)).tolist() == []
    far = np.eye(4)
    far[:3, 3] = [1e30, -1e30, 0.1]
    assert voxels.seen(depth, intrinsic, far).tolist() == []


def test_a_scene_without_voxels() -> None:
    with pytest.raises(DataError, match=r"^data\.voxels: scene0000_00: holds no point, so no .*; "):
        MeshVoxels(np.zeros((0, 3)), "data.voxels: scene0000_00")


def test_a_mesh_in_millimetres() -> None:
    with pytest.raises(DataError, match=r"a\.ply: the mesh is 15\.0 km wide; .* must be metres"):
        MeshVoxels(np.array([[0.0, 0, 0], [15_000, 0, 0]]), "a.ply")
