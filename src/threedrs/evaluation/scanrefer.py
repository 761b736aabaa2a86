"""ScanRefer: one described object a question; the best-scoring proposal is the answer.

Acc@t: share of questions whose answer has an IoU of at least t with the true box, overall and for
objects that are the only one of their class in the scene (unique) or not (multiple).
"""

from collections.abc import Sequence

import numpy as np

from threedrs.errors import DataError
from threedrs.evaluation.benchmark import Benchmark
from threedrs.evaluation.predictions import Prediction
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.scannet.boxes import box_iou_NM

THRESHOLDS = (0.25, 0.5)


def best_proposal_iou(row: Prediction) -> float:
    """Return the IoU of the best-scoring proposal (never the zero target) with the true box.

    Without any proposal it is 0. Of equal scores the first counts.

    Raises:
        DataError: the row has not exactly one true box.
    """
    if len(row.gt) != 1:
        raise DataError(
            f"question {row.id!r} ({row.scene}): ScanRefer needs exactly one true box, "
            f"found {len(row.gt)}"
        )
    if len(row.boxes) == 0:
        return 0.0
    assert row.scores is not None
    best = int(np.argmax(row.scores[:-1]))
    return float(box_iou_NM(row.boxes[best : best + 1], row.gt)[0, 0])


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return Acc@0.25 and Acc@0.5 (``meteor`` plays no part)."""
    iou_Q = np.array([best_proposal_iou(row) for row in rows])
    return {f"acc@{threshold}": mean_metric(iou_Q >= threshold) for threshold in THRESHOLDS}


BENCHMARK = Benchmark(
    name="scanrefer",
    title="ScanRefer",
    paper="https://arxiv.org/abs/1912.08830",
    grounding=True,
    one_true_box=True,
    metrics=tuple(f"acc@{threshold}" for threshold in THRESHOLDS),
    measure=measure,
)
