"""What a room is made of: pieces with their parts, boxes and fronts, and the room that holds them.

The world frame of the demo: axis-aligned, metres, z up, the floor's middle at the origin.
"""

from dataclasses import dataclass

import numpy as np

from threedrs.demo.primitives import Part, unit_ring

PLURALS = {"bookshelf": "bookshelves", "box": "boxes"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """An object of the room. World frame: axis-aligned, metres, z up, floor at 0.

    ``low`` and ``high`` are the corners of its box; ``front`` is the unit vector (x, y) it faces,
    or None; ``support`` is the id of the piece it stands on, or -1; ``colour`` is a name of
    ``PALETTE``, or None for walls and the floor. ``parts`` are in its own frame, turned by ``yaw``
    (radians, about z) and moved to ``position``.
    """

    id: int
    label: str
    colour: str | None
    parts: tuple[Part, ...]
    position: tuple[float, float, float]
    yaw: float
    low: np.ndarray
    high: np.ndarray
    front: np.ndarray | None = None
    support: int = -1

    @property
    def centre(self) -> np.ndarray:
        """Middle of the box, (3,) metres."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> np.ndarray:
        """Edge lengths of the box, (3,) metres."""
        return self.high - self.low


@dataclass(frozen=True, kw_only=True)
class Room:
    """A furnished room, its middle at the origin of the world's x and y.

    ``pieces[i].id == i``; walls and floor are pieces without parts. ``size``: width (x), depth (y),
    height, metres.
    """

    theme: str
    size: tuple[float, float, float]
    wall_rgb: tuple[int, int, int]
    floor_rgb: tuple[int, int, int]
    floor_style: str
    pieces: tuple[Piece, ...]

    @property
    def furniture(self) -> tuple[Piece, ...]:
        """All pieces but walls and floor: what sentences speak of."""
        return tuple(piece for piece in self.pieces if piece.label not in ("wall", "floor"))


def plural(label: str) -> str:
    """Return the plural of a class name."""
    return PLURALS.get(label, label + "s")


def part_corners(piece_parts: tuple[Part, ...], yaw: float) -> np.ndarray:
    """Return extreme points (M,3) of the parts, turned by ``yaw``, before they are moved."""
    points = []
    for part in piece_parts:
        if part.shape == "box":
            signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
            points.append(np.array(part.centre) + signs * np.array(part.size) / 2)
        else:
            ring = unit_ring(part.shape)
            for z in (-1, 1):
                offset = (
                    np.append(ring, np.full((len(ring), 1), z), axis=1) * np.array(part.size) / 2
                )
                points.append(np.array(part.centre) + offset)
    corners = np.concatenate(points)
    cos, sin = np.cos(yaw), np.sin(yaw)
    return corners @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
