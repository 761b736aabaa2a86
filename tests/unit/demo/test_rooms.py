"""The generated rooms: furniture, the walk, and sentences that mean what they say."""

import itertools
import re

import numpy as np
import pytest

from threedrs.demo.annotations import annotate
from threedrs.demo.language import (
    DESCRIPTIONS,
    describe,
    describe_things,
    eval_type,
    make_descriptions,
)
from threedrs.demo.relations import UNCOLOURED, Query, resolve
from threedrs.demo.room_objects import PALETTE, Room, plural
from threedrs.demo.rooms import THEMES, make_room
from threedrs.demo.situations import make_situated_questions


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [
        make_room(theme, np.random.default_rng(number))
        for number, theme in zip(range(10), itertools.cycle(THEMES), strict=False)
    ]


def test_other_seed_other_rooms(rooms: list[Room]) -> None:
    again = make_room(next(iter(THEMES)), np.random.default_rng(0))
    assert [p.label for p in again.pieces] == [p.label for p in rooms[0].pieces]
    layouts = {tuple(float(v) for v in room.size) for room in rooms}
    assert len(layouts) == len(rooms)


def test_rooms_are_furnished_without_intersections(rooms: list[Room]) -> None:
    classes = set()
    for room in rooms:
        furniture = [p for p in room.furniture if p.label not in ("door", "window", "picture")]
        labels = [piece.label for piece in furniture]
        classes |= set(labels)
        assert 7 <= len(furniture) <= 12
        assert max(labels.count(label) for label in labels) >= 2
        assert [piece.id for piece in room.pieces] == list(range(len(room.pieces)))
        half = np.array(room.size[:2]) / 2
        for piece in room.furniture:
            assert (np.abs([piece.low[:2], piece.high[:2]]) <= half + 1e-6).all()
        for a, b in itertools.combinations(room.furniture, 2):
            if a.id == b.support or b.id == a.support:
                continue
            overlap = np.minimum(a.high, b.high) - np.maximum(a.low, b.low)
            assert overlap.min() <= 1e-6, (a.label, b.label)
    assert len(classes) >= 8


def test_plain_descriptions_mean_exactly_their_objects(rooms: list[Room]) -> None:
    """Colour-and-class and superlative sentences, read back from their words alone."""
    read = {"plain": 0, "closest": 0, "on": 0, "size": 0}
    for number, room in enumerate(rooms):
        rows = annotate("scene0000_00", room, np.random.default_rng(number))
        pieces = list(room.furniture)
        labels = sorted({p.label for p in pieces}, key=len, reverse=True)
        word = "|".join(labels)
        colours = "|".join(sorted({str(p.colour) for p in pieces}))

        def named(text: str, pieces=pieces, word=word, colours=colours):
            match = re.fullmatch(rf"the (?:({colours}) )?({word})", text)
            found = [p for p in pieces if p.label == match[2] and match[1] in (None, p.colour)]
            assert len(found) == 1, text
            return found[0]

        for row in rows["scanrefer"]:
            text, target = row["description"], room.pieces[int(row["object_id"])]
            assert row["object_name"] == target.label.replace(" ", "_")
            assert target.label in text
            same = [p for p in pieces if p.label == target.label]
            body = text.rstrip(".")
            plain = re.fullmatch(
                rf"(?:the|this is an?|there is an?) (?:({colours}) )?({word})( in the room)?", body
            )
            closest = re.search(
                r"(?:closest to|nearest to|farthest from|farthest away from) (the [a-z ]+)", body
            )
            size = re.search(rf"the (tallest|shortest|largest|smallest) ({word}) in the room", body)
            on = re.search(r" on (?:top of )?(the [a-z ]+)$", body) if "side" not in body else None
            if plain:
                read["plain"] += 1
                assert [p for p in same if plain[1] in (None, p.colour)] == [target]
            elif closest:
                read["closest"] += 1
                anchor = named(closest[1])
                away = [float(np.hypot(*(p.centre - anchor.centre)[:2])) for p in same]
                choose = min if re.search("closest|nearest", body) else max
                assert same[away.index(choose(away))] is target
                assert len(same) > 1
            elif size:
                read["size"] += 1
                measure = [
                    p.high[2] - p.low[2] if size[1] in ("tallest", "shortest") else np.prod(p.size)
                    for p in same
                ]
                choose = max if size[1] in ("tallest", "largest") else min
                assert same[measure.index(choose(measure))] is target
            elif on:
                read["on"] += 1
                anchor = named(on[1])
                standing = [
                    p
                    for p in same
                    if (p.centre[:2] > anchor.low[:2]).all()
                    and (p.centre[:2] < anchor.high[:2]).all()
                    and p.low[2] > 0.2
                ]
                assert standing == [target]
    assert min(read.values()) >= 1, read


