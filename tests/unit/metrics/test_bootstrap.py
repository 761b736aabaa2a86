"""The bootstrap against a slow loop, and the properties that an interval must have."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from threedrs.metrics.bootstrap import Metric, Unavailable, estimate, mean_metric
from threedrs.metrics.captions import bleu_metrics

SCENES = ["scene0000_00", "scene0001_00", "scene0001_00", "scene0002_00", "scene0002_00"] * 4


def slow_interval(score, scenes, resamples, seed):
    """Draw scenes, collect their questions one by one, score them anew."""
    names = sorted(set(scenes))
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
    values = []
    for drawn in counts:
        rows = []
        for name, times in zip(names, drawn, strict=True):
            rows += [row for row, scene in enumerate(scenes) if scene == name] * int(times)
        values.append(score(rows))
    return np.percentile(values, [2.5, 97.5])


def test_a_mean_equals_the_slow_loop():
    values = np.random.default_rng(1).random(len(SCENES))
    result = estimate({"m": mean_metric(values)}, SCENES, resamples=50, seed=3)["m"]
    low, high = slow_interval(lambda rows: 100 * np.mean(values[rows]), SCENES, 50, 3)
    assert result["value"] == pytest.approx(100 * values.mean())
    assert (result["low"], result["high"]) == pytest.approx((low, high))


def test_bleu_equals_the_slow_loop():
    generator = np.random.default_rng(2)
    words = ["a", "brown", "chair", "table", "near"]

    def text():
        return " ".join(generator.choice(words, size=generator.integers(2, 8)))

    predictions = [text() for _ in SCENES]
    references = [[text(), text()] for _ in SCENES]

    def bleu2(rows):
        chosen = [predictions[row] for row in rows], [references[row] for row in rows]
        return bleu_metrics(*chosen)["bleu2"].value()

    metrics = {"bleu2": bleu_metrics(predictions, references)["bleu2"]}
    result = estimate(metrics, SCENES, resamples=30, seed=5)["bleu2"]
    low, high = slow_interval(bleu2, SCENES, 30, 5)
    assert result["value"] == pytest.approx(bleu2(range(len(SCENES))))
    assert result["low"] == pytest.approx(min(low, result["value"]))
    assert result["high"] == pytest.approx(max(high, result["value"]))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_interval_holds_the_value_and_stays_in_bounds(questions):
    values = [value for value, _ in questions]
    scenes = [f"scene{scene:04d}_00" for _, scene in questions]
    assume(len(set(scenes)) > 1)
    result = estimate({"m": mean_metric(values)}, scenes, resamples=40)["m"]
    assert -1e-9 <= result["low"] <= result["value"] <= result["high"] <= 100 + 1e-9


def test_it_is_deterministic_and_blind_to_order():
    values = np.random.default_rng(4).random(len(SCENES))
    first = estimate({"m": mean_metric(values)}, SCENES, resamples=300)
    assert estimate({"m": mean_metric(values)}, SCENES, resamples=300) == first
    order = np.random.default_rng(5).permutation(len(SCENES))
    turned = estimate({"m": mean_metric(values[order])}, [SCENES[i] for i in order], resamples=300)
    assert turned["m"] == pytest.approx(first["m"])
    assert estimate({"m": mean_metric(values)}, SCENES, resamples=300, seed=1) != first


def test_one_scene_has_no_interval():
    metric = mean_metric([0.0, 1.0])
    assert estimate({"m": metric}, ["scene0000_00"] * 2, resamples=20)["m"] == {
        "value": 50.0,
        "low": None,
        "high": None,
    }


def test_scenes_are_the_clusters():
    # All questions of a scene agree: 100 questions are worth no more than their 4 scenes.
    values = np.repeat([0.0, 0.0, 1.0, 1.0], 25)
    clustered = np.repeat([f"scene{i:04d}_00" for i in range(4)], 25).tolist()
    apart = [f"scene{i:04d}_00" for i in range(100)]
    wide = estimate({"m": mean_metric(values)}, clustered, resamples=500)["m"]
    narrow = estimate({"m": mean_metric(values)}, apart, resamples=500)["m"]
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])


def test_no_resamples_no_bounds_and_unavailable_stays_so():
    metrics = {"m": mean_metric([1.0]), "meteor": Unavailable(reason="no Java")}
    assert estimate(metrics, ["scene0000_00"], resamples=0) == {
        "m": {"value": 100.0, "low": None, "high": None},
        "meteor": {"value": None, "low": None, "high": None, "unavailable": "no Java"},
    }


def test_more_resamples_than_a_block():
    def spy(sums):
        blocks.append(len(sums))
        return sums[:, 0]

    blocks: list[int] = []
    metric = Metric(statistics_QS=np.ones((2, 1)), combine=spy)
    estimate({"m": metric}, ["scene0000_00", "scene0001_00"], resamples=600)
    assert sum(blocks) == 601  # and one for the value itself
    assert max(blocks) <= 256
