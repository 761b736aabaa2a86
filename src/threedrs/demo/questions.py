"""Questions about a room: by an onlooker (ScanQA) and by someone standing in it (SQA3D).

As with descriptions, a question is kept only where the geometry answers it without doubt. Kinds of
question take turns and answers of a kind are drawn evenly where there is a choice, so that the
question alone does not give the answer away.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from threedrs.demo.furniture import KINDS
from threedrs.demo.language import article, identifying, one_of, phrase, phrases, reference
from threedrs.demo.placement import SUPPORTS
from threedrs.demo.relations import (
    UNCOLOURED,
    Query,
    Relation,
    all_relations,
    gap,
    has_sides,
    holds,
    noun,
    on_floor,
    resolve,
)
from threedrs.demo.room_objects import PALETTE, Piece, Room, plural
from threedrs.demo.rooms import most_of

QUESTIONS = 12
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Question:
    """A question, all right answers (the first is the one to give), and the objects it is about."""

    text: str
    answers: tuple[str, ...]
    object_ids: tuple[int, ...]


def shuffled(rng: np.random.Generator, values: list) -> list:
    """Return the values in random order."""
    return [values[i] for i in rng.permutation(len(values))]


def named_pieces(room: Room, rng: np.random.Generator) -> list[tuple[Piece, str]]:
    """Return pieces with the phrase that identifies them, in random order."""
    pairs = [(piece, noun(room, piece)) for piece in room.furniture]
    return shuffled(rng, [(piece, name) for piece, name in pairs if name is not None])


def names(piece: Piece) -> tuple[str, ...]:
    """Return what answers call a piece: its class, and its colour and class where it has one."""
    coloured = () if piece.label in UNCOLOURED else (f"{piece.colour} {piece.label}",)
    return (piece.label, *coloured)


def side_answers(side: str) -> tuple[str, ...]:
    """Return the wordings of the answer ``left`` or ``right``."""
    return side, f"{side} side", f"on the {side}", f"on the {side} side"


def _ask_colour(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    for piece in shuffled(rng, [p for p in room.furniture if p.label not in UNCOLOURED]):
        queries = identifying(room, piece, with_colour=False)
        if queries and piece.colour:
            query = queries[int(rng.integers(len(queries)))]
            opening = one_of(rng, "what color is {}?", "what is the color of {}?")
            text = opening.format(reference(room, query, rng))
            yield Question(text, (piece.colour,), (piece.id,))


def _ask_count(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    counts: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for label in sorted({piece.label for piece in room.furniture}):
        same = [piece for piece in room.furniture if piece.label == label]
        phrases = [(plural(label), same)] if most_of(room.theme, label) > 1 else []
        colours = sorted({str(piece.colour) for piece in same})
        if label not in UNCOLOURED and len(same) > 1:
            colour = one_of(rng, *colours)
            fitting = [piece for piece in same if piece.colour == colour]
            phrases.append((f"{colour} {plural(label)}", fitting))
        for words, pieces in phrases:
            ids = tuple(piece.id for piece in pieces)
            counts.setdefault(len(ids), []).append((words, ids))
    # Most classes stand there once: no number may come more often than there are others.
    more = sum(len(rows) for number, rows in counts.items() if number > 1)
    counts[1] = shuffled(rng, counts.get(1, []))[:more]
    while any(counts.values()):
        for number in shuffled(rng, [n for n, rows in sorted(counts.items()) if rows]):
            words, ids = counts[number].pop(int(rng.integers(len(counts[number]))))
            place = one_of(rng, "there in the room", "in this room")
            text = f"how many {words} are {place}?"
            yield Question(text, (NUMBERS[number], str(number)), ids)


def _ask_on(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    for piece, name in named_pieces(room, rng):
        carried = [other for other in room.furniture if other.support == piece.id]
        # A bed carries pillows alone, so that who knows the word "bed" would know the answer.
        could_carry = [label for label, hosts in SUPPORTS.items() if piece.label in hosts]
        if len(carried) == 1 and len(could_carry) > 1:
            text = f"what is {one_of(rng, 'on', 'on top of')} {name}?"
            yield Question(text, names(carried[0]), (carried[0].id,))


def _ask_where(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    kinds = ("on", "next to", "in a corner", "between", "in front of")
    for piece, name in named_pieces(room, rng):
        relations = [row for row in all_relations(room, piece) if row.kind in kinds]
        true = [row for row in relations if holds(room, piece, row)]
        # What is true of no other piece of its class says most, so such answers come first.
        telling = [
            row for row in true if resolve(room, Query(piece.label, None, row)) == {piece.id}
        ]
        if telling:
            first = [phrase(room, row, rng) for row in shuffled(rng, telling)]
            answers = first + [text for row in true for text in phrases(room, row)]
            yield Question(f"where is {name} located?", tuple(dict.fromkeys(answers)), (piece.id,))


def _ask_next_to(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    standing = [piece for piece in room.furniture if on_floor(piece)]
    for anchor, name in named_pieces(room, rng):
        if not on_floor(anchor):
            continue
        apart = sorted((gap(anchor, other), other.id) for other in standing if other is not anchor)
        if apart[1][0] > apart[0][0] * 1.2 + 0.2:
            closest = room.pieces[apart[0][1]]
            opening = one_of(rng, "what piece of furniture is closest to", "what stands nearest to")
            yield Question(f"{opening} {name}?", names(closest), (closest.id,))


def _ask_taller(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    named = [(p, name) for p, name in named_pieces(room, rng) if on_floor(p)]
    for (first, one), (second, other) in combinations(named, 2):
        if first.label == second.label:
            continue
        # Only of classes that may be either way: of others the question gives the answer away.
        kinds = [KINDS[piece.label] for piece in (first, second)]
        is_open = max(kind.low[2] for kind in kinds) < min(kind.high[2] for kind in kinds)
        if is_open and abs(first.size[2] - second.size[2]) > 0.1:
            taller = first if first.size[2] > second.size[2] else second
            yield Question(f"which is taller, {one} or {other}?", names(taller), (taller.id,))


def _ask_is_there(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    labels = sorted({p.label for p in room.furniture} - set(UNCOLOURED) - {"door"})
    for label in shuffled(rng, labels):
        same = [piece for piece in room.furniture if piece.label == label]
        colours = sorted({str(piece.colour) for piece in same})
        answer = "yes" if rng.random() < 0.5 else "no"
        pool = colours if answer == "yes" else [name for name in PALETTE if name not in colours]
        colour = one_of(rng, *pool)
        ids = tuple(piece.id for piece in same if piece.colour == colour)
        yield Question(f"is there {article(f'{colour} {label}')} in the room?", (answer,), ids)


def _ask_side(room: Room, rng: np.random.Generator) -> Iterator[Question]:
    for piece, name in named_pieces(room, rng):
        for anchor, other in named_pieces(room, rng):
            if anchor is piece or not has_sides(anchor) or not on_floor(anchor):
                continue
            sides = []
            for side in ("left", "right"):
                relation = Relation(f"{side} of", (anchor.id,))
                if resolve(room, Query(piece.label, piece.colour, relation)) == {piece.id}:
                    sides.append(side)
            if len(sides) == 1:
                text = f"when you face {other}, on which side of it is {name}?"
                yield Question(text, side_answers(sides[0]), (piece.id,))
                break


def make_questions(room: Room, rng: np.random.Generator, rounds: int = 1) -> list[Question]:
    """Return up to ``rounds`` times ``QUESTIONS`` different questions, kinds taking turns."""
    kinds = (_ask_colour, _ask_count, _ask_on, _ask_where, _ask_next_to, _ask_taller, _ask_is_there,
             _ask_side)  # fmt: skip
    return take_turns([kind(room, rng) for kind in rounds * kinds], rounds * QUESTIONS, rng)


def take_turns(
    kinds: list[Iterator[Question]], count: int, rng: np.random.Generator
) -> list[Question]:
    """Take one question of each kind in turn until there are ``count`` or no kind has more."""
    questions: dict[str, Question] = {}
    waiting = list(kinds)
    while waiting and len(questions) < count:
        for kind in shuffled(rng, waiting):
            question = next(kind, None)
            if question is None:
                waiting.remove(kind)
            elif len(questions) < count:
                questions.setdefault(question.text, question)
    return list(questions.values())
