"""Placing pieces one by one where such a piece stands, clear of all others.

Each kind of place (at a wall, beside a bed, around a table, on top of something) draws a position
at random. A piece is kept at the first of 80 positions where its box meets no other box.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from threedrs.demo.furniture import KINDS
from threedrs.demo.room_objects import PALETTE, Piece, part_corners

GAP = 0.06  # metres kept between the boxes of pieces, and from the walls
TALL, WALL_STRIP = 1.12, 1.1  # metres; taller pieces stay this close to a wall: the camera's way
ATTEMPTS = 80  # at a position for a piece
ON_WALL = ("door", "window", "picture")
SUPPORTS = {
    "monitor": ("desk", "table", "dresser", "cabinet"),
    "pillow": ("bed", "couch"),
    "box": ("desk", "table", "cabinet", "dresser", "coffee table", "nightstand"),
}


class Position(NamedTuple):
    """Where a piece may stand: metres, radians about z, and the id of what carries it, or -1."""

    x: float
    y: float
    z: float
    yaw: float
    support: int = -1


# From the size of a piece, (3,) metres, to a position drawn for it, or None where there is none.
Draw = Callable[[np.ndarray], Position | None]


@dataclass
class Layout:
    """Pieces placed so far; the last drawn position is kept only where it meets no other box."""

    width: float
    depth: float
    rng: np.random.Generator
    pieces: list[Piece] = field(default_factory=list)
    forbidden: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def find(self, *labels: str) -> list[Piece]:
        """Return the pieces of these classes placed so far."""
        return [piece for piece in self.pieces if piece.label in labels]

    def fits(self, piece: Piece) -> bool:
        """Whether the piece is inside the room and its box meets no other."""
        on_wall = piece.label in ON_WALL
        margin, inside = (0.02, 0.0) if on_wall else (GAP, 0.03)
        half = np.array([self.width, self.depth]) / 2
        if (np.maximum(-piece.low, piece.high)[:2] > half - inside + 1e-9).any():
            return False
        tall = piece.high[2] > TALL and not on_wall
        middle = half - WALL_STRIP
        if tall and (piece.low[:2] < middle).all() and (piece.high[:2] > -middle).all():
            return False
        low, high = piece.low + 1e-9, piece.high - 1e-9
        others = [(p.low, p.high) for p in self.pieces if p.id != piece.support]
        return not any(
            (low < other_high + margin).all() and (high > other_low - margin).all()
            for other_low, other_high in others + self.forbidden
        )

    def place(self, label: str, colour: str, draw: Draw) -> Piece | None:
        """Return a new piece at the first position from ``draw`` where it fits, or None."""
        kind = KINDS[label]
        size = self.rng.uniform(np.array(kind.low), np.array(kind.high))
        width, depth, height = (float(edge) for edge in size)
        parts = tuple(kind.build(width, depth, height, PALETTE[colour], self.rng))
        for _ in range(ATTEMPTS):
            drawn = draw(size)
            if drawn is None:
                return None
            position, yaw = (float(drawn.x), float(drawn.y), float(drawn.z)), float(drawn.yaw)
            corners = part_corners(parts, yaw) + np.array(position)
            piece = Piece(
                id=len(self.pieces), label=label, colour=colour, parts=parts, position=position,
                yaw=yaw, low=corners.min(axis=0), high=corners.max(axis=0), support=drawn.support,
                front=np.array([-np.sin(yaw), np.cos(yaw)]) if kind.has_front else None,
            )  # fmt: skip
            if self.fits(piece):
                self.pieces.append(piece)
                return piece
        return None

    def at_wall(self, size: np.ndarray, *, distance: float = 0.04, z: float = 0.0) -> Position:
        """Draw a position with the back to a random wall, facing the room."""
        wall = int(self.rng.integers(4))
        along, across = (self.width, self.depth)[:: 1 if wall % 2 == 0 else -1]
        shift = self.rng.uniform(-1, 1) * max(0.0, along / 2 - size[0] / 2 - distance)
        yaw = wall * np.pi / 2
        return Position(*turn(shift, -across / 2 + distance + size[1] / 2, yaw), z, yaw)

    def anywhere(self, size: np.ndarray) -> Position:
        """Draw a position anywhere on the floor, turned at random."""
        x = self.rng.uniform(-0.5, 0.5) * (self.width - 0.6)
        y = self.rng.uniform(-0.5, 0.5) * (self.depth - 0.6)
        return Position(x, y, 0.0, self.rng.uniform(-np.pi, np.pi))

    def in_the_middle(self, size: np.ndarray) -> Position:
        """Draw a position near the middle of the room, in line with the walls."""
        x, y = self.rng.uniform(-0.4, 0.4, 2)
        return Position(x, y, 0.0, 0.0)

    def beside(self, other: Piece, size: np.ndarray) -> Position:
        """Draw a position left or right of a piece at a wall, in line with its back."""
        width, depth = own_size(other)
        side = 1 if self.rng.random() < 0.5 else -1
        shift = side * (width / 2 + size[0] / 2 + self.rng.uniform(0.07, 0.15))
        return _near(other, shift, -depth / 2 + size[1] / 2, other.yaw)

    def in_front(
        self, other: Piece, gap: tuple[float, float], turned: bool, size: np.ndarray
    ) -> Position:
        """Draw a position before the front of a piece; ``turned``: looking at it."""
        reach = own_size(other)[1] / 2 + size[1] / 2 + self.rng.uniform(*gap)
        shift = self.rng.uniform(-0.2, 0.2)
        yaw = other.yaw + (np.pi + self.rng.uniform(-0.3, 0.3) if turned else 0.0)
        return _near(other, shift, reach, yaw)

    def around(self, table: Piece, size: np.ndarray) -> Position:
        """Draw a position at one of a table's four sides, looking at it."""
        side = int(self.rng.integers(4))
        length, across = own_size(table)[:: 1 if side % 2 == 0 else -1]
        reach = across / 2 + size[1] / 2 + self.rng.uniform(0.07, 0.3)
        shift = self.rng.uniform(-1, 1) * max((length - size[0]) / 2, 0.05)
        turned = side * np.pi / 2
        yaw = table.yaw + turned + np.pi + self.rng.uniform(-0.2, 0.2)
        return _near(table, shift, reach, yaw, turned=turned)

    def on_top(self, label: str, size: np.ndarray) -> Position | None:
        """Draw a position on a piece that can carry it and carries nothing yet."""
        used = {piece.support for piece in self.pieces}
        hosts = [piece for piece in self.find(*SUPPORTS[label]) if piece.id not in used]
        if not hosts:
            return None
        host = hosts[int(self.rng.integers(len(hosts)))]
        width, depth = own_size(host)
        room = (np.array([width, depth]) - size[:2] * 1.05) / 2 - 0.02
        if (room < 0).any() or host.high[2] > 1.3:
            return None
        shift = self.rng.uniform(-1, 1, 2) * room
        top = float(host.high[2])
        if label == "pillow" and host.label == "bed":
            shift[1] = -depth / 2 + 0.08 + size[1] / 2
            top = 0.49
        elif label == "pillow":
            shift = np.array([self.rng.uniform(-1, 1) * max(0.0, room[0] - 0.25), 0.12])
            top = 0.43
        elif label == "monitor":
            shift[1] = -abs(shift[1])
        return _near(host, shift[0], shift[1], host.yaw)._replace(z=top, support=host.id)

    def add(self, label: str, colour: str) -> Piece | None:
        """Place one piece of ``label`` where such a piece stands in a room."""
        return self.place(label, colour, self._usual_place(label))

    def _usual_place(self, label: str) -> Draw:
        tables, desks, couches = self.find("table"), self.find("desk"), self.find("couch")
        beds = self.find("bed")
        if label in ("monitor", "pillow") or (label == "box" and self.rng.random() < 0.6):
            return partial(self.on_top, label)
        if label in ("chair", "stool") and tables:
            return partial(self.around, tables[0])
        if label in ("chair", "office chair") and desks:
            return partial(self.in_front, desks[-1], (0.08, 0.3), True)
        if label == "coffee table" and couches:
            return partial(self.in_front, couches[0], (0.35, 0.6), False)
        if label == "nightstand" and beds:
            return partial(self.beside, beds[0])
        if label == "table" and self.rng.random() < 0.8:
            return self.in_the_middle
        if label in ("chair", "armchair", "ottoman", "stool", "office chair"):
            return self.anywhere
        return self.at_wall


def _near(other: Piece, x: float, y: float, yaw: float, *, turned: float = 0.0) -> Position:
    """Return the position at (x, y) in the own frame of another piece, ``turned`` about it."""
    dx, dy = turn(x, y, other.yaw + turned)
    return Position(other.position[0] + dx, other.position[1] + dy, 0.0, yaw)


def turn(x: float, y: float, yaw: float) -> tuple[float, float]:
    """Return (x, y) turned by ``yaw`` radians."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return float(x * cos - y * sin), float(x * sin + y * cos)


def own_size(piece: Piece) -> tuple[float, float]:
    """Return a piece's width and depth in its own frame, metres."""
    corners = part_corners(piece.parts, 0.0)
    width, depth, _ = corners.max(axis=0) - corners.min(axis=0)
    return float(width), float(depth)
