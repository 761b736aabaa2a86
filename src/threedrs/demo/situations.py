"""SQA3D: a situation (where someone stands and looks) and a question from that point of view.

The situation follows from one piece of furniture, so that whoever sees the room can find the spot.
Its two alternatives tell the same in other words. A piece counts as in front, left, behind or
right where its whole box lies in that quarter, ten degrees of doubt at each border.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from threedrs.demo.language import article
from threedrs.demo.questions import (
    NUMBERS,
    Question,
    named_pieces,
    names,
    shuffled,
    side_answers,
    take_turns,
)
from threedrs.demo.relations import CHAIRS, UNCOLOURED
from threedrs.demo.room_objects import Piece, Room, plural

SIDES = {"front": 0.0, "left": 90.0, "behind": 180.0, "right": -90.0}
DIRECTIONS = {
    "front": ("forward",),
    "left": ("left",),
    "behind": ("backward",),
    "right": ("right",),
}
PLACES = {
    "front": "in front of me",
    "left": "on my left",
    "behind": "behind me",
    "right": "on my right",
}
LEAST_AHEAD = 0.25  # metres before someone who sits; what they look at is farther
BODY_RADIUS = 0.2  # metres kept between the person and furniture

FACING = (
    "I am standing in front of {} and facing it.",
    "I just walked up to {} and look straight at it.",
    "Right before me is {}, and I am looking at it.",
    "I am facing {}, about a step away from it.",
)
TURNED_AWAY = (
    "I am standing in front of {} with my back to it.",
    "{} is right behind me and I am facing away from it.",
    "I turned around in front of {}, so that it is at my back.",
    "I am about to walk away from {}, which is just behind me.",
)
SITTING = (
    "I am sitting on {} and looking straight ahead.",
    "I just sat down on {}, leaning back.",
    "I am resting on {} and facing forward.",
)
SITTING_BEFORE = (
    "I am sitting on {} and facing {}.",
    "I just sat down on {}, with {} in front of me.",
    "I am resting on {}, looking at {}.",
)
SEATS = (*CHAIRS, "couch")


@dataclass(frozen=True)
class Situation:
    """Someone's place: ``texts`` (the situation, then its alternatives), where and which way.

    ``position`` (2,) metres in the axis-aligned world; ``heading`` radians from +x; ``named``: ids
    of the pieces that the texts speak of, so that no question asks what they say.
    """

    texts: tuple[str, ...]
    position: tuple[float, float]
    heading: float
    named: tuple[int, ...]


def _bearings(situation: Situation, piece: Piece, where: str) -> np.ndarray:
    """Degrees (5,) between a side's middle and the piece's four corners and its own middle."""
    xs, ys = (piece.low[0], piece.high[0]), (piece.low[1], piece.high[1])
    points = np.array([[x, y] for x in xs for y in ys] + [piece.centre[:2].tolist()])
    offset = points - situation.position
    bearing = np.degrees(np.arctan2(offset[:, 1], offset[:, 0]) - situation.heading)
    return np.abs((bearing - SIDES[where] + 180) % 360 - 180)


def side(situation: Situation, piece: Piece) -> str | None:
    """Return the side of the person a piece is on (a key of ``SIDES``), None in doubt."""
    for name in SIDES:
        off = _bearings(situation, piece, name)
        if (off[:-1] < 55).all() and off[-1] < 35:
            return name
    return None


def surely_not(situation: Situation, piece: Piece, where: str) -> bool:
    """Whether no part of a piece is on that side, by more than ten degrees."""
    return bool((_bearings(situation, piece, where) > 55).all())


def _on_side(room: Room, situation: Situation, label: str, where: str) -> list[Piece] | None:
    """Pieces of a class on that side, or None where one is in doubt."""
    found = []
    for piece in room.furniture:
        if piece.label != label:
            continue
        if side(situation, piece) == where:
            found.append(piece)
        elif not surely_not(situation, piece, where):
            return None
    return found


def _free(room: Room, position: np.ndarray) -> bool:
    inside = np.array(room.size[:2]) / 2 - BODY_RADIUS
    if (np.abs(position) > inside).any():
        return False
    return not any(
        (position > piece.low[:2] - BODY_RADIUS).all()
        and (position < piece.high[:2] + BODY_RADIUS).all()
        for piece in room.furniture
        if piece.low[2] < 1.8
    )


def _straight_ahead(room: Room, here: Situation) -> Piece | None:
    """Return the first piece on the line along which someone looks, or None."""
    way = np.array([np.cos(here.heading), np.sin(here.heading)])
    line = here.position + np.arange(LEAST_AHEAD, max(room.size), 0.05)[:, None] * way
    first: dict[int, Piece] = {}
    for piece in room.furniture:
        met = ((line > piece.low[:2]) & (line < piece.high[:2])).all(axis=1)
        if piece.id not in here.named and met.any():
            first.setdefault(int(met.argmax()), piece)
    return first[min(first)] if first else None


def make_situation(room: Room, rng: np.random.Generator) -> Situation | None:
    """Draw a situation; None where the drawn piece leaves no room for a person before it."""
    everything = named_pieces(room, rng)
    piece, name = next(row for row in everything if row[0].front is not None)
    assert piece.front is not None
    if piece.support >= 0 or piece.label in UNCOLOURED:
        return None
    outward = float(np.arctan2(piece.front[1], piece.front[0]))
    named = [(piece, name)]
    wordings: tuple[str, ...]
    if piece.label in SEATS:
        position, heading = piece.centre[:2], outward
        # As SQA3D's authors do, say what a seat faces, which its image may not show.
        sitting = Situation((), (float(position[0]), float(position[1])), heading, (piece.id,))
        ahead = _straight_ahead(room, sitting)
        named += [row for row in everything if row[0] is ahead]
        wordings = SITTING_BEFORE if len(named) > 1 else SITTING
    else:
        reach = float(np.abs(piece.front) @ piece.size[:2]) / 2 + rng.uniform(0.45, 0.8)
        position = piece.centre[:2] + piece.front * reach
        if not _free(room, position):
            return None
        away = rng.random() < 0.5
        heading, wordings = (outward, TURNED_AWAY) if away else (outward + np.pi, FACING)
    nouns = [noun for _, noun in named]
    chosen = [str(text).format(*nouns) for text in shuffled(rng, list(wordings))[:3]]
    texts = tuple(text[0].upper() + text[1:] for text in chosen)
    place = (float(position[0]), float(position[1]))
    return Situation(texts, place, float(heading), tuple(row[0].id for row in named))


def _ask_colour(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    labels = {p.label for p in room.furniture if p.id not in here.named} - set(UNCOLOURED)
    for label in shuffled(rng, sorted(labels)):
        for where in shuffled(rng, list(SIDES)):
            found = _on_side(room, here, label, where)
            if found is not None and len(found) == 1 and found[0].id not in here.named:
                text = f"What color is the {label} {PLACES[where]}?"
                yield Question(text, (str(found[0].colour),), (found[0].id,))
                break


def _counted(room: Room, here: Situation) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Classes, sides, and the ids of the pieces of that class there, where none is in doubt."""
    for label in sorted({p.label for p in room.furniture if p.id not in here.named}):
        for where in SIDES:
            found = _on_side(room, here, label, where)
            if found is not None:
                yield label, where, tuple(piece.id for piece in found)


