"""Questions and answers: all right wordings count, and words alone do not answer."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from threedrs.demo.annotations import annotate, annotation_files
from threedrs.demo.language import WORDINGS
from threedrs.demo.questions import NUMBERS
from threedrs.demo.relations import RELATIONS, all_relations, has_sides, noun
from threedrs.demo.room_objects import PALETTE, Room
from threedrs.demo.rooms import THEMES, make_room
from threedrs.demo.situations import make_situated_questions, make_situation

ROOMS = 40
CHAIRS = ("chair", "office chair", "armchair")


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [
        make_room(theme, np.random.default_rng(number))
        for number, theme in zip(range(ROOMS), itertools.cycle(THEMES), strict=False)
    ]


@pytest.fixture(scope="module")
def rows(rooms: list[Room]) -> list[dict]:
    return [
        annotate(f"scene{number:04d}_00", room, np.random.default_rng(number))
        for number, room in enumerate(rooms)
    ]


def test_every_right_wording_of_a_place_is_an_answer(rooms: list[Room], rows: list[dict]) -> None:
    places = 0
    for room, annotated in zip(rooms, rows, strict=True):
        for row in annotated["scanqa"]:
            if not row["question"].startswith("Where is"):
                continue
            places += 1
            (piece,) = (room.pieces[number] for number in row["object_ids"])
            right = set()
            for relation in all_relations(room, piece):
                anchors = [room.pieces[number] for number in relation.anchors]
                if relation.kind in ("on", "next to", "in a corner", "between", "in front of"):
                    nouns = dict(
                        zip("ab", (noun(room, anchor) for anchor in anchors), strict=False)
                    )
                    if RELATIONS[relation.kind](room, piece, *anchors):
                        right |= {text.format(**nouns) for text in WORDINGS[relation.kind]}
            assert set(row["answers"]) == right
            assert len(row["answers"]) == len(right)
    assert places > ROOMS / 2
    assert {"in front of {a}", "right in front of {a}"} <= set(WORDINGS["in front of"])


def test_training_takes_two_answers_and_evaluation_all(rows: list[dict]) -> None:
    splits = {"train": ["scene0000_00"], "val": ["scene0001_00"], "test": []}
    by_scene = dict(zip(("scene0000_00", "scene0001_00"), rows, strict=False))
    files = annotation_files(splits, by_scene)
    trained, asked = (files[f"scanqa/ScanQA_v1.0_{split}.json"] for split in ("train", "val"))
    assert [row["answers"] for row in trained] == [row["answers"][:2] for row in rows[0]["scanqa"]]
    assert [row["answers"] for row in asked] == [row["answers"] for row in rows[1]["scanqa"]]
    assert max(len(row["answers"]) for row in asked) > 2


def test_no_sentence_has_left_right_or_front_of_a_chair(
    rooms: list[Room], rows: list[dict]
) -> None:
    """Sitter and onlooker call them differently, and nobody stands before a chair at its desk."""
    sided = 0
    for room, annotated in zip(rooms, rows, strict=True):
        texts = [row["description"] for row in annotated["scanrefer"] + annotated["multi3drefer"]]
        texts += [
            text for row in annotated["scanqa"] for text in (row["question"], *row["answers"])
        ]
        chairs = [noun(room, piece) for piece in room.furniture if piece.label in CHAIRS]
        for text in map(str.lower, texts):
            for name in filter(None, chairs):
                assert f"left of {name}" not in text
                assert f"right of {name}" not in text
                assert f"side of {name}" not in text
                assert f"in front of {name}" not in text
                assert f"when you face {name}" not in text
        sided += sum("when you face" in text.lower() for text in texts)
        # Whoever faces a piece that has sides stands within the walls.
        for piece in filter(has_sides, room.furniture):
            reach = np.abs(piece.front) @ piece.size[:2] / 2 + 0.4
            spot = piece.centre[:2] + piece.front * reach
            assert (np.abs(spot) < np.array(room.size[:2]) / 2).all(), piece.label
    assert sided > ROOMS / 4


def test_a_seat_says_what_its_sitter_looks_at(rooms: list[Room]) -> None:
    told = 0
    for number, room in enumerate(rooms):
        rng = np.random.default_rng(number)
        for here in filter(None, (make_situation(room, rng) for _ in range(20))):
            seat, *ahead = (room.pieces[index] for index in here.named)
            assert all(str(noun(room, seat)).lower() in text.lower() for text in here.texts)
            for piece in ahead:
                told += 1
                assert seat.label in (*CHAIRS, "couch")
                np.testing.assert_allclose(here.position, seat.centre[:2])
                assert all(str(noun(room, piece)) in text for text in here.texts)
                # Some corners are to the left of the line of sight, and some to its right.
                off = [
                    (
                        np.degrees(
                            np.arctan2(y - here.position[1], x - here.position[0]) - here.heading
                        )
                        + 180
                    )
                    % 360
                    - 180
                    for x in (piece.low[0], piece.high[0])
                    for y in (piece.low[1], piece.high[1])
                ]
                assert min(off) < 0 < max(off)
                assert min(map(abs, off)) < 90
    assert told > ROOMS


def test_answers_do_not_follow_from_the_question(rows: list[dict]) -> None:
    by_question: dict[str, set[str]] = {}
    for each in rows:
        for row in each["sqa3d"]:
            first = row["question"]["question"].split()[0]
            by_question.setdefault(first, set()).add(row["annotation"]["answers"][0]["answer"])
    assert {"yes", "no"} <= by_question["Is"]
    assert {"yes", "no"} <= by_question["Can"]
    assert {"left", "right", "forward", "backward"} <= by_question["Which"]
    assert len(by_question["What"] & set(PALETTE)) >= 6
    assert len(by_question["How"]) >= 3


def shares(answers: list[str]) -> dict[str, float]:
    return {answer: count / len(answers) for answer, count in Counter(answers).items()}


def test_answers_of_a_kind_are_about_equally_frequent(rows: list[dict]) -> None:
    """So the most frequent answer of a kind is right not much more often than by chance."""
    firsts = {
        "scanqa": [row["answers"][0] for each in rows for row in each["scanqa"]],
        "sqa3d": [
            row["annotation"]["answers"][0]["answer"] for each in rows for row in each["sqa3d"]
        ],
    }
    for answers in firsts.values():
        for pair in (("yes", "no"), ("left", "right")):
            of_kind = shares([answer for answer in answers if answer in pair])
            assert max(of_kind.values()) < 0.6, of_kind
        colours = shares([answer for answer in answers if answer in PALETTE])
        assert len(colours) == len(PALETTE)
        assert max(colours.values()) < 2.2 / len(PALETTE), colours
        numbers = shares([answer for answer in answers if answer in NUMBERS])
        assert max(numbers.values()) < 0.55, numbers


@pytest.mark.parametrize("opening", ["Is there", "Can I look at"])
def test_the_situation_does_not_tell_yes_from_no(rows: list[dict], opening: str) -> None:
    """Facing, turned away or sitting: either answer is about as likely."""
    told: dict[str, list[str]] = {}
    for each in rows:
        for row in each["sqa3d"]:
            if row["question"]["question"].startswith(opening):
                kind = row["question"]["situation"].split(" the ")[0]
                told.setdefault(kind, []).append(row["annotation"]["answers"][0]["answer"])
    for kind, answers in told.items():
        if len(answers) > 40:
            assert 0.3 < shares(answers)["yes"] < 0.7, kind


def test_a_room_of_few_names_has_fewer_questions() -> None:
    """A door and chairs of one colour: all situations are at the door."""
    room = make_room("office", np.random.default_rng(5))
    kept = ("door", "office chair")
    pieces = tuple(
        replace(piece, label=piece.label if piece.label in kept else "wall", colour="red")
        for piece in room.pieces
    )
    few = replace(room, pieces=pieces)
    assert len([piece for piece in few.furniture if piece.label == "office chair"]) > 1
    asked = make_situated_questions(few, 24, np.random.default_rng(0))
    assert 0 < len(asked) < 24
    assert {here.named for here, _ in asked} == {
        (piece.id,) for piece in few.furniture if piece.label == "door"
    }
