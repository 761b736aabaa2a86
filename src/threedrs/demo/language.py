"""Sentences about a room: descriptions of one object (ScanRefer) or of any number (Multi3DRefer).

A sentence is a query put into words. Queries are drawn, resolved against the room's geometry, and
kept where they mean exactly what the annotation says. Wording is drawn last.
"""

from dataclasses import dataclass

import numpy as np

from threedrs.demo.furniture import KINDS
from threedrs.demo.relations import (
    SUPERLATIVES,
    UNCOLOURED,
    Query,
    Relation,
    all_relations,
    noun,
    resolve,
)
from threedrs.demo.room_objects import PALETTE, Piece, Room, plural

DESCRIPTIONS = 10
MULTI_DESCRIPTIONS = ("zt_w_d", "zt_wo_d", "st_w_d", "st_w_d", "st_wo_d", "mt", "mt", "zt_w_d")

WORDINGS: dict[str, tuple[str, ...]] = {
    "on": ("on {a}", "on top of {a}"),
    "next to": ("next to {a}", "right beside {a}"),
    "left of": (
        "to the left of {a} when you face it",
        "on the left side of {a}, seen from its front",
    ),
    "right of": (
        "to the right of {a} when you face it",
        "on the right side of {a}, seen from its front",
    ),
    "in front of": ("in front of {a}", "right in front of {a}"),
    "between": ("between {a} and {b}", "in between {a} and {b}"),
    "in a corner": ("in a corner of the room", "in the corner"),
    "closest to": ("closest to {a}", "nearest to {a}"),
    "farthest from": ("farthest from {a}", "farthest away from {a}"),
}  # fmt: skip


@dataclass(frozen=True)
class Description:
    """A sentence, the ids it means, the class it speaks of, and the query behind it."""

    text: str
    object_ids: tuple[int, ...]
    label: str
    query: Query


def article(words: str) -> str:
    """Return ``words`` with a or an."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(room: Room, relation: Relation, rng: np.random.Generator) -> str:
    """Return a relation in words, e.g. ``next to the bed``."""
    nouns = [noun(room, room.pieces[i]) or "" for i in relation.anchors] + ["", ""]
    wording = str(rng.choice(WORDINGS[relation.kind]))
    return wording.format(a=nouns[0], b=nouns[1])


def reference(room: Room, query: Query, rng: np.random.Generator) -> str:
    """Return a query as a definite noun phrase, e.g. ``the red chair next to the bed``."""
    words = f"{query.colour} {query.label}" if query.colour else query.label
    if query.relation is None:
        return f"the {words}"
    if query.relation.kind in SUPERLATIVES:
        if not query.relation.anchors:
            return f"the {query.relation.kind} {words}"
        return f"the {words} {phrase(room, query.relation, rng)}"
    return f"the {words} {rng.choice(['', 'that is '])}{phrase(room, query.relation, rng)}"


def describe(room: Room, query: Query, rng: np.random.Generator) -> str:
    """Return a query that means one object as a full description."""
    words = f"{query.colour} {query.label}" if query.colour else query.label
    relation = query.relation
    if relation is None:
        return str(
            rng.choice(
                [
                    f"the {words} in the room.",
                    f"this is {article(words)}.",
                    f"there is {article(words)}.",
                ]
            )
        )
    if relation.kind in SUPERLATIVES:
        if relation.anchors:
            rank = f"the {query.label} {phrase(room, relation, rng)}"
        else:
            rank = f"the {relation.kind} {query.label} in the room"
        if query.colour is None:
            return str(rng.choice([f"{rank}.", f"it is {rank}."]))
        return str(
            rng.choice(
                [f"this is {article(words)}. it is {rank}.", f"{rank}. it is {query.colour}."]
            )
        )
    where = phrase(room, relation, rng)
    wordings = [f"the {words} {where}.", f"this is {article(words)}. it is {where}."]
    if relation.kind != "on":
        wordings += [f"there is {article(words)} {where}.", f"{where} stands {article(words)}."]
    return str(rng.choice(wordings))


def identifying(room: Room, piece: Piece, *, with_colour: bool = True) -> list[Query]:
    """Return all queries that mean exactly ``piece``, with its colour or without."""
    colours: list[str | None] = [None]
    if with_colour and piece.label not in UNCOLOURED:
        colours = [None, piece.colour]
    found = []
    for relation in [None, *all_relations(room, piece)]:
        for colour in colours:
            query = Query(piece.label, colour, relation)
            if resolve(room, query) == {piece.id}:
                found.append(query)
    return found


def _draw(queries: list[Query], rng: np.random.Generator, used: dict[str, int]) -> Query:
    """Draw a query, of a kind of relation that was used least so far."""
    kinds = sorted({query.relation.kind if query.relation else "" for query in queries})
    least = min(used.get(kind, 0) for kind in kinds)
    kind = str(rng.choice([kind for kind in kinds if used.get(kind, 0) == least]))
    used[kind] = used.get(kind, 0) + 1
    fitting = [q for q in queries if (q.relation.kind if q.relation else "") == kind]
    return fitting[int(rng.integers(len(fitting)))]


def make_descriptions(room: Room, rng: np.random.Generator, rounds: int = 1) -> list[Description]:
    """Return sentences that each identify one object, spread over the objects.

    ``rounds`` times ``DESCRIPTIONS``, or fewer where the wordings run out.
    """
    queries = {piece: identifying(room, piece) for piece in room.furniture}
    pieces = [piece for piece in room.furniture if queries[piece]]
    order = [pieces[i] for _ in range(4 * rounds) for i in rng.permutation(len(pieces))]
    described: list[Description] = []
    used: dict[str, int] = {}
    for piece in order:
        query = _draw(queries[piece], rng, used)
        text = describe(room, query, rng)
        if len(described) < rounds * DESCRIPTIONS and text not in {row.text for row in described}:
            described.append(Description(text, (piece.id,), piece.label, query))
    return described


def eval_type(room: Room, query: Query) -> str | None:
    """Return Multi3DRefer's type of a query: how many targets, and whether with distractors."""
    found = resolve(room, query)
    if found is None:
        return None
    same = sum(piece.label == query.label for piece in room.furniture)
    if len(found) >= 2:
        return "mt"
    if len(found) == 1:
        return "st_w_d" if same > 1 else "st_wo_d"
    return "zt_w_d" if same else "zt_wo_d"


