"""What holds between the pieces of a room, decided from their boxes, with room for doubt.

Every predicate answers True, False, or None where people might disagree (half a metre is neither
clearly next to nor clearly not). A sentence is only used where no piece it could mean is in doubt,
so that it identifies exactly the objects it is said to identify. Distances in metres.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from threedrs.demo.room_objects import Piece, Room

UNCOLOURED = ("window", "picture", "monitor")  # seen as several colours
CHAIRS = ("chair", "office chair", "armchair")  # stand turned any way; other seats at a wall


@dataclass(frozen=True)
class Relation:
    """A relation by its name in ``RELATIONS`` or ``SUPERLATIVES``, and the ids it refers to."""

    kind: str
    anchors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Query:
    """What a noun phrase asks for: a class, perhaps a colour, perhaps a relation."""

    label: str
    colour: str | None = None
    relation: Relation | None = None

    @property
    def words(self) -> str:
        """The class, after the colour if there is one."""
        return f"{self.colour} {self.label}" if self.colour else self.label


def gap(a: Piece, b: Piece) -> float:
    """Horizontal distance between two boxes (0: they overlap in plan)."""
    apart = np.maximum(a.low - b.high, b.low - a.high)[:2]
    return float(np.linalg.norm(np.maximum(apart, 0.0)))


def distance(a: Piece, b: Piece) -> float:
    """Horizontal distance between two middles."""
    return float(np.linalg.norm((a.centre - b.centre)[:2]))


def on_floor(piece: Piece) -> bool:
    """Whether a piece stands on the floor by itself."""
    return piece.support < 0 and piece.low[2] < 0.2 and piece.label not in ("wall", "floor", "door")


def on(room: Room, piece: Piece, anchor: Piece) -> bool | None:
    """It stands or lies on the anchor."""
    return piece.support == anchor.id


def next_to(room: Room, piece: Piece, anchor: Piece) -> bool | None:
    """Both stand on the floor, less than 0.45 m apart; from 0.9 m it is clearly not."""
    apart = gap(piece, anchor)
    if not (on_floor(piece) and on_floor(anchor)):
        return False if apart >= 0.9 else None
    return _graded(apart, 0.45, 0.9)


def _graded(value: float, surely: float, surely_not: float) -> bool | None:
    if value <= surely:
        return True
    return False if value >= surely_not else None


def has_sides(piece: Piece) -> bool:
    """Whether an onlooker can name its left, its right and the place in front of it.

    That is where its back is to a wall, so that one faces it from one side only.
    """
    # The front of a chair is where its sitter looks. At a desk that is the side where nobody
    # stands, and elsewhere people step up to it from any side: left and right would be either.
    return piece.front is not None and piece.label not in CHAIRS


def _seen_from_front(piece: Piece, anchor: Piece) -> tuple[float, float, float, float]:
    """Offset to the right and towards the viewer who faces the anchor, and the anchor's halves."""
    assert anchor.front is not None
    front = anchor.front
    right = np.array([-front[1], front[0]])
    offset = (piece.centre - anchor.centre)[:2]
    half = anchor.size[:2] / 2
    return (
        float(offset @ right),
        float(offset @ front),
        float(np.abs(right) @ half),
        float(np.abs(front) @ half),
    )


def beside(piece: Piece, anchor: Piece, sign: int) -> bool | None:
    """On the right (1) or left (-1) for who stands before the anchor and faces it."""
    right, front, half_width, _ = _seen_from_front(piece, anchor)
    aside = sign * right
    if aside < half_width * 0.5:
        return False
    return True if aside > half_width + 0.1 and abs(front) < aside and on_floor(piece) else None


def in_front_of(room: Room, piece: Piece, anchor: Piece) -> bool | None:
    """Within a metre of the anchor's front."""
    right, front, half_width, half_depth = _seen_from_front(piece, anchor)
    if front < 0 or abs(right) > half_width + 0.6 or gap(piece, anchor) > 1.6:
        return False
    near = front > half_depth and abs(right) < half_width + 0.1 and gap(piece, anchor) < 1.0
    return True if near and on_floor(piece) else None


def between(room: Room, piece: Piece, first: Piece, second: Piece) -> bool | None:
    """Near the line between two others, clearly inside."""
    line = (second.centre - first.centre)[:2]
    offset = (piece.centre - first.centre)[:2]
    length = float(np.linalg.norm(line))
    share = float(offset @ line) / max(length, 1e-9) ** 2
    aside = abs(float(offset[0] * line[1] - offset[1] * line[0])) / max(length, 1e-9)
    if aside > 0.9 or not -0.1 < share < 1.1:
        return False
    clear = length > 1.2 and aside < 0.35 and 0.25 < share < 0.75
    return True if clear and on_floor(piece) else None


