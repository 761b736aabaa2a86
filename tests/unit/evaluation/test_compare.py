"""Settings compared question by question; Holm's correction by hand; the per-question file."""

from itertools import product

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.evaluation.compare import (
    PerQuestion,
    compare,
    holm,
    read_per_question,
    write_per_question,
)
from threedrs.metrics.bootstrap import Unavailable, mean_metric
from threedrs.metrics.captions import bleu_metrics
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS

SCENES = tuple(f"scene{number % 8:04d}_00" for number in range(40))
IDS = tuple(f"q{number}" for number in range(40))


def questions(values, scenes=SCENES, ids=IDS, **others):
    return PerQuestion(
        ids=ids,
        scenes=scenes,
        question_types=("",) * len(ids),
        metrics={"em": mean_metric(values), **others},
    )


def values(seed, share=0.5):
    return (np.random.default_rng(seed).random(40) < share).astype(float)


def sides(counts, shares=(0.6, 0.5)):
    """Runs of two settings, each with its own seeds."""
    return tuple(
        [questions(values(100 * side + seed, share)) for seed in range(count)]
        for side, (count, share) in enumerate(zip(counts, shares, strict=True))
    )


def test_one_training_has_a_difference_and_no_more():
    for counts in ((1, 1), (1, 4), (4, 1)):
        mine, other = sides(counts)
        one = compare(mine, other)["em"]
        means = [np.mean([run.metrics["em"].value() for run in side]) for side in (mine, other)]
        assert one.difference == pytest.approx(means[0] - means[1])
        assert (one.spread, one.p) == (None, None)
        shown = one.to_json()
        assert (shown["low"], shown["high"], shown["seeds_share"]) == (None, None, None)
        assert (shown["seeds"], shown["scenes"], shown["questions"]) == ([*counts], 8, 40)


def test_two_seeds_have_an_interval_and_no_p():
    one = compare(*sides((2, 5)))["em"]
    assert one.p is None
    shown = one.to_json()
    assert shown["low"] < shown["difference"] < shown["high"]
    assert shown["low"] + shown["high"] == pytest.approx(2 * shown["difference"])


def test_from_three_seeds_p_is_the_larger_of_two():
    mine, other = sides((3, 4))
    one = compare(mine, other)["em"]
    rooms = sorted(set(SCENES))
    by_room = [
        [
            [
                sum(v for v, scene in zip(run.values("em"), SCENES, strict=True) if scene == room)
                for room in rooms
            ]
            for run in side
        ]
        for side in (mine, other)
    ]
    # Every room has five questions, so the mean of rooms is that of questions.
    means = [np.mean(np.array(side) / 5, axis=0) for side in by_room]
    seen = abs(np.mean(means[0] - means[1]))
    turned = [
        abs(np.mean(np.array(signs) * (means[0] - means[1])))
        for signs in product([1, -1], repeat=len(rooms))
    ]
    swapped = np.mean([value >= seen - 1e-9 for value in turned])
    assert one.p == pytest.approx(max(swapped, float(one.spread.p_value())))
    assert one.to_json()["smallest_p"] == 2 / 2**8


def test_six_rooms_cannot_give_less_than_an_exact_swap():
    """All seeds right against all wrong: beyond doubt for seeds, but six rooms are six rooms."""
    scenes = tuple(f"scene{number % 6:04d}_00" for number in range(40))
    right, wrong = ([questions(np.full(40, v), scenes)] * 3 for v in (1.0, 0.0))
    nearly = questions(np.append(np.ones(39), 0.0), scenes)
    assert compare([*right[:2], nearly], wrong)["em"].p == 2 / 2**6
    # Where no training differs, exchanging them is the test: 20 ways, two of them as far apart.
    assert compare(right, wrong)["em"].p == 2 / 20
    assert compare(right * 2, wrong)["em"].p == 2 / 2**6  # 84 ways


def test_one_room_has_no_interval():
    scenes = ("scene0000_00",) * 40
    runs = [questions(values(seed), scenes) for seed in range(6)]
    one = compare(runs[:3], runs[3:])["em"]
    assert (one.spread, one.p, one.scenes) == (None, None, 1)


