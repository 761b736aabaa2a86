"""A hand-held camera's walk around a room, on which every piece of furniture is seen.

The camera goes once around an ellipse about the middle of the room, 1.3 to 1.7 m high, and looks
across the room and a little down, so that every wall comes into view. Slow sways and a small, fast
shake stand for the hand. Tracking loses a few poses. Walks are drawn until one shows everything, as
someone who scans a room takes care of: sentences speak of all that stands there, and whoever looks
at a few of the frames has to find it in them. Some 30 ms a walk.
"""

from dataclasses import dataclass

import numpy as np

from threedrs.demo.render import DEPTH_INTRINSIC, DEPTH_SIZE
from threedrs.demo.room_mesh import SceneMesh, build_mesh
from threedrs.demo.room_objects import Room
from threedrs.demo.rooms import make_room

STRIDE = 10  # between the candidates of a long stream; of a short one every frame is one
CANDIDATES = 10  # parts of a walk; a piece is looked for in a frame of each
LOST_RUN = 3  # frames between two candidates whose poses are lost together
WALKS = 20  # drawn for a room before it counts as one that cannot be shown
ROOMS = 30  # drawn before one is taken with a piece that is not seen
FEWEST_FRAMES = 10  # of a walk that shows all of a room; a shorter one hardly ever does
RAY_STEP = 8  # pixels between two rays that look for pieces
LEAST_SHARE = 0.002  # of an image that a piece fills where it is seen: 25 by 25 pixels
LEAST_PART = 0.35  # of the most that any candidate shows of a piece


@dataclass(frozen=True)
class Walk:
    """Poses (F,4,4) f64, camera to axis-aligned world, and which of them (F,) tracking lost."""

    poses: np.ndarray
    lost: np.ndarray


def _sway(
    rng: np.random.Generator, time: np.ndarray, amplitude: float, cycles: tuple[int, int]
) -> np.ndarray:
    """A smooth random curve over ``time`` in 0..1: three sines of random frequency and phase."""
    frequency = rng.uniform(*cycles, 3)[:, None]
    phase = rng.uniform(0, 2 * np.pi, 3)[:, None]
    weight = rng.uniform(0.5, 1.0, 3)[:, None]
    return amplitude * (weight * np.sin(2 * np.pi * frequency * time + phase)).sum(axis=0) / 2


def camera_walk(room: Room, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return camera-to-world poses (frames,4,4) f64 in the axis-aligned world frame.

    Camera axes: x right, y down, z forward (OpenCV's).
    """
    time = np.arange(frames) / frames
    direction = 1 if rng.random() < 0.5 else -1
    angle = rng.uniform(0, 2 * np.pi) + direction * 2 * np.pi * time * rng.uniform(1.0, 1.12)
    reach = np.array([room.size[0] / 2 - 1.35, room.size[1] / 2 - 1.3])
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    position = np.zeros((frames, 3))
    position[:, :2] = circle * reach * (0.92 + _sway(rng, time, 0.05, (2, 5))[:, None])
    position[:, 2] = np.clip(1.5 + _sway(rng, time, 0.14, (1, 4)), 1.3, 1.7)
    position += np.stack([_sway(rng, time, 0.004, (15, 30)) for _ in range(3)], axis=1)

    across = np.arctan2(-circle[:, 1], -circle[:, 0])
    heading = across + _sway(rng, time, 0.35, (1, 4)) + _sway(rng, time, 0.012, (15, 30))
    pitch = -0.33 + _sway(rng, time, 0.1, (2, 5)) + _sway(rng, time, 0.01, (15, 30))
    roll = _sway(rng, time, 0.05, (1, 4)) + _sway(rng, time, 0.008, (15, 30))

    zero = np.zeros(frames)
    forward = np.stack(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)], 1
    )
    level_right = np.stack([np.sin(heading), -np.cos(heading), zero], 1)
    level_down = np.cross(forward, level_right)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    right, down = cos * level_right + sin * level_down, cos * level_down - sin * level_right
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3] = np.stack([right, down, forward, position], axis=2)
    return poses


def lost_frames(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return whether tracking lost a frame's pose, (frames,) bool.

    One candidate is lost, and in a stream of many frames a short run between two candidates.
    """
    stride = STRIDE if frames > 2 * STRIDE else 1
    candidates = np.arange(stride, frames, stride)  # but the first
    lost = np.zeros(frames, bool)
    lost[rng.choice(candidates)] = True
    if stride > LOST_RUN:
        start = rng.choice(candidates) - stride // 2 - 1
        lost[start : start + LOST_RUN] = True
    return lost


def image_shares(mesh: SceneMesh, pose: np.ndarray, objects: int) -> np.ndarray:
    """Return the share of an image from ``pose`` that each object fills, (objects,) f64."""
    width, height = DEPTH_SIZE
    rows, columns = (grid.ravel() for grid in np.mgrid[0:height:RAY_STEP, 0:width:RAY_STEP])
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=1)
    directions = pixels @ np.linalg.inv(DEPTH_INTRINSIC[:3, :3]).T @ pose[:3, :3].T
    triangle = mesh.cast(pose[:3, 3], directions)["primitive_ids"]
    met = mesh.vertex_object[mesh.triangles[triangle[triangle >= 0], 0]]
    return np.bincount(met[met >= 0], minlength=objects) / len(directions)


def unseen_pieces(room: Room, mesh: SceneMesh, walk: Walk) -> set[int]:
    """Return the ids of furniture that not every choice among the candidates is sure to show.

    A piece is seen where two candidates in a row show it well, large enough to tell what it is and
    a good part of it. So every second candidate is enough, and uniform choices leave out no two
    neighbours.
    """
    candidates = np.arange(0, len(walk.poses), max(1, len(walk.poses) // CANDIDATES))
    poses = walk.poses[candidates[~walk.lost[candidates]]]
    share = np.stack([image_shares(mesh, pose, len(room.pieces)) for pose in poses])
    well = share >= np.maximum(LEAST_SHARE, LEAST_PART * share.max(axis=0))
    seen = (well[:-1] & well[1:]).any(axis=0)
    return {piece.id for piece in room.furniture if not seen[piece.id]}


def draw_scanned_room(
    theme: str, frames: int, of_room: np.random.Generator, of_walk: np.random.Generator
) -> tuple[Room, SceneMesh, Walk]:
    """Return a room of a theme, its mesh and a walk on which all furniture is seen.

    A room where a piece stands so that none of ``WALKS`` shows it well is drawn again, about one in
    ten. Of ``ROOMS`` that were drawn in vain the last is returned, with its last walk. A stream of
    fewer than ``FEWEST_FRAMES``, too short to show all, gets the first room and walk.
    """
    for attempt in range(ROOMS * WALKS):
        if attempt % WALKS == 0:
            room = make_room(theme, of_room)
            mesh = build_mesh(room)
        walk = Walk(camera_walk(room, frames, of_walk), lost_frames(frames, of_walk))
        if frames < FEWEST_FRAMES or not unseen_pieces(room, mesh, walk):
            break
    # So many in vain mean that a change of furniture or walks made success rare. Then a piece that
    # a few frames do not show costs some questions, and a loop without an end all rooms.
    return room, mesh, walk
