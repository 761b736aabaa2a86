"""A hand-held camera's walk around a room.

The camera goes once around an ellipse about the middle of the room, 1.3 to 1.7 m high, and looks
across the room and a little down, so that every wall comes into view. Slow sways and a small, fast
shake stand for the hand.
"""

import numpy as np

from threedrs.demo.room_objects import Room

LOST_RUN = 3  # longest run of frames without a pose


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
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, 0] = cos * level_right + sin * level_down
    poses[:, :3, 1] = cos * level_down - sin * level_right
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = position
    return poses


def lost_frames(frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Return frames whose pose the tracking lost: one candidate of the stride, and a short run."""
    candidate = stride * int(rng.integers(1, max(2, frames // stride)))
    start = candidate + stride // 2 if candidate + stride // 2 + LOST_RUN < frames else 1
    return sorted({candidate, *range(start, start + LOST_RUN)} & set(range(1, frames)))
