"""Rooms: a rectangle with walls, a door, a window, pictures, and 7 to 12 pieces of furniture.

A room is drawn from a theme (bedroom, living room, ...): its large pieces stand with their backs
to a wall, chairs at their table, nightstands beside their bed, small things on what carries them.
Pieces are placed one by one at random and kept where their boxes meet nothing; a layout that does
not work out is drawn again. Milliseconds a room.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from threedrs.demo.furniture import KINDS, PALETTE, Part, unit_ring

GAP = 0.06  # metres kept between the boxes of pieces, and from the walls
DOOR_CLEARANCE = 0.8
TALL, WALL_STRIP = 1.12, 1.1  # metres; taller pieces stay this close to a wall: the camera's way
ON_WALL = ("door", "window", "picture")
ATTEMPTS = 400

WALL_COLOURS = ((206, 198, 184), (190, 202, 206), (212, 204, 176), (196, 206, 190), (208, 192, 188))
FLOOR_COLOURS = ((150, 118, 86), (132, 108, 92), (172, 146, 112), (128, 126, 124))

THEMES: dict[str, tuple[str, ...]] = {
    "bedroom": ("bed", "nightstand", "dresser", "desk", "chair", "pillow"),
    "living room": ("couch", "coffee table", "armchair", "bookshelf", "lamp"),
    "office": ("desk", "office chair", "desk", "office chair", "bookshelf", "monitor"),
    "dining room": ("table", "chair", "chair", "chair", "cabinet", "box"),
    "studio": ("bed", "desk", "chair", "couch", "cabinet", "pillow"),
}
EXTRAS = (
    "chair", "stool", "trash can", "trash can", "box", "box", "lamp", "cabinet", "bookshelf",
    "nightstand", "ottoman", "armchair", "dresser", "refrigerator", "pillow", "monitor",
)  # fmt: skip
# A room has one of each group only: with an armchair about, "the chair" would leave open which.
LOOKALIKES = (("chair", "office chair", "armchair"), ("table", "coffee table"))
SUPPORTS = {
    "monitor": ("desk", "table"),
    "pillow": ("bed", "couch"),
    "box": ("table", "cabinet", "dresser", "coffee table", "nightstand"),
}
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


@dataclass
class _Layout:
    """Pieces placed so far; the last drawn position is kept only where it meets no other box."""

    width: float
    depth: float
    rng: np.random.Generator
    pieces: list[Piece] = field(default_factory=list)
    forbidden: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def find(self, *labels: str) -> list[Piece]:
        return [piece for piece in self.pieces if piece.label in labels]

    def make(self, label: str, colour: str, position: tuple[float, float, float], yaw: float,
             parts: tuple[Part, ...], support: int = -1) -> Piece:  # fmt: skip
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
        size = self.rng.uniform(np.array(kind.size[0]), np.array(kind.size[1]))
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
        x, y = _turn(shift, forward, yaw)
        return x, y, z, yaw, -1

    def anywhere(self, size: np.ndarray) -> tuple:
        x = self.rng.uniform(-0.5, 0.5) * (self.width - 0.6)
        y = self.rng.uniform(-0.5, 0.5) * (self.depth - 0.6)
        return x, y, 0.0, float(self.rng.uniform(-np.pi, np.pi)), -1

    def beside(self, other: Piece, size: np.ndarray) -> tuple:
        """Left or right of a piece at a wall, in line with its back."""
        width, depth = _own_size(other)
        side = 1 if self.rng.random() < 0.5 else -1
        shift = side * (width / 2 + size[0] / 2 + self.rng.uniform(0.07, 0.15))
        x, y = _turn(shift, -depth / 2 + size[1] / 2, other.yaw)
        return other.position[0] + x, other.position[1] + y, 0.0, other.yaw, -1

    def in_front(
        self, other: Piece, size: np.ndarray, gap: tuple[float, float], turned: bool
    ) -> tuple:
        """Before the front of a piece; ``turned``: looking at it."""
        _, depth = _own_size(other)
        reach = depth / 2 + size[1] / 2 + self.rng.uniform(*gap)
        x, y = _turn(self.rng.uniform(-0.2, 0.2), reach, other.yaw)
        yaw = other.yaw + (np.pi + self.rng.uniform(-0.3, 0.3) if turned else 0.0)
        return other.position[0] + x, other.position[1] + y, 0.0, yaw, -1

    def around(self, table: Piece, size: np.ndarray) -> tuple:
        """At one of a table's four sides, looking at it."""
        side = int(self.rng.integers(4))
        width, depth = _own_size(table)
        reach = (depth if side % 2 == 0 else width) / 2 + size[1] / 2 + self.rng.uniform(0.07, 0.3)
        room = ((width if side % 2 == 0 else depth) - size[0]) / 2
        yaw = table.yaw + side * np.pi / 2
        x, y = _turn(self.rng.uniform(-1, 1) * max(room, 0.05), reach, yaw)
        turned = yaw + np.pi + self.rng.uniform(-0.2, 0.2)
        return table.position[0] + x, table.position[1] + y, 0.0, turned, -1

    def on_top(self, label: str, size: np.ndarray) -> tuple | None:
        """On a piece that can carry it and carries nothing yet."""
        used = {piece.support for piece in self.pieces}
        hosts = [piece for piece in self.find(*SUPPORTS[label]) if piece.id not in used]
        if not hosts:
            return None
        host = hosts[int(self.rng.integers(len(hosts)))]
        width, depth = _own_size(host)
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
        x, y = _turn(shift[0], shift[1], host.yaw)
        turn = 0.0 if label != "box" else float(self.rng.choice([0.0, np.pi]))
        return host.position[0] + x, host.position[1] + y, top, host.yaw + turn, host.id

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


