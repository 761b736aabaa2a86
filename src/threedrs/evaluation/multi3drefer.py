"""Multi3DRefer: none, one or several described objects a question; F1 by optimal matching.

Which proposals are predicted: none if the zero target scores best; otherwise the scores are turned
into probabilities by a softmax at temperature 0.07 over all rows, the zero target is dropped, and
proposals are taken in falling order until their sum reaches 0.4.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.predictions import Prediction
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.scannet.boxes import box_iou_NM

THRESHOLDS = (0.25, 0.5)
TEMPERATURE = 0.07
PROBABILITY = 0.4


def predicted_proposals(scores: np.ndarray) -> np.ndarray:
    """Return the rows of the predicted proposals, best first.

    Args:
        scores: (N+1,) float64 cosine scores, the zero target last.
    """
    if int(np.argmax(scores)) == len(scores) - 1:
        return np.zeros(0, dtype=np.int64)
    weights = np.exp((scores - scores.max()) / TEMPERATURE)
    probabilities_N = (weights / weights.sum())[:-1]
    order = np.argsort(-probabilities_N, kind="stable")
    reached = np.cumsum(probabilities_N[order]) >= PROBABILITY
    # The zero target is not the best, so the proposals hold at least half of the probability.
    return order[: int(np.argmax(reached)) + 1]


def f1_scores(predicted: np.ndarray, true: np.ndarray) -> tuple[float, ...]:
    """Return the question's F1 at each threshold.

    The matching maximises the summed IoU (Hungarian method); a matched pair of IoU >= t is a true
    positive. Nothing predicted and nothing true is 1; only one of them empty is 0.

    Args:
        predicted: (P, 6) boxes.
        true: (M, 6) boxes.
    """
    if len(predicted) == 0 or len(true) == 0:
        return (float(len(predicted) == len(true)),) * len(THRESHOLDS)
    iou_PM = box_iou_NM(predicted, true)
    matched = iou_PM[linear_sum_assignment(iou_PM, maximize=True)]
    boxes = len(predicted) + len(true)
    return tuple(2.0 * int((matched >= threshold).sum()) / boxes for threshold in THRESHOLDS)


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return F1@0.25 and F1@0.5, mean over questions (``meteor`` plays no part)."""
    scores_Q2 = np.empty((len(rows), len(THRESHOLDS)))
    for index, row in enumerate(rows):
        assert row.scores is not None
        scores_Q2[index] = f1_scores(row.boxes[predicted_proposals(row.scores)], row.gt)
    return {f"f1@{t}": mean_metric(scores_Q2[:, i]) for i, t in enumerate(THRESHOLDS)}


BENCHMARK = Benchmark(
    name="multi3drefer",
    title="Multi3DRefer",
    paper="https://arxiv.org/abs/2309.05251",
    grounding=True,
    metrics=tuple(f"f1@{threshold}" for threshold in THRESHOLDS),
    measure=measure,
)
