"""Sentences about a room: descriptions of one object (ScanRefer) or of any number (Multi3DRefer).

A sentence is a query put into words. Queries are drawn, resolved against the room's geometry, and
kept where they mean exactly what the annotation says. Wording is drawn last.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from threedrs.demo.furniture import KINDS
from threedrs.demo.relations import (
    SIZES,
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
# Share of the descriptions of a piece that its colour alone tells from others of its class. Were
# they rare, who knows class and place would find two of three objects without a look at colours.
COLOUR_ALONE = 0.5
MULTI_DESCRIPTIONS = ("zt_w_d", "zt_wo_d", "st_w_d", "st_w_d", "st_wo_d", "mt", "mt", "zt_w_d")

WORDINGS: dict[str, tuple[str, ...]] = {
    "on": ("on {a}", "on top of {a}"),
    "next to": ("next to {a}", "beside {a}", "right beside {a}"),
    "left of": (
        "to the left of {a} when you face it",
        "on the left side of {a}, seen from its front",
    ),
    "right of": (
        "to the right of {a} when you face it",
        "on the right side of {a}, seen from its front",
    ),
    "in front of": ("in front of {a}", "right in front of {a}"),
    "between": ("between {a} and {b}", "in between {a} and {b}", "between {b} and {a}"),
    "in a corner": ("in a corner of the room", "in the corner of the room", "in the corner"),
    "closest to": ("closest to {a}", "nearest to {a}"),
    "farthest from": ("farthest from {a}", "farthest away from {a}"),
}  # fmt: skip
THING = "thing"  # in the place of a class: a piece of any class that has one colour


@dataclass(frozen=True)
class Description:
    """A sentence, the ids it means, the class it speaks of, and the query behind it."""

    text: str
    object_ids: tuple[int, ...]
    label: str
    query: Query


def one_of(rng: np.random.Generator, *texts: str) -> str:
    """Return one of the texts, at random."""
    return str(rng.choice(texts))


def article(words: str) -> str:
    """Return ``words`` with a or an."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrases(room: Room, relation: Relation) -> list[str]:
    """Return all wordings of a relation, e.g. ``next to the bed`` and ``beside the bed``."""
    nouns = [noun(room, room.pieces[i]) or "" for i in relation.anchors] + ["", ""]
    return [text.format(a=nouns[0], b=nouns[1]) for text in WORDINGS[relation.kind]]


def phrase(room: Room, relation: Relation, rng: np.random.Generator) -> str:
    """Return a relation in words, e.g. ``next to the bed``."""
    return one_of(rng, *phrases(room, relation))


def reference(room: Room, query: Query, rng: np.random.Generator) -> str:
    """Return a query as a definite noun phrase, e.g. ``the red chair next to the bed``."""
    words, relation = query.words, query.relation
    if relation is None:
        return f"the {words}"
    if relation.kind in SIZES:
        return f"the {relation.kind} {words}"
    link = "" if relation.kind in SUPERLATIVES else one_of(rng, "", "that is ")
    return f"the {words} {link}{phrase(room, relation, rng)}"


def describe(room: Room, query: Query, rng: np.random.Generator) -> str:
    """Return a query that means one object as a full description."""
    words, relation = query.words, query.relation
    one = article(words)
    if relation is None:
        wordings = [f"the {words} in the room.", f"this is {one}.", f"there is {one}."]
    elif relation.kind in SUPERLATIVES:
        rank = f"the {relation.kind} {query.label} in the room"
        if relation.anchors:
            rank = f"the {query.label} {phrase(room, relation, rng)}"
        wordings = [f"this is {one}. it is {rank}.", f"{rank}. it is {query.colour}."]
        if query.colour is None:
            wordings = [f"{rank}.", f"it is {rank}."]
    else:
        where = phrase(room, relation, rng)
        wordings = [f"the {words} {where}.", f"this is {one}. it is {where}."]
        if relation.kind != "on":
            wordings += [f"there is {one} {where}.", f"{where} stands {one}."]
    return one_of(rng, *wordings)


def identifying(room: Room, piece: Piece, *, with_colour: bool = True) -> list[Query]:
    """Return all queries that mean exactly ``piece``, with its colour or without."""
    coloured = with_colour and piece.label not in UNCOLOURED
    queries = [
        Query(piece.label, colour, relation)
        for relation in [None, *all_relations(room, piece)]
        for colour in ([None, piece.colour] if coloured else [None])
    ]
    return [query for query in queries if resolve(room, query) == {piece.id}]