def test_some_descriptions_are_found_by_colour_alone(rooms: list[Room]) -> None:
    """Else class and place would find all that a student finds, without a look at colours."""
    by_colour, several = 0, 0
    for number, room in enumerate(rooms):
        labels = [piece.label for piece in room.furniture]
        for row in make_descriptions(room, np.random.default_rng(number), rounds=4):
            several += labels.count(row.label) > 1
            by_colour += labels.count(row.label) > 1 and row.query.relation is None
    assert by_colour > 0.15 * several
    assert several > 0.35 * sum(4 * DESCRIPTIONS for _ in rooms)


def test_things_are_described_by_their_colour_alone(rooms: list[Room]) -> None:
    """Every colour is asked for, and means all pieces of that one colour."""
    for room in rooms:
        meant: dict[str, set[int]] = {}
        for kind, row in describe_things(room):
            colour = str(row.query.colour)
            assert colour in row.text
            assert not any(piece.label in row.text for piece in room.furniture)
            assert kind == {0: "zt_w_d", 1: "st_w_d"}.get(len(row.object_ids), "mt")
            meant.setdefault(colour, set()).update(row.object_ids)
        assert set(meant) == set(PALETTE)
        assert meant == {
            colour: {
                piece.id
                for piece in room.furniture
                if piece.colour == colour and piece.label not in UNCOLOURED
            }
            for colour in PALETTE
        }


def test_descriptions_of_things_leave_the_other_rows_as_they_are(rooms: list[Room]) -> None:
    for number, room in enumerate(rooms):
        without, with_things = (
            annotate("scene0000_00", room, np.random.default_rng(number), things=things)
            for things in (False, True)
        )
        described = [*describe_things(room)]
        single = [row.text for _, row in described if len(row.object_ids) == 1]
        for name, texts in (
            ("scanrefer", single),
            ("multi3drefer", [r.text for _, r in described]),
        ):
            rows, more = without[name], with_things[name]
            assert more[: len(rows)] == rows
            assert [row["description"] for row in more[len(rows) :]] == texts
        assert with_things["scanqa"] == without["scanqa"]
        assert with_things["sqa3d"] == without["sqa3d"]
        keys = [(row["object_id"], row["ann_id"]) for row in with_things["scanrefer"]]
        assert len(keys) == len(set(keys))


def test_multi_descriptions_mean_exactly_their_objects(rooms: list[Room]) -> None:
    seen = set()
    for number, room in enumerate(rooms):
        rows = annotate("scene0000_00", room, np.random.default_rng(number))["multi3drefer"]
        for row in rows:
            label = row["object_name"].replace("_", " ")
            same = [p for p in room.furniture if p.label == label]
            ids = row["object_ids"]
            seen.add(row["eval_type"])
            assert len(ids) == {"z": 0, "s": 1}.get(row["eval_type"][0], len(ids))
            assert set(ids) <= {p.id for p in same}
            if row["eval_type"] != "mt":
                distractors = len(same) > len(ids)
                assert row["eval_type"].endswith("_w_d") == distractors
            else:
                assert len(ids) >= 2
            if row["color"]:
                # Not the first one of the sentence, which may be the colour of what it stands by.
                named = re.search(rf"({'|'.join(_COLOURS)}) {label[:4]}", row["description"])
                assert named is not None
                colour = named[1]
                assert all(room.pieces[i].colour == colour for i in ids)
                if not row["spatial"]:
                    assert sorted(ids) == [p.id for p in same if p.colour == colour]
            if row["description"].startswith("both "):
                assert len(ids) == 2
    assert len(seen) == 5


