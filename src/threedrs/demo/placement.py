"""Placing pieces one by one where such a piece stands, clear of all others.

Each kind of place (at a wall, beside a bed, around a table, on top of something) draws a position
at random. A piece is kept at the first of 80 positions where its box meets no other box.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from threedrs.demo.furniture import KINDS
from threedrs.demo.room_objects import PALETTE, Part, Piece, part_corners

GAP = 0.06  # metres kept between the boxes of pieces, and from the walls
TALL, WALL_STRIP = 1.12, 1.1  # metres; taller pieces stay this close to a wall: the camera's way
ON_WALL = ("door", "window", "picture")
SUPPORTS = {
    "monitor": ("desk", "table"),
    "pillow": ("bed", "couch"),
    "box": ("table", "cabinet", "dresser", "coffee table", "nightstand"),
}


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

    def make(self, label: str, colour: str, position: tuple[float, float, float], yaw: float,
             parts: tuple[Part, ...], support: int = -1) -> Piece:  # fmt: skip
        """Return a piece with the next id, not placed yet."""
        corners = part_corners(parts, yaw) + np.array(position)
        front = np.array([-np.sin(yaw), np.cos(yaw)]) if KINDS[label].has_front else None
        return Piece(
            id=len(self.pieces), label=label, colour=colour, parts=parts, position=position,
            yaw=yaw, low=corners.min(axis=0), high=corners.max(axis=0), front=front,
            support=support,
        )  # fmt: skip

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
        others = [(p.low, p.high) for p in self.pieces if p.id != piece.support]
        for low, high in others + self.forbidden:
            if (piece.low < high + margin - 1e-9).all() and (
                piece.high > low - margin + 1e-9
            ).all():
                return False
        return True

    def place(
        self, label: str, colour: str, draw: Callable[[np.ndarray], tuple | None]
    ) -> Piece | None:
        """Try positions from ``draw(size)`` -> (x, y, z, yaw, support) until the piece fits."""
        kind = KINDS[label]
        size = self.rng.uniform(np.array(kind.low), np.array(kind.high))
        width, depth, height = (float(edge) for edge in size)
        parts = tuple(kind.build(width, depth, height, PALETTE[colour], self.rng))
        for _ in range(80):
            drawn = draw(size)
            if drawn is None:
                return None
            x, y, z, yaw, support = drawn
            piece = self.make(
                label, colour, (float(x), float(y), float(z)), float(yaw), parts, support
            )
            if self.fits(piece):
                self.pieces.append(piece)
                return piece
        return None

    def at_wall(self, size: np.ndarray, *, distance: float = 0.04, z: float = 0.0) -> tuple:
        """A position with the back to a random wall, facing the room."""
        wall = int(self.rng.integers(4))
        yaw = wall * np.pi / 2
        along = self.width if wall % 2 == 0 else self.depth
        across = self.depth if wall % 2 == 0 else self.width
        shift = self.rng.uniform(-1, 1) * max(0.0, along / 2 - size[0] / 2 - distance)
        forward = -across / 2 + distance + size[1] / 2
        x, y = turn(shift, forward, yaw)
        return x, y, z, yaw, -1

    def anywhere(self, size: np.ndarray) -> tuple:
        """A position anywhere on the floor, turned at random."""
        x = self.rng.uniform(-0.5, 0.5) * (self.width - 0.6)
        y = self.rng.uniform(-0.5, 0.5) * (self.depth - 0.6)
        return x, y, 0.0, float(self.rng.uniform(-np.pi, np.pi)), -1

    def beside(self, other: Piece, size: np.ndarray) -> tuple:
        """Left or right of a piece at a wall, in line with its back."""
        width, depth = own_size(other)
        side = 1 if self.rng.random() < 0.5 else -1
        shift = side * (width / 2 + size[0] / 2 + self.rng.uniform(0.07, 0.15))
        x, y = turn(shift, -depth / 2 + size[1] / 2, other.yaw)
        return other.position[0] + x, other.position[1] + y, 0.0, other.yaw, -1

    def in_front(
        self, other: Piece, size: np.ndarray, gap: tuple[float, float], turned: bool
    ) -> tuple:
        """Before the front of a piece; ``turned``: looking at it."""
        _, depth = own_size(other)
        reach = depth / 2 + size[1] / 2 + self.rng.uniform(*gap)
        x, y = turn(self.rng.uniform(-0.2, 0.2), reach, other.yaw)
        yaw = other.yaw + (np.pi + self.rng.uniform(-0.3, 0.3) if turned else 0.0)
        return other.position[0] + x, other.position[1] + y, 0.0, yaw, -1

    def around(self, table: Piece, size: np.ndarray) -> tuple:
        """At one of a table's four sides, looking at it."""
        side = int(self.rng.integers(4))
        width, depth = own_size(table)
        reach = (depth if side % 2 == 0 else width) / 2 + size[1] / 2 + self.rng.uniform(0.07, 0.3)
        room = ((width if side % 2 == 0 else depth) - size[0]) / 2
        yaw = table.yaw + side * np.pi / 2
        x, y = turn(self.rng.uniform(-1, 1) * max(room, 0.05), reach, yaw)
        turned = yaw + np.pi + self.rng.uniform(-0.2, 0.2)
        return table.position[0] + x, table.position[1] + y, 0.0, turned, -1

    def on_top(self, label: str, size: np.ndarray) -> tuple | None:
        """On a piece that can carry it and carries nothing yet."""
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
        x, y = turn(shift[0], shift[1], host.yaw)
        return host.position[0] + x, host.position[1] + y, top, host.yaw, host.id

    def add(self, label: str, colour: str) -> Piece | None:
        """Place one piece of ``label`` where such a piece stands in a room."""
        if label in ("monitor", "pillow"):
            return self.place(label, colour, lambda size: self.on_top(label, size))
        if label == "box" and self.rng.random() < 0.6:
            return self.place(label, colour, lambda size: self.on_top(label, size))
        tables, desks, couches = self.find("table"), self.find("desk"), self.find("couch")
        if label in ("chair", "stool") and tables:
            return self.place(label, colour, lambda size: self.around(tables[0], size))
        if label in ("chair", "office chair") and desks:
            desk = desks[-1]
            return self.place(
                label, colour, lambda size: self.in_front(desk, size, (0.08, 0.3), True)
            )
        if label == "coffee table" and couches:
            couch = couches[0]
            return self.place(
                label, colour, lambda size: self.in_front(couch, size, (0.35, 0.6), False)
            )
        if label == "nightstand" and self.find("bed"):
            bed = self.find("bed")[0]
            return self.place(label, colour, lambda size: self.beside(bed, size))
        if label == "table" and self.rng.random() < 0.8:
            return self.place(
                label, colour, lambda size: (*self.rng.uniform(-0.4, 0.4, 2), 0.0, 0.0, -1)
            )
        if label in ("chair", "armchair", "ottoman", "stool", "office chair"):
            return self.place(label, colour, self.anywhere)
        return self.place(label, colour, self.at_wall)


def turn(x: float, y: float, yaw: float) -> tuple[float, float]:
    """Return (x, y) turned by ``yaw`` radians."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return float(x * cos - y * sin), float(x * sin + y * cos)


def own_size(piece: Piece) -> tuple[float, float]:
    """Return a piece's width and depth in its own frame, metres."""
    corners = part_corners(piece.parts, 0.0)
    width, depth, _ = corners.max(axis=0) - corners.min(axis=0)
    return float(width), float(depth)
