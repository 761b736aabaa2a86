"""ScanRefer's accuracy and Multi3DRefer's F1 against hand-computed cases and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.scored_rows import score_rows
from threedrs.tasks.multi3drefer import f1_scores, predicted_proposals
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.registry import TASKS


def box(x: float, size: float = 1.0) -> list[float]:
    return [x, 0.0, 0.0, size, 1.0, 1.0]


def row(name, scores, boxes, gt, benchmark="scanrefer", kind=None, scene="scene0000_00"):
    return Prediction(
        id=name,
        benchmark=benchmark,
        scene=scene,
        question_type=kind,
        scores=np.array(scores, dtype=float),
        boxes=np.array(boxes, dtype=float).reshape(-1, 6),
        gt=np.array(gt, dtype=float).reshape(-1, 6),
    )


def values(rows, benchmark):
    result = score_rows(rows, TASKS[benchmark])
    return {name: estimate["value"] for name, estimate in result["metrics"].items()}


def slow_iou(a, b):
    shared = 1.0
    for axis in range(3):
        low = max(a[axis] - a[axis + 3] / 2, b[axis] - b[axis + 3] / 2)
        high = min(a[axis] + a[axis + 3] / 2, b[axis] + b[axis + 3] / 2)
        shared *= max(0.0, high - low)
    union = a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared
    return shared / (union + 1e-8)


def test_accuracy_by_hand():
    # Unit boxes shifted by s along x overlap by (1 - s) / (1 + s).
    rows = [
        row("exact", [0.9, 0.1, 0.0], [box(0), box(5)], [box(0)], kind="unique"),
        row("iou 0.6", [0.9, 0.0], [box(0.25)], [box(0)], kind="unique"),
        row("iou 1/3", [0.9, 0.0], [box(0.5)], [box(0)], kind="multiple"),
        row("iou 1/7", [0.9, 0.0], [box(0.75)], [box(0)], kind="multiple"),
    ]
    assert values(rows, "scanrefer") == {"acc@0.25": 75.0, "acc@0.5": 50.0}
    result = score_rows(rows, TASKS["scanrefer"])
    assert result["n"] == 4
    assert result["by_type"]["unique"]["n"] == 2
    assert result["by_type"]["unique"]["metrics"]["acc@0.5"]["value"] == 100.0
    assert result["by_type"]["multiple"]["metrics"]["acc@0.25"]["value"] == 50.0


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_a_box_counts_from_the_threshold_on(threshold):
    shift = (1 - threshold) / (1 + threshold)  # of which the IoU is the threshold
    for change, expected in ((-1e-3, 100.0), (1e-3, 0.0)):
        rows = [row("a", [0.9, 0.0], [box(shift + change)], [box(0)])]
        assert values(rows, "scanrefer")[f"acc@{threshold}"] == expected


def test_the_zero_target_is_never_scanrefers_answer():
    assert values([row("a", [0.1, 0.9], [box(0)], [box(0)])], "scanrefer")["acc@0.5"] == 100.0


def test_no_proposal_is_a_wrong_answer():
    assert values([row("a", [0.9], [], [box(0)])], "scanrefer")["acc@0.25"] == 0.0


def test_a_threshold_is_met_from_above():
    # The 1e-8 in the denominator keeps an IoU of exactly one half just below it.
    half = row("a", [0.9, 0], [box(0, size=2)], [box(0.5)])
    assert values([half], "scanrefer") == {"acc@0.25": 100.0, "acc@0.5": 0.0}


def test_predicted_proposals_by_hand():
    # Temperature 0.07: a score lower by 0.07 weighs 1/e.
    assert predicted_proposals(np.array([0.5, 0.1, 0.9])).tolist() == []
    assert predicted_proposals(np.array([0.9, 0.1, 0.5])).tolist() == [0]
    assert predicted_proposals(np.array([0.1, 0.9, 0.5])).tolist() == [1]
    # Three equal proposals hold a third each: two are needed to reach 0.4, in row order.
    assert predicted_proposals(np.array([0.5, 0.5, 0.5, -1.0])).tolist() == [0, 1]
    # 1/(1+1/e) = 0.73 >= 0.4: one is enough.
    assert predicted_proposals(np.array([0.43, 0.5, -1.0])).tolist() == [1]
    assert predicted_proposals(np.array([0.3])).tolist() == []


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_predicted_proposals_equal_the_page(scores):
    chosen = []
    if scores.index(max(scores)) != len(scores) - 1:
        weights = [np.exp((s - max(scores)) / 0.07) for s in scores]
        ranked = sorted(range(len(scores) - 1), key=lambda i: (-weights[i], i))
        total = 0.0
        for i in ranked:
            chosen.append(i)
            total += weights[i] / np.sum(weights)
            if total >= 0.4:
                break
    assert predicted_proposals(np.array(scores)).tolist() == chosen


def test_f1_by_hand():
    none = np.zeros((0, 6))
    one = np.array([box(0)])
    assert f1_scores(none, none) == (1.0, 1.0)
    assert f1_scores(one, none) == (0.0, 0.0)
    assert f1_scores(none, one) == (0.0, 0.0)
    assert f1_scores(one, one) == (1.0, 1.0)
    # Two predicted, one of them right, one true: 2 * 1 / (2 + 1).
    assert f1_scores(np.array([box(0), box(9)]), one) == pytest.approx((2 / 3, 2 / 3))
    # One true box is matched once, however many proposals lie on it.
    assert f1_scores(np.array([box(0), box(0)]), one) == pytest.approx((2 / 3, 2 / 3))
    # IoU 1/3: counts at 0.25 only.
    assert f1_scores(np.array([box(0.5)]), one) == (1.0, 0.0)


def slow_f1(predicted, true):
    """Every way to match, the one of the largest summed IoU."""
    if not len(predicted) or not len(true):
        return [float(len(predicted) == len(true))] * 2
    small, large = sorted([list(predicted), list(true)], key=len)
    best = max(
        itertools.permutations(range(len(large)), len(small)),
        key=lambda order: sum(slow_iou(small[i], large[j]) for i, j in enumerate(order)),
    )
    overlaps = [slow_iou(small[i], large[j]) for i, j in enumerate(best)]
    return [2 * sum(o >= t for o in overlaps) / (len(small) + len(large)) for t in (0.25, 0.5)]


@settings(max_examples=60)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10**6))
def test_f1_equals_brute_force(predicted, true, seed):
    generator = np.random.default_rng(seed)

    def boxes(count):
        centres = generator.uniform(0, 1.2, (count, 3))
        return np.concatenate([centres, generator.uniform(0.5, 1.5, (count, 3))], axis=1)

    a, b = boxes(predicted), boxes(true)
    assert f1_scores(a, b) == pytest.approx(tuple(slow_f1(a, b)))


def random_rows(benchmark, count, seed=0):
    generator = np.random.default_rng(seed)
    for index in range(count):
        proposals = generator.integers(1, 6)
        boxes = np.concatenate(
            [generator.uniform(0, 2, (proposals, 3)), generator.uniform(0.5, 2, (proposals, 3))], 1
        )
        true = boxes[:1] if benchmark == "scanrefer" else boxes[: generator.integers(0, 3)]
        yield row(
            str(index),
            generator.uniform(-1, 1, proposals + 1),
            boxes,
            true + 0.05,
            benchmark=benchmark,
            kind=["a", "b"][index % 2],
            scene=f"scene{index % 5:04d}_00",
        )


@pytest.mark.parametrize("benchmark", ["scanrefer", "multi3drefer"])
def test_scores_are_bounded_and_independent_of_order(benchmark):
    rows = list(random_rows(benchmark, 40))
    result = score_rows(rows, TASKS[benchmark], bootstrap=200)
    turned = score_rows(rows[::-1], TASKS[benchmark], bootstrap=200)
    for name, estimate in result["metrics"].items():
        assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 100
        for key in ("value", "low", "high"):
            assert turned["metrics"][name][key] == pytest.approx(estimate[key])
    weighted = sum(
        group["n"] * group["metrics"][TASKS[benchmark].metrics[0]]["value"]
        for group in result["by_type"].values()
    )
    overall = result["metrics"][TASKS[benchmark].metrics[0]]["value"]
    assert weighted / len(rows) == pytest.approx(overall)


def test_perfect_grounding_is_100():
    boxes = [box(0), box(5), box(9)]
    rows = [
        row("one", [0.9, 0.0, 0.0, 0.1], boxes, [box(0)], "multi3drefer"),
        row("two", [0.9, 0.9, 0.9, 0.0], boxes, [box(5), box(0)], "multi3drefer"),
        row("none", [0.1, 0.1, 0.1, 0.9], boxes, [], "multi3drefer"),
    ]
    assert values(rows, "multi3drefer") == {"f1@0.25": 100.0, "f1@0.5": 100.0}
    rows = [row("one", [0.9, 0.1], [box(0)], [box(0)]) for _ in range(3)]
    assert values(rows, "scanrefer") == {"acc@0.25": 100.0, "acc@0.5": 100.0}