def _turn(x: float, y: float, yaw: float) -> tuple[float, float]:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return float(x * cos - y * sin), float(x * sin + y * cos)


def _own_size(piece: Piece) -> tuple[float, float]:
    corners = part_corners(piece.parts, 0.0)
    width, depth, _ = corners.max(axis=0) - corners.min(axis=0)
    return float(width), float(depth)


def _choose_colours(labels: list[str], rng: np.random.Generator) -> list[str]:
    """Colours at random; of three or more of a class, two share one, so that plurals exist."""
    names = list(PALETTE)
    colours: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        count = labels.count(label)
        drawn = [names[i] for i in rng.permutation(len(names))[:count]]
        if count >= 3:
            drawn[1] = drawn[0]
        colours[label] = drawn
    return [colours[label].pop() for label in labels]


def _try_room(theme: str, rng: np.random.Generator) -> Room | None:
    width, depth = rng.uniform(4.6, 6.0), rng.uniform(4.2, 5.2)
    height = float(rng.uniform(2.5, 2.8))
    layout = _Layout(width=width, depth=depth, rng=rng)
    names = list(PALETTE)

    door = layout.place(
        "door", str(rng.choice(names)), lambda size: layout.at_wall(size, distance=0.0)
    )
    if door is None or door.front is None:
        return None
    reach = np.append(door.front * DOOR_CLEARANCE, 0.0)
    layout.forbidden.append(
        (np.minimum(door.low, door.low + reach), np.maximum(door.high, door.high + reach))
    )

    target = int(rng.integers(8, 13))
    labels = list(THEMES[theme])
    repeated = {"dining room": "chair", "office": "trash can"}.get(theme)
    if repeated:
        labels.append(repeated)
    shunned = {
        other
        for group in LOOKALIKES
        if set(group) & set(labels)
        for other in set(group) - set(labels)
    }
    extras = [str(label) for label in rng.permutation(EXTRAS) if label not in shunned]
    labels += extras[: target + 4 - len(labels)]
    colours = _choose_colours(labels, rng)
    placed = 0
    for number, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        if placed == target:
            break
        if layout.add(label, colour) is not None:
            placed += 1
        elif number < len(THEMES[theme]):
            return None
    furniture = [piece.label for piece in layout.pieces if piece.label != "door"]
    if placed < 7 or max(furniture.count(label) for label in furniture) < 2:
        return None

    bottoms = {"window": rng.uniform(1.0, 1.15), "picture": rng.uniform(1.35, 1.5)}
    for label in ("window", "picture", "picture")[: int(rng.integers(2, 4))]:
        colour = "white" if label == "window" else str(rng.choice(names))
        hang = partial(layout.at_wall, distance=0.0, z=float(bottoms[label]))
        layout.place(label, colour, hang)
    return _finish(theme, (float(width), float(depth), height), layout, rng)


def _finish(
    theme: str, size: tuple[float, float, float], layout: _Layout, rng: np.random.Generator
) -> Room:
    """Add walls and floor and give the objects ids in random order, as annotators leave them."""
    x, y, height = size[0] / 2, size[1] / 2, size[2]
    shell = [("floor", (-x, -y, 0), (x, y, 0)), ("wall", (-x, -y, 0), (x, -y, height)),
             ("wall", (x, -y, 0), (x, y, height)), ("wall", (-x, y, 0), (x, y, height)),
             ("wall", (-x, -y, 0), (-x, y, height))]  # fmt: skip
    bare = [
        Piece(
            id=-1, label=label, colour=None, parts=(), position=(0.0, 0.0, 0.0), yaw=0.0,
            low=np.array(low, float), high=np.array(high, float),
        )
        for label, low, high in shell
    ]  # fmt: skip
    everything = layout.pieces + bare
    order = rng.permutation(len(everything))
    new_id = {int(old): new for new, old in enumerate(order)}
    pieces = tuple(
        Piece(
            **{
                **vars(everything[old]),
                "id": new,
                "support": new_id.get(everything[old].support, -1),
            }
        )
        for new, old in enumerate(order)
    )
    return Room(
        theme=theme, size=size, pieces=pieces,
        wall_rgb=WALL_COLOURS[rng.integers(len(WALL_COLOURS))],
        floor_rgb=FLOOR_COLOURS[rng.integers(len(FLOOR_COLOURS))],
        floor_style=str(rng.choice(["planks", "tiles"])),
    )  # fmt: skip


def make_room(theme: str, rng: np.random.Generator) -> Room:
    """Return a furnished room of ``theme`` (a key of ``THEMES``), drawn from ``rng``."""
    for _ in range(ATTEMPTS):
        room = _try_room(theme, rng)
        if room is not None:
            return room
    raise AssertionError(f"no layout of a {theme} in {ATTEMPTS} attempts")
