"""Multi3DRefer: find all objects that a description means, be it none, one or several.

Zhang et al., "Multi3DRefer: Grounding Text Description to Multiple 3D Objects", ICCV 2023.

No proposal is predicted if the zero target scores best. Otherwise a softmax at temperature 0.07
over all scores gives probabilities, the zero target is dropped, and proposals are taken in falling
order until their sum reaches 0.4. The metric is F1 under the best matching of boxes.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from threedrs.io.external_json import ExternalRow
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.scannet.boxes import box_iou_NM
from threedrs.tasks.annotation_rows import (
    AnnotationFile,
    AnnotationTables,
    Integer,
    PublishedSize,
    Rejection,
    Words,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import GROUND, Record, conversation

PROMPT = (
    "<image>Identify the object according to the following description.\n{description}\n"
    "There may be no corresponding object, or there may be one or more objects."
)
PATH = "multi3drefer/multi3drefer_{split}.json"
THRESHOLDS = (0.25, 0.5)
TEMPERATURE = 0.07
PROBABILITY = 0.4
_MEANING = "find all described objects, or none: F1 of the boxes that overlap a true one by"


class Description(ExternalRow):
    """A row of the annotation file."""

    scene_id: Words
    object_ids: list[Integer]
    ann_id: Integer | None = None
    # zt, st, mt: zero, single, multiple targets; w_d, wo_d: with, without distractors of the class.
    eval_type: Literal["zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"]
    description: Words


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a description."""

    def make(number: int, row: Description) -> list[Record]:
        scene = source.scenes.check_scene(row.scene_id)
        object_ids = [*dict.fromkeys(row.object_ids)]  # each object once, as it can be found once
        human = PROMPT.format(description=row.description.capitalize())
        return [
            Record(
                id=str(number),
                benchmark="multi3drefer",
                scene=scene,
                conversations=conversation(human, GROUND),
                question_type=row.eval_type,
                # A file without ann_id is told apart by the row's number.
                ann_id=number if row.ann_id is None else row.ann_id,
                object_ids=object_ids,
                box=source.scenes.ground_truth(scene, object_ids),
            )
        ]

    yield from source.each_row(Description, make)


def predicted_proposals(scores: np.ndarray) -> np.ndarray:
    """Return the rows of the predicted proposals, best first.

    The zero target stands last in the cosine ``scores`` (N+1,).
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
    """Return the question's F1 of boxes (P, 6) and (M, 6) at each threshold.

    The matching maximises the summed IoU (Hungarian method); a matched pair of IoU >= t is a true
    positive. Nothing predicted and nothing true is 1; only one of them empty is 0.
    """
    # Two seconds to import, and every job of the workflow imports this file.
    from scipy.optimize import linear_sum_assignment

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


TASK = Task(
    name="multi3drefer",
    title="Multi3DRefer",
    paper="https://arxiv.org/abs/2309.05251",
    protocol=1,
    dataset="multi3drefer",
    files=(AnnotationFile(path=PATH),),
    splits=("train", "val"),
    evaluation_split="val",
    published_sizes={
        "train": PublishedSize(rows=43_838, records=43_838),
        "val": PublishedSize(rows=11_120, records=11_120, scenes=141),
    },
    prompt=PROMPT,
    convert=convert,
    objects="any",
    choose=predicted_proposals,
    metrics=("f1@0.25", "f1@0.5"),
    measure=measure,
    headline=(
        Headline(metric="f1@0.25", title="F1@0.25", meaning=f"{_MEANING} 25 % or more"),
        Headline(metric="f1@0.5", title="F1@0.5", meaning=f"{_MEANING} half or more"),
    ),
    types={
        "zt_wo_d": "ZT w/o D",
        "zt_w_d": "ZT w/ D",
        "st_wo_d": "ST w/o D",
        "st_w_d": "ST w/ D",
        "mt": "MT",
    },
    published_scores=published_scores("multi3drefer"),
    published_details={
        # Printed once: where nothing is true, no box is compared, so no threshold plays a part.
        "zt_wo_d": {"f1@0.25": 95.6, "f1@0.5": 95.6},
        "zt_w_d": {"f1@0.25": 79.4, "f1@0.5": 79.4},
        "st_wo_d": {"f1@0.25": 79.6, "f1@0.5": 71.4},
        "st_w_d": {"f1@0.25": 57.0, "f1@0.5": 51.3},
        "mt": {"f1@0.25": 43.0, "f1@0.5": 37.8},
    },
    judged_by="f1@0.25",
)
