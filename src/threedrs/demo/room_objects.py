"""What a room is made of: primitives, pieces of them with boxes and fronts, and the room itself.

Primitives stand in a piece's own frame (see ``furniture``). The world frame of the demo is
axis-aligned, metres, z up, with the floor's middle at the origin.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

Rgb = tuple[int, int, int]

PALETTE: dict[str, Rgb] = {
    "red": (200, 38, 38),
    "orange": (240, 132, 24),
    "yellow": (240, 208, 48),
    "green": (52, 150, 64),
    "blue": (40, 84, 196),
    "purple": (128, 56, 168),
    "brown": (122, 76, 44),
    "white": (240, 240, 238),
    "black": (36, 36, 40),
}
METAL: Rgb = (120, 122, 126)
DARK: Rgb = (62, 60, 60)
LINEN: Rgb = (226, 222, 212)
RING_POINTS = 24  # of the outline of a cylinder or pad
_SQUARE = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
PLURALS = {"bookshelf": "bookshelves", "box": "boxes"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A primitive: ``box``, ``cylinder`` (axis z; ``taper`` = bottom over top radius) or ``pad``.

    ``centre`` and ``size`` (metres) are of the part's box in the piece's frame; a ``pad`` is a
    rounded cushion that fills its box.
    """

    shape: Literal["box", "cylinder", "pad"]
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    rgb: Rgb
    taper: float = 1.0


def unit_ring(shape: str) -> np.ndarray:
    """Return the outline (24,2) in -1..1 of a ``cylinder``, or of a ``pad``: a rounded square."""
    angle = np.arange(RING_POINTS) * (2 * np.pi / RING_POINTS)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).round(12)
    return np.sign(ring) * np.abs(ring) ** 0.5 if shape == "pad" else ring


def box(x: float, y: float, z: float, w: float, d: float, h: float, rgb: Rgb) -> Part:
    """Return a box whose bottom middle is at (x, y, z)."""
    return Part(shape="box", centre=(x, y, z + h / 2), size=(w, d, h), rgb=rgb)


def cylinder(z: float, diameter: float, h: float, rgb: Rgb, taper: float = 1.0) -> Part:
    """Return a standing cylinder whose bottom middle is at (0, 0, z)."""
    size = (diameter, diameter, h)
    return Part(shape="cylinder", centre=(0, 0, z + h / 2), size=size, rgb=rgb, taper=taper)


def pad(x: float, y: float, z: float, w: float, d: float, h: float, rgb: Rgb) -> Part:
    """Return a cushion whose bottom middle is at (x, y, z)."""
    return Part(shape="pad", centre=(x, y, z + h / 2), size=(w, d, h), rgb=rgb)


def tint(rgb: Rgb, factor: float) -> Rgb:
    """Return ``rgb`` made lighter (> 1) or darker (< 1); a light tint also lifts black a little."""
    lift = 14 if factor > 1 else 0
    red, green, blue = (int(np.clip(channel * factor + lift, 0, 255)) for channel in rgb)
    return red, green, blue


def legs(w: float, d: float, h: float, thickness: float, rgb: Rgb) -> list[Part]:
    """Return four square legs at the corners of w x d."""
    x, y = (w - thickness) / 2, (d - thickness) / 2
    corners = [(sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1)]
    return [box(*corner, 0, thickness, thickness, h, rgb) for corner in corners]


def drawers(
    x: float, y: float, z: float, w: float, h: float, rows: int, columns: int, rgb: Rgb
) -> list[Part]:
    """Return drawer fronts with handles that end at depth ``y``, the front of the piece."""
    parts = []
    for row in range(rows):
        for column in range(columns):
            middle = x - w / 2 + w / columns * (column + 0.5)
            bottom = z + h / rows * row + 0.015
            wide, high = w / columns - 0.03, h / rows - 0.03
            parts += [
                box(middle, y - 0.035, bottom, wide, 0.02, high, tint(rgb, 1.18)),
                box(middle, y - 0.0125, bottom + high * 0.6, wide * 0.3, 0.025, 0.025, METAL),
            ]
    return parts


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """An object of the room. World frame: axis-aligned, metres, z up, floor at 0.

    ``low`` and ``high`` are the corners of its box; ``front`` is the unit vector (x, y) it faces,
    or None; ``support`` is the id of the piece it stands on, or -1; ``colour`` is a name of
    ``PALETTE``, or None for walls and the floor. ``parts`` are in its own frame, turned by ``yaw``
    (radians, about z) and moved to ``position``.
    """

    id: int = -1
    label: str
    low: np.ndarray
    high: np.ndarray
    colour: str | None = None
    parts: tuple[Part, ...] = ()
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
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

    @cached_property
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
        outline = _SQUARE if part.shape == "box" else unit_ring(part.shape)
        for z in (-1, 1):
            offset = np.append(outline, np.full((len(outline), 1), z), axis=1)
            points.append(np.array(part.centre) + offset * np.array(part.size) / 2)
    corners = np.concatenate(points)
    cos, sin = np.cos(yaw), np.sin(yaw)
    return corners @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
