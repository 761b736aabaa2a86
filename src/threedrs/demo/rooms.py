"""Rooms: a rectangle with walls, a door, a window, pictures, and 7 to 12 pieces of furniture.

A room is drawn from a theme (bedroom, living room, ...): its large pieces stand with their backs
to a wall, chairs at their table, nightstands beside their bed, small things on what carries them.
Pieces are placed one by one at random and kept where their boxes meet nothing. A layout that does
not work out is drawn again. Milliseconds a room.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from threedrs.demo.placement import Layout
from threedrs.demo.room_objects import PALETTE, Piece, Room

DOOR_CLEARANCE = 0.8
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
REPEATED = {"dining room": "chair", "office": "trash can"}  # of a theme, in every room one more
ALIKE = 0.4  # of pairs of one class have one colour
# A room has one of each group only: with an armchair about, "the chair" would leave open which.
LOOKALIKES = (("chair", "office chair", "armchair"), ("table", "coffee table"))


def most_of(theme: str, label: str) -> int:
    """Return how many pieces of a class a room of a theme may have."""
    repeated = {"picture": 2, REPEATED.get(theme): 1}.get(label, 0)
    return THEMES[theme].count(label) + EXTRAS.count(label) + repeated


def _choose_colours(labels: list[str], rng: np.random.Generator) -> list[str]:
    """Colours at random; two of three or more of a class share one, and at times those of a pair.

    So plurals of a colour exist, and a colour's name does not say that there is one such piece.
    """
    names = list(PALETTE)
    colours: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        count = labels.count(label)
        drawn = [names[i] for i in rng.permutation(len(names))[:count]]
        if count >= 3 or (count == 2 and rng.random() < ALIKE):
            drawn[1] = drawn[0]
        colours[label] = drawn
    return [colours[label].pop() for label in labels]


def _try_room(theme: str, rng: np.random.Generator) -> Room | None:
    width, depth = rng.uniform(4.6, 6.0), rng.uniform(4.2, 5.2)
    height = float(rng.uniform(2.5, 2.8))
    layout = Layout(width=width, depth=depth, rng=rng)
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
    if theme in REPEATED:
        labels.append(REPEATED[theme])
    shunned = {
        other
        for group in LOOKALIKES
        if set(group) & set(labels)
        for other in set(group) - set(labels)
    }
    extras = [str(label) for label in rng.permutation(EXTRAS) if label not in shunned]
    labels += extras[: target + 4 - len(labels)]
    for number, (label, colour) in enumerate(
        zip(labels, _choose_colours(labels, rng), strict=True)
    ):
        if len(layout.pieces) > target:  # with the door
            break
        if layout.add(label, colour) is None and number < len(THEMES[theme]):
            return None
    furniture = [piece.label for piece in layout.pieces if piece.label != "door"]
    if len(furniture) < 7 or max(furniture.count(label) for label in furniture) < 2:
        return None

    bottoms = {"window": rng.uniform(1.0, 1.15), "picture": rng.uniform(1.35, 1.5)}
    for label in ("window", "picture", "picture")[: int(rng.integers(2, 4))]:
        colour = "white" if label == "window" else str(rng.choice(names))
        hang = partial(layout.at_wall, distance=0.0, z=float(bottoms[label]))
        layout.place(label, colour, hang)
    return _finish(theme, (float(width), float(depth), height), layout, rng)


def _finish(
    theme: str, size: tuple[float, float, float], layout: Layout, rng: np.random.Generator
) -> Room:
    """Add walls and floor and give the objects ids in random order, as annotators leave them."""
    x, y, height = size[0] / 2, size[1] / 2, size[2]
    shell = [("floor", (-x, -y, 0), (x, y, 0)), ("wall", (-x, -y, 0), (x, -y, height)),
             ("wall", (x, -y, 0), (x, y, height)), ("wall", (-x, y, 0), (x, y, height)),
             ("wall", (-x, -y, 0), (-x, y, height))]  # fmt: skip
    bare = [
        Piece(label=label, low=np.array(low, float), high=np.array(high, float))
        for label, low, high in shell
    ]
    everything = layout.pieces + bare
    order = rng.permutation(len(everything))
    new_id = {int(old): new for new, old in enumerate(order)}
    pieces = tuple(
        replace(everything[old], id=new, support=new_id.get(everything[old].support, -1))
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