def _ask_is_there(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    by_side: dict[str, dict[str, list[Question]]] = {where: {} for where in SIDES}
    for label, where, ids in _counted(room, here):
        answer = "yes" if ids else "no"
        text = f"Is there {article(label)} {PLACES[where]}?"
        by_side[where].setdefault(answer, []).append(Question(text, (answer,), ids))
    for where in shuffled(rng, list(SIDES)):
        # Nothing stands behind whose back is to a wall: such a side the situation gives away.
        if len(by_side[where]) == 2:
            yield from _evenly(by_side[where], rng)


def _ask_count(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    rows: dict[str, list[Question]] = {}
    for label, where, ids in _counted(room, here):
        if sum(piece.label == label for piece in room.furniture) >= 2:
            text = f"How many {plural(label)} are {PLACES[where]}?"
            question = Question(text, (NUMBERS[len(ids)],), ids)
            rows.setdefault(question.answers[0], []).append(question)
    # Nearly everywhere some class is not on some side, so "zero" is drawn half as often.
    if len(rows) > 1:
        for answer in dict.fromkeys(shuffled(rng, [*sorted(rows), *sorted({*rows} - {"zero"})])):
            yield from shuffled(rng, rows[answer])[:1]


def _evenly(rows: dict[str, list[Question]], rng: np.random.Generator) -> Iterator[Question]:
    """Yield a question of each answer, the order of the answers drawn."""
    for answer in shuffled(rng, sorted(rows)):
        yield from shuffled(rng, rows[answer])[:1]


def _by_side(
    room: Room, here: Situation, rng: np.random.Generator, text: str,
    answers: Mapping[str, tuple[str, ...]],
) -> dict[str, list[Question]]:  # fmt: skip
    """Return questions about the pieces on each side that has answers; ``{}``: the piece's name."""
    rows: dict[str, list[Question]] = {}
    for piece, name, where in _others(room, here, rng):
        if where in answers:
            question = Question(text.format(name), answers[where], (piece.id,))
            rows.setdefault(where, []).append(question)
    return rows


def _others(
    room: Room, here: Situation, rng: np.random.Generator
) -> Iterator[tuple[Piece, str, str]]:
    for piece, name in named_pieces(room, rng):
        where = side(here, piece)
        if piece.id not in here.named and where is not None:
            yield piece, name, where


def _ask_direction(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    text = "Which direction should I go to get to {}?"
    yield from _evenly(_by_side(room, here, rng, text, DIRECTIONS), rng)


def _ask_visible(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    text = "Can I look at {} without turning around?"
    rows = _by_side(room, here, rng, text, {"front": ("yes",), "behind": ("no",)})
    # Whoever faces a wall sees nothing else, and sees all with the wall behind: words would do.
    if len(rows) == 2:
        yield from _evenly(rows, rng)


def _ask_side(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    text = "On which side of me is {}?"
    answers = {where: side_answers(where) for where in ("left", "right")}
    yield from _evenly(_by_side(room, here, rng, text, answers), rng)


def _ask_closer(room: Room, here: Situation, rng: np.random.Generator) -> Iterator[Question]:
    def away(piece: Piece) -> float:
        return float(np.linalg.norm(piece.centre[:2] - here.position))

    others = list(_others(room, here, rng))
    for (first, one, _), (second, other, _) in zip(others[::2], others[1::2], strict=False):
        near, far = sorted((first, second), key=away)
        if away(far) > away(near) * 1.4 + 0.2 and near.label != far.label:
            yield Question(f"What is closer to me, {one} or {other}?", names(near), (near.id,))


def make_situated_questions(
    room: Room, count: int, rng: np.random.Generator
) -> list[tuple[Situation, Question]]:
    """Return ``count`` situations with one question each; kinds of question take turns.

    Fewer where the room has no more, as where few of its pieces have a name of their own.
    """
    kinds = (_ask_colour, _ask_is_there, _ask_count, _ask_direction, _ask_visible, _ask_side,
             _ask_closer)  # fmt: skip
    rows: dict[tuple[int, str], tuple[Situation, Question]] = {}
    for attempt in range(count * 40):
        if len(rows) == count:
            break
        here = make_situation(room, rng)
        if here is None:
            continue
        kind = kinds[attempt % len(kinds)]
        for question in take_turns([kind(room, here, rng)], 1, rng):
            rows.setdefault((here.named[0], question.text), (here, question))
    return list(rows.values())