def test_questions_are_paired_by_id():
    mine, other = sides((3, 3))
    order = np.random.default_rng(0).permutation(40)
    turned = [
        questions(
            run.values("em")[order] / 100,
            tuple(SCENES[i] for i in order),
            tuple(IDS[i] for i in order),
        )
        for run in mine
    ]
    one, expected = compare(turned, other)["em"], compare(mine, other)["em"]
    assert one.difference == pytest.approx(expected.difference)
    assert one.spread.interval() == pytest.approx(expected.spread.interval())
    assert one.p == pytest.approx(expected.p)


def test_the_same_answers_differ_by_nothing():
    mine, _ = sides((3, 3))
    shown = compare(mine, mine)["em"].to_json()
    assert (shown["difference"], shown["p"]) == (0, 1.0)
    assert shown["low"] == -shown["high"]


def test_turning_the_sides_turns_the_sign():
    mine, other = sides((3, 4))
    there, back = compare(mine, other)["em"].to_json(), compare(other, mine)["em"].to_json()
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
    assert back["p"] == pytest.approx(there["p"])


def test_only_shared_metrics_and_shared_questions():
    extra = questions(values(1), bleu1=mean_metric(values(3)))
    assert list(compare([extra], [questions(values(2))])) == ["em"]
    fewer = questions(values(1)[:39], SCENES[:39], IDS[:39])
    renamed = questions(values(1), ids=(*IDS[:39], "r39"))
    for mine, other, found in (
        (fewer, extra, "39 questions, the baseline 40, among them 'q39'; predict both"),
        (extra, fewer, "40 questions, the baseline 39; predict both"),
        (renamed, extra, "40 questions, the baseline 40, among them 'q39'; predict both"),
    ):
        with pytest.raises(DataError, match=f"one answered {found}"):
            compare([mine], [other])


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.04 x 2 (0.08), 0.05 x 1 but never below the one before.
    corrected = holm({"a": 0.04, "b": 0.01, "c": 0.05, "d": 0.02})
    assert corrected == pytest.approx({"b": 0.04, "d": 0.06, "a": 0.08, "c": 0.08})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


@pytest.fixture
def rows():
    return [
        Prediction(id=f"q{i}", benchmark="scanqa", scene=SCENES[i], question_type=kind)
        for i, kind in enumerate(["what", None, "is"])
    ]


def test_the_per_question_file_keeps_every_metric(tmp_path, rows):
    texts = ["a brown chair", "", "the red table"], [["a brown chair"], ["x y"], ["a red table"]]
    metrics = {"em": mean_metric([1, 0, 0]), **bleu_metrics(*texts)}
    path = tmp_path / "per_question.npz"
    write_per_question(path, rows, {**metrics, "meteor": Unavailable(reason="no Java")})
    read = read_per_question(path, TASKS["scanqa"])
    assert read.ids == ("q0", "q1", "q2")
    assert read.question_types == ("what", "", "is")
    assert set(read.metrics) == {"em", "bleu1", "bleu2", "bleu3", "bleu4"}
    for name, metric in metrics.items():
        assert read.metrics[name].value() == metric.value()
    assert read.values("em").tolist() == [100, 0, 0]
    assert read.values("bleu1")[2] == pytest.approx(200 / 3)
    first = path.read_bytes()
    write_per_question(path, rows, {**metrics, "meteor": Unavailable(reason="no Java")})
    assert path.read_bytes() == first


def test_bad_per_question_files_are_named(tmp_path):
    path = tmp_path / "per_question.npz"
    with pytest.raises(DataError, match="there is no such file; score the predictions again"):
        read_per_question(path, TASKS["scanqa"])
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="is damaged"):
        read_per_question(path, TASKS["scanqa"])
    np.savez(path, format_version=np.array(9), id=np.array(["q"]))
    with pytest.raises(DataError, match="is not a per-question file of format version 1"):
        read_per_question(path, TASKS["scanqa"])
    np.savez(path, id=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is damaged"):
        read_per_question(path, TASKS["scanqa"])