_COLOURS = {"red", "orange", "yellow", "green", "blue", "purple", "brown", "white", "black"}


def test_counts_and_colours_in_scanqa_are_right(rooms: list[Room]) -> None:
    counted = coloured = 0
    for number, room in enumerate(rooms):
        for row in annotate("scene0000_00", room, np.random.default_rng(number))["scanqa"]:
            names = [room.pieces[i].label for i in row["object_ids"]]
            assert row["object_names"] == names
            if row["question"].startswith("How many"):
                counted += 1
                assert row["answers"][1] == str(len(row["object_ids"]))
                words = row["question"].split(" are ")[0].removeprefix("How many ").split()
                colour = words[0] if words[0] in _COLOURS else None
                expected = [
                    p.id
                    for p in room.furniture
                    if p.label == names[0] and colour in (None, p.colour)
                ]
                assert sorted(row["object_ids"]) == expected
            elif row["question"].startswith("What color is the"):
                coloured += 1
                (target,) = (room.pieces[i] for i in row["object_ids"])
                assert row["answers"] == [target.colour]
                asked = row["question"].removeprefix("What color is the").split(target.label)[0]
                assert not _COLOURS & set(asked.split())
    assert counted > 5
    assert coloured > 5


def test_situated_answers_hold_from_where_the_person_stands(rooms: list[Room]) -> None:
    """Sides again, by turning the room under the person instead of measuring bearings."""
    checked = 0
    for number, room in enumerate(rooms):
        for here, question in make_situated_questions(room, 16, np.random.default_rng(number)):
            cos, sin = np.cos(here.heading), np.sin(here.heading)

            def place(piece, here=here, cos=cos, sin=sin):
                dx, dy = piece.centre[:2] - here.position
                ahead, left = cos * dx + sin * dy, cos * dy - sin * dx
                if abs(ahead) > abs(left):
                    return "in front of me" if ahead > 0 else "behind me"
                return "on my left" if left > 0 else "on my right"

            match = re.search(r"(in front of me|behind me|on my left|on my right)\?", question.text)
            if match and question.text.startswith(("How many", "Is there")):
                checked += 1
                words = question.text.split(" are ")[0].split(" in front")[0].split(" behind")[0]
                words = words.split(" on my")[0]
                label = next(
                    p.label
                    for p in sorted(room.furniture, key=lambda p: -len(p.label))
                    if words.endswith((f" {p.label}", f" {plural(p.label)}"))
                )
                found = sum(p.label == label and place(p) == match[1] for p in room.furniture)
                numbers = ("zero", "one", "two", "three", "four", "five")
                said = question.answers[0]
                assert said == (
                    ("no", "yes")[found > 0] if said in ("no", "yes") else numbers[found]
                )
            elif match:
                checked += 1
                (target,) = (room.pieces[i] for i in question.object_ids)
                assert place(target) == match[1]
                assert question.answers == (target.colour,)
            elif question.text.startswith("On which side"):
                checked += 1
                (target,) = (room.pieces[i] for i in question.object_ids)
                assert place(target) == f"on my {question.answers[0]}"
            inside = np.array(room.size[:2]) / 2
            assert (np.abs(here.position) < inside).all()
            assert len(set(here.texts)) == 3
    assert checked > 40


def test_doubtful_queries_are_not_resolved(rooms: list[Room]) -> None:
    room = rooms[0]
    label = room.furniture[0].label
    same = frozenset(p.id for p in room.furniture if p.label == label)
    assert resolve(room, Query(label)) == same
    assert resolve(room, Query("piano")) == frozenset()
    assert eval_type(room, Query("piano")) == "zt_wo_d"
    assert describe(room, Query("ottoman"), np.random.default_rng(0)).count("ottoman") == 1
