"""ScanRefer: find the one object that a description means.

Chen et al., "ScanRefer: 3D Object Localization in RGB-D Scans using Natural Language", ECCV 2020.

The best-scoring proposal is the answer. Acc@t is the share of questions whose answer has an IoU of
at least t with the true box, overall and for objects that are the only one of their class in the
scene (unique) or not (multiple).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from threedrs.io.external_json import ExternalRow
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.scannet.boxes import box_iou_NM
from threedrs.scannet.label_table import benchmark_class, read_label_table
from threedrs.tasks.annotation_rows import (
    AnnotationFile,
    AnnotationTables,
    Integer,
    PublishedSize,
    Rejection,
    RowError,
    Words,
    parse_row,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import GROUND, Record, conversation

PROMPT = "<image>Identify the object according to the following description.\n{description}"
PATH = "scanrefer/ScanRefer_filtered_{split}.json"
FILE = AnnotationFile(path=PATH)
THRESHOLDS = (0.25, 0.5)
_MEANING = "find the one described object: share of questions whose box overlaps the true box by"


class Description(ExternalRow):
    """A row of ScanRefer's files, which Scan2Cap reads too."""

    scene_id: Words
    object_id: Integer
    object_name: Words
    ann_id: Integer
    description: Words
    # A published converter has written it into some files.
    eval_type: Literal["unique", "multiple"] | None = None


def object_types(source: AnnotationTables) -> Callable[[Description], str | None]:
    """Return the function from a description to unique or multiple.

    An object is unique if the file's descriptions name no other one of its class in its scene.
    """
    described = []
    for row in source.tables[0]:
        with suppress(RowError):  # reported when the row is converted
            one = parse_row(Description, row)
            source.scenes.check_scene(one.scene_id)
            described.append(one)
    if source.labels_file is None or all(one.eval_type for one in described):
        # The label table is not asked for: published folders do not hold it.
        return lambda one: one.eval_type
    table = read_label_table(source.labels_file)
    objects: dict[tuple[str, int], set[int]] = defaultdict(set)
    for one in described:
        objects[one.scene_id, benchmark_class(table, one.object_name)].add(one.object_id)

    def type_of(one: Description) -> str:
        same_class = objects[one.scene_id, benchmark_class(table, one.object_name)]
        return one.eval_type or ("multiple" if len(same_class) > 1 else "unique")

    return type_of


def described(
    source: AnnotationTables,
    number: int,
    row: Description,
    type_of: Callable[[Description], str | None],
) -> dict[str, Any]:
    """Return what the records of ScanRefer and Scan2Cap take from a description, by field.

    Raises:
        RowError: the scene is not known, or the object has no box.
    """
    scene = source.scenes.check_scene(row.scene_id)
    (box,) = source.scenes.ground_truth(scene, [row.object_id])
    return {
        "id": str(number),
        "scene": scene,
        "question_type": type_of(row),
        "ann_id": row.ann_id,
        "object_ids": [row.object_id],
        "box": box,
    }


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a description."""
    type_of = object_types(source)

    def make(number: int, row: Description) -> list[Record]:
        fields = described(source, number, row, type_of)
        human = PROMPT.format(description=row.description.capitalize())
        turns = conversation(human, GROUND)
        return [Record(benchmark="scanrefer", conversations=turns, **fields)]

    yield from source.each_row(Description, make)


def best_proposal(scores: np.ndarray) -> np.ndarray:
    """Return the row of the best-scoring proposal, as an array; empty without proposals.

    Never the zero target, which stands last in ``scores`` (N+1,). Of equal scores the first counts.
    """
    proposals = scores[:-1]
    return np.array([np.argmax(proposals)] if len(proposals) else [], dtype=np.int64)


def best_proposal_iou(row: Prediction) -> float:
    """Return the IoU of the best-scoring proposal with the true box; 0 without any proposal."""
    assert row.scores is not None
    assert len(row.gt) == 1, "checked where rows are read"
    chosen = best_proposal(row.scores)
    return float(box_iou_NM(row.boxes[chosen], row.gt)[0, 0]) if len(chosen) else 0.0


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return Acc@0.25 and Acc@0.5 (``meteor`` plays no part)."""
    iou_Q = np.array([best_proposal_iou(row) for row in rows])
    return {f"acc@{threshold}": mean_metric(iou_Q >= threshold) for threshold in THRESHOLDS}


TASK = Task(
    name="scanrefer",
    title="ScanRefer",
    paper="https://arxiv.org/abs/1912.08830",
    protocol=1,
    dataset="scanrefer",
    files=(FILE,),
    splits=("train", "val"),
    evaluation_split="val",
    published_sizes={
        "train": PublishedSize(rows=36_665, records=36_665),
        "val": PublishedSize(rows=9_508, records=9_508, scenes=141),
    },
    prompt=PROMPT,
    convert=convert,
    objects="one",
    choose=best_proposal,
    metrics=("acc@0.25", "acc@0.5"),
    measure=measure,
    headline=(
        Headline(metric="acc@0.25", title="Acc@0.25", meaning=f"{_MEANING} 25 % or more"),
        Headline(metric="acc@0.5", title="Acc@0.5", meaning=f"{_MEANING} half or more"),
    ),
    types={"unique": "Unique", "multiple": "Multiple"},
    published_scores=published_scores("scanrefer"),
    published_details={
        "unique": {"acc@0.25": 87.4, "acc@0.5": 77.9},
        "multiple": {"acc@0.25": 57.0, "acc@0.5": 50.8},
    },
    judged_by="acc@0.25",
)
