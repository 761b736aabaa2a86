"""The camera's walk: it stays in the room, and its frames show all that sentences speak of."""

import itertools
from dataclasses import dataclass

import numpy as np
import open3d as o3d
import pytest

from threedrs.demo import camera_walk as camera_walk_module
from threedrs.demo.camera_walk import (
    Walk,
    camera_walk,
    draw_scanned_room,
    lost_frames,
    unseen_pieces,
)
from threedrs.demo.render import DEPTH_INTRINSIC
from threedrs.demo.room_mesh import SceneMesh, build_mesh
from threedrs.demo.room_objects import Room
from threedrs.demo.rooms import THEMES, make_room
from threedrs.scenes.frame_selection import candidate_frames

STUDENT_FRAMES = 8  # of config.yaml and small.yaml


@dataclass(frozen=True)
class Scanned:
    """A room, its mesh and a walk through it."""

    room: Room
    mesh: SceneMesh
    walk: Walk


@pytest.fixture(scope="module", params=[(12, 1), (104, 10)], ids=["12", "104"])
def scanned(request: pytest.FixtureRequest) -> tuple[list[Scanned], int]:
    """Rooms with a walk of so many frames, and the stride that its users take."""
    frames, stride = request.param
    rooms = []
    for number, theme in zip(range(3), itertools.cycle(THEMES), strict=False):
        rng = np.random.default_rng(number)
        rooms.append(Scanned(*draw_scanned_room(theme, frames, rng, rng)))
    return rooms, stride


@pytest.mark.parametrize("frames", [4, 9])
def test_a_stream_too_short_to_show_all_takes_the_first_room(frames: int) -> None:
    of_room, again, of_walk = (np.random.default_rng(0) for _ in range(3))
    _, _, walk = draw_scanned_room("office", frames, of_room, of_walk)
    make_room("office", again)
    assert of_room.random() == again.random()
    assert len(walk.poses) == frames


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
def test_the_shortest_stream_that_shows_all_is_found_soon(
    theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_walk_module, "ROOMS", 10)
    rng = np.random.default_rng(0)
    frames = camera_walk_module.FEWEST_FRAMES
    room, mesh, walk = draw_scanned_room(theme, frames, rng, rng)
    assert not unseen_pieces(room, mesh, walk)


def test_where_no_walk_shows_all_the_last_room_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_walk_module, "ROOMS", 3)
    monkeypatch.setattr(camera_walk_module, "WALKS", 2)
    monkeypatch.setattr(camera_walk_module, "unseen_pieces", lambda room, mesh, walk: {0})
    of_room, of_walk = np.random.default_rng(1), np.random.default_rng(2)
    room, _, walk = draw_scanned_room("office", 12, of_room, of_walk)
    again, once_more = np.random.default_rng(1), np.random.default_rng(2)
    for _ in range(3):
        last = make_room("office", again)
        for _ in range(2):
            poses, lost = camera_walk(last, 12, once_more), lost_frames(12, once_more)
    assert repr(room) == repr(last)
    np.testing.assert_array_equal(walk.poses, poses)
    np.testing.assert_array_equal(walk.lost, lost)


def test_walk_stays_in_the_room_at_eye_height() -> None:
    for number, theme in enumerate(THEMES):
        room = make_room(theme, np.random.default_rng(number))
        poses = camera_walk(room, 104, np.random.default_rng(number))
        turns = poses[:, :3, :3]
        products = turns @ turns.transpose(0, 2, 1)
        np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9)
        np.testing.assert_allclose(np.linalg.det(turns), 1.0)
        place = poses[:, :3, 3]
        assert (np.abs(place[:, :2]) < np.array(room.size[:2]) / 2 - 0.5).all()
        assert place[:, 2].min() > 1.28
        assert place[:, 2].max() < 1.72
        assert (poses[:, 2, 2] < 0.2).all()  # looks down or nearly level
        assert (poses[:, 2, 1] < -0.7).all()  # and holds the camera upright
        heading = np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2]))
        assert np.ptp(heading) > 1.6 * np.pi
        assert np.abs(np.diff(place, axis=0)).max() < 0.2
        for piece in room.furniture:
            if piece.high[2] > 1.25:
                apart = np.maximum(np.maximum(piece.low - place, place - piece.high), 0)
                assert np.linalg.norm(apart, axis=1).min() > 0.15, piece.label


def shares(mesh: SceneMesh, pose: np.ndarray, objects: int) -> np.ndarray:
    """Share of an image of 160 x 120 that each object fills, with Open3D's own camera."""
    intrinsic = DEPTH_INTRINSIC[:3, :3] / 4
    intrinsic[2, 2] = 1
    rays = mesh.caster.create_rays_pinhole(
        o3d.core.Tensor(intrinsic), o3d.core.Tensor(np.linalg.inv(pose)), 160, 120
    )
    triangle = mesh.caster.cast_rays(rays)["primitive_ids"].numpy().astype(np.int64)
    owner = mesh.vertex_object[mesh.triangles[:, 0]]
    hit = owner[triangle[triangle < len(owner)]]
    return np.array([(hit == number).mean() for number in range(objects)]) * hit.size / 19_200


def test_chosen_frames_show_all_furniture(scanned: tuple[list[Scanned], int]) -> None:
    """The frames that the scene stage takes show each piece at 25 x 25 pixels or more."""
    rooms, stride = scanned
    for scan in rooms:
        stored = np.where(scan.walk.lost[:, None, None], -np.inf, scan.walk.poses)
        candidates = candidate_frames(stored, np.arange(len(stored)), stride=stride).frames
        places = np.linspace(0, len(candidates) - 1, STUDENT_FRAMES).astype(int)
        chosen = [candidates[place] for place in places]
        most = np.max(
            [shares(scan.mesh, stored[frame], len(scan.room.pieces)) for frame in chosen], axis=0
        )
        for piece in scan.room.furniture:
            assert most[piece.id] > 0.0015, piece.label


def test_a_piece_out_of_view_is_unseen() -> None:
    """A camera that never turns sees half of the room, and never what is at its back."""
    room = make_room("bedroom", np.random.default_rng(2))
    mesh = build_mesh(room)
    pose = camera_walk(room, 12, np.random.default_rng(0))[0]
    still = Walk(np.repeat(pose[None], 12, axis=0), np.zeros(12, bool))
    ahead = {
        piece.id for piece in room.furniture if (piece.centre - pose[:3, 3])[:2] @ pose[:2, 2] > 0
    }
    behind = {piece.id for piece in room.furniture} - ahead
    unseen = unseen_pieces(room, mesh, still)
    assert behind <= unseen
    assert not ahead <= unseen
    assert behind


def test_few_poses_are_lost_and_none_beside_another_candidate() -> None:
    for seed in range(20):
        short = lost_frames(12, np.random.default_rng(seed))
        assert short.sum() == 1
        assert not short[0]
        long = lost_frames(104, np.random.default_rng(seed))
        assert long[::10].sum() == 1
        (alone,) = np.flatnonzero(long[::10]) * 10
        run = np.setdiff1d(np.flatnonzero(long), alone)
        assert len(run) == 3
        assert np.ptp(run) == 2
        assert not long[0]
    assert lost_frames(2, np.random.default_rng(0)).tolist() == [False, True]