def _draw(queries: list[Query], rng: np.random.Generator, used: Counter[str]) -> Query:
    """Draw a query, of a kind of relation that was used least so far."""
    by_kind: dict[str, list[Query]] = {}
    for query in queries:
        by_kind.setdefault(query.relation.kind if query.relation else "", []).append(query)
    least = min(used[kind] for kind in by_kind)
    kind = str(rng.choice([kind for kind in sorted(by_kind) if used[kind] == least]))
    used[kind] += 1
    return by_kind[kind][int(rng.integers(len(by_kind[kind])))]


def make_descriptions(room: Room, rng: np.random.Generator, rounds: int = 1) -> list[Description]:
    """Return sentences that each identify one object, one of several of a class twice as often.

    ``rounds`` times ``DESCRIPTIONS``, or fewer where the wordings run out.
    """
    queries = {piece: identifying(room, piece) for piece in room.furniture}
    pieces = [piece for piece in room.furniture if queries[piece]]
    # One of several of its class comes twice as often, since only there a class does not tell it.
    labels = Counter(piece.label for piece in pieces)
    pieces += [piece for piece in pieces if labels[piece.label] > 1]
    order = [pieces[i] for _ in range(4 * rounds) for i in rng.permutation(len(pieces))]
    described: list[Description] = []
    used: Counter[str] = Counter()
    for piece in order:
        query = Query(piece.label, piece.colour)
        tells = query in queries[piece] and Query(piece.label) not in queries[piece]
        if not tells or rng.random() >= COLOUR_ALONE:
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
    label = one_of(rng, *KINDS)
    if rng.random() < 0.85:
        label = one_of(rng, *sorted({piece.label for piece in room.furniture}))
    of_label = [piece for piece in room.furniture if piece.label == label]
    colour = None
    if label not in UNCOLOURED and rng.random() < 0.6:
        names = list(PALETTE)
        if of_label and rng.random() < 0.6:
            names = [str(piece.colour) for piece in of_label]
        colour = one_of(rng, *names)
    target = of_label[int(rng.integers(len(of_label)))] if of_label else room.furniture[0]
    relation = None
    if rng.random() < 0.5:
        relations = [row for row in all_relations(room, target) if row.kind not in SUPERLATIVES]
        relation = relations[int(rng.integers(len(relations)))]
    if relation is not None and label in {room.pieces[i].label for i in relation.anchors}:
        relation = None  # "the chair next to the red chair" leaves open which of two is meant
    return Query(label, colour, relation)


def _describe_many(room: Room, query: Query, count: int, rng: np.random.Generator) -> str:
    many = plural(query.label)
    words = f"{query.colour} {many}" if query.colour else many
    where = phrase(room, query.relation, rng) if query.relation else "in the room"
    openings = ["all", "the", "every one of the", *(["both"] if count == 2 else [])]
    return f"{one_of(rng, *openings)} {words} {where}."


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


def describe_things(room: Room) -> Iterator[tuple[str, Description]]:
    """Yield (eval_type, description) rows that name a colour and no class, of every colour.

    Only who sees the colours finds what they mean: ``the red thing in the room``. The label of one
    object's description is its class.
    """
    coloured = [piece for piece in room.furniture if piece.label not in UNCOLOURED]
    for colour in PALETTE:
        found = [piece for piece in coloured if piece.colour == colour]
        query, ids = Query(THING, colour), tuple(piece.id for piece in found)
        if len(found) == 1:
            label = found[0].label
            # As captions too, so few words beside the colour, which is what is to be learned.
            words = f"the {query.words}"
            for text in (words, article(query.words), f"one {query.words}", f"{words} in the room"):
                yield "st_w_d", Description(f"{text}.", ids, label, query)
        else:
            openings = ("all", "the", "every one of the", "all of the")
            kind = "mt" if found else "zt_w_d"
            # About half of the colours are not there, and would be half of the rows.
            for opening in openings if found else openings[:1]:
                text = f"{opening} {colour} {plural(THING)} in the room."
                yield kind, Description(text, ids, THING, query)
