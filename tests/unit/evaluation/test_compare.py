"""Paired comparisons against a slow loop; Holm's correction by hand; the per-question file."""

import numpy as np
import pytest

from threedrs.errors import DataError
from threedrs.evaluation.compare import (
    FEWEST_SCENES,
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


def slow_differences(mine, other, resamples, seed):
    """Draw scenes, collect their questions one by one, take the difference of the means."""
    names = sorted(set(SCENES))
    counts = np.random.default_rng(seed).multinomial(8, [1 / 8] * 8, size=resamples)
    differences = []
    for drawn in counts:
        rows = []
        for name, times in zip(names, drawn, strict=True):
            rows += [row for row, scene in enumerate(SCENES) if scene == name] * int(times)
        differences.append(100 * (np.mean(mine[rows]) - np.mean(other[rows])))
    return np.array(differences)


def test_it_equals_the_slow_loop():
    mine, other = values(1, 0.6), values(2, 0.5)
    slow = slow_differences(mine, other, 200, 3)
    result = compare([questions(mine)], [questions(other)], resamples=200, seed=3)["em"]
    assert result["difference"] == pytest.approx(100 * (mine.mean() - other.mean()))
    assert (result["low"], result["high"]) == pytest.approx(np.percentile(slow, [2.5, 97.5]))
    tail = min((slow <= 1e-9).sum(), (slow >= -1e-9).sum())
    assert result["p"] == pytest.approx(min(1, 2 * (tail + 1) / 201))
    assert result["scenes"] == 8


def test_seeds_are_averaged():
    sides = [values(seed) for seed in (1, 2, 3)]
    both = compare([questions(sides[0]), questions(sides[1])], [questions(sides[2])], resamples=50)
    mean = (sides[0] + sides[1]) / 2
    one = compare([questions(mean)], [questions(sides[2])], resamples=50)
    assert both["em"] == pytest.approx(one["em"])


def test_questions_are_paired_by_id():
    mine, other = values(1), values(2)
    order = np.random.default_rng(0).permutation(40)
    turned = questions(mine[order], tuple(SCENES[i] for i in order), tuple(IDS[i] for i in order))
    expected = compare([questions(mine)], [questions(other)], resamples=50)
    assert compare([turned], [questions(other)], resamples=50) == expected


def test_the_same_answers_differ_by_nothing():
    result = compare([questions(values(1))], [questions(values(1))], resamples=100)["em"]
    assert (result["difference"], result["low"], result["high"], result["p"]) == (0, 0, 0, 1.0)


def test_turning_the_sides_turns_the_sign():
    mine, other = questions(values(1, 0.7)), questions(values(2))
    there = compare([mine], [other], resamples=100)["em"]
    back = compare([other], [mine], resamples=100)["em"]
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))
    assert back["p"] == there["p"]


@pytest.mark.parametrize(
    ("count", "interval", "p"), [(1, False, False), (5, True, False), (6, True, True)]
)
def test_few_scenes_give_no_p(count, interval, p):
    assert FEWEST_SCENES == 6
    scenes = tuple(f"scene{number % count:04d}_00" for number in range(40))
    sides = [questions(values(seed), scenes) for seed in (1, 2)]
    result = compare(sides[:1], sides[1:], resamples=50)["em"]
    assert (result["low"] is not None, result["p"] is not None) == (interval, p)
    assert result["difference"] is not None


def test_only_shared_metrics_and_shared_questions():
    extra = questions(values(1), bleu1=mean_metric(values(3)))
    assert list(compare([extra], [questions(values(2))], resamples=0)) == ["em"]
    fewer = questions(values(1)[:39], SCENES[:39], IDS[:39])
    with pytest.raises(
        DataError, match="one answered 39 questions, the baseline 40, among them 'q39'"
    ):
        compare([fewer], [extra], resamples=0)


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


def test_bad_per_question_files_are_named(tmp_path, rows):
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
    write_per_question(path, rows, {"em": mean_metric([1, 0])})
    with pytest.raises(DataError, match="its arrays do not fit together"):
        read_per_question(path, TASKS["scanqa"])