def _random_query(room: Room, rng: np.random.Generator) -> Query:
    label = str(rng.choice(list(KINDS)))
    present = sorted({piece.label for piece in room.furniture})
    if rng.random() < 0.85:
        label = str(rng.choice(present))
    of_label = [piece for piece in room.furniture if piece.label == label]
    colour = None
    if label not in UNCOLOURED and rng.random() < 0.6:
        names = list(PALETTE)
        if of_label and rng.random() < 0.6:
            names = [str(piece.colour) for piece in of_label]
        colour = str(rng.choice(names))
    target = of_label[int(rng.integers(len(of_label)))] if of_label else room.furniture[0]
    relations = [row for row in all_relations(room, target) if row.kind not in SUPERLATIVES]
    relation = relations[int(rng.integers(len(relations)))] if rng.random() < 0.5 else None
    if relation is not None and label in {room.pieces[i].label for i in relation.anchors}:
        relation = None  # "the chair next to the red chair" leaves open which of two is meant
    return Query(label, colour, relation)


def _describe_many(room: Room, query: Query, count: int, rng: np.random.Generator) -> str:
    many = plural(query.label)
    words = f"{query.colour} {many}" if query.colour else many
    where = f" {phrase(room, query.relation, rng)}" if query.relation else " in the room"
    openings = ["all {}{}.", "the {}{}.", "every one of the {}{}."]
    if count == 2:
        openings.append("both {}{}.")
    return str(rng.choice(openings)).format(words, where)


def make_multi_descriptions(
    room: Room, rng: np.random.Generator, rounds: int = 1
) -> list[tuple[str, Description]]:
    """Return (eval_type, description) rows: ``rounds`` for each of ``MULTI_DESCRIPTIONS``.

    Fewer where the room does not allow a type, or no new wording of it is found.
    """
    rows: list[tuple[str, Description]] = []
    texts: set[str] = set()
    for wanted in rounds * MULTI_DESCRIPTIONS:
        for _ in range(400):
            query = _random_query(room, rng)
            if eval_type(room, query) != wanted:
                continue
            found = resolve(room, query) or frozenset()
            if wanted == "mt":
                text = _describe_many(room, query, len(found), rng)
            else:
                text = describe(room, query, rng)
            if text not in texts:
                texts.add(text)
                rows.append((wanted, Description(text, tuple(sorted(found)), query.label, query)))
                break
    return rows