def in_corner(room: Room, piece: Piece) -> bool | None:
    """Close to two walls that meet."""
    half = np.array(room.size[:2]) / 2
    return _graded(float(np.minimum(half - piece.high[:2], piece.low[:2] + half).max()), 0.35, 0.9)


RELATIONS: dict[str, Callable[..., bool | None]] = {
    "on": on,
    "next to": next_to,
    "left of": lambda room, piece, anchor: beside(piece, anchor, -1),
    "right of": lambda room, piece, anchor: beside(piece, anchor, 1),
    "in front of": in_front_of,
    "between": between,
    "in a corner": in_corner,
}
SIZES = ("tallest", "shortest", "largest", "smallest")
SUPERLATIVES = ("closest to", "farthest from", *SIZES)


def _superlative(kind: str, anchors: tuple[Piece, ...], among: list[Piece]) -> Piece | None:
    """The one that clearly leads ``among`` pieces of one class, or None."""
    if len(among) < 2:
        return None
    sign = -1 if kind in ("closest to", "shortest", "smallest") else 1
    # What is measured of a piece, and by what factor and step the leader has to lead.
    measures: list[tuple[Callable[[Piece], float], float, float]]
    if anchors:
        measures = [
            (lambda piece: distance(piece, anchors[0]), 1.15, 0.25),
            (lambda piece: gap(piece, anchors[0]), 1.0, 0.1),
        ]
    elif kind in ("tallest", "shortest"):
        measures = [(lambda piece: float(piece.size[2]), 1.12, 0.08)]
    else:
        measures = [(lambda piece: float(piece.size.prod()), 1.4, 0.0)]
    leaders = set()
    for measure, factor, step in measures:
        table = [measure(piece) for piece in among]
        order = np.argsort(np.array(table) * -sign, kind="stable")
        lead, second = sorted((table[order[0]], table[order[1]]))
        if second < lead * factor + step:
            return None
        leaders.add(int(order[0]))
    return among[leaders.pop()] if len(leaders) == 1 else None


def holds(room: Room, piece: Piece, relation: Relation) -> bool | None:
    """Whether a relation of ``RELATIONS`` holds for a piece, None in doubt."""
    anchors = [room.pieces[i] for i in relation.anchors]
    return False if piece in anchors else RELATIONS[relation.kind](room, piece, *anchors)


def resolve(room: Room, query: Query) -> frozenset[int] | None:
    """Return the ids of all pieces that a query means, or None where any of them is in doubt."""
    among = [piece for piece in room.furniture if piece.label == query.label]
    found = [piece for piece in among if query.colour in (None, piece.colour)]
    if query.relation is None:
        return frozenset(piece.id for piece in found)
    anchors = tuple(room.pieces[i] for i in query.relation.anchors)
    if query.relation.kind in SUPERLATIVES:
        leader = _superlative(query.relation.kind, anchors, among)
        return None if leader is None else frozenset({leader.id} & {piece.id for piece in found})
    verdicts = {piece.id: holds(room, piece, query.relation) for piece in found}
    if None in verdicts.values():
        return None
    return frozenset(i for i, verdict in verdicts.items() if verdict)


def all_relations(room: Room, target: Piece) -> list[Relation]:
    """Return the relations that a sentence about ``target`` may use, whether they hold or not.

    Anchors are pieces that a plain noun phrase identifies (``noun``).
    """
    named = [p for p in room.furniture if p.id != target.id and noun(room, p) is not None]
    relations = [Relation(kind) for kind in ("in a corner", *SIZES)]
    for anchor in named:
        kinds = ["closest to", "farthest from", "on"]
        if on_floor(anchor):
            kinds.append("next to")
            if has_sides(anchor):
                kinds += ["left of", "right of", "in front of"]
        relations += [Relation(kind, (anchor.id,)) for kind in kinds]
        if not on_floor(anchor):
            continue
        others = [other for other in named if other.id > anchor.id and on_floor(other)]
        relations += [Relation("between", (anchor.id, other.id)) for other in others]
    return relations


def noun(room: Room, piece: Piece) -> str | None:
    """Return the shortest phrase that identifies a piece by class or colour and class, or None."""
    same = [other for other in room.furniture if other.label == piece.label]
    if len(same) == 1:
        return f"the {piece.label}"
    unique = sum(other.colour == piece.colour for other in same) == 1
    return f"the {piece.colour} {piece.label}" if unique and piece.label not in UNCOLOURED else None
