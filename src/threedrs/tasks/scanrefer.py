"""ScanRefer: find the one object that a description means.

Chen et al., "ScanRefer: 3D Object Localization in RGB-D Scans using Natural Language", ECCV 2020.

The best-scoring proposal is the answer. Acc@t is the share of questions whose answer has an IoU of
at least t with the true box, overall and for objects that are the only one of their class in the
scene (unique) or not (multiple).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.scannet.boxes import box_iou_NM
from threedrs.scannet.label_table import benchmark_class, read_label_table
from threedrs.tasks.annotation_rows import (
    MALFORMED,
    AnnotationFile,
    AnnotationTables,
    PublishedSize,
    Rejection,
    Row,
    RowError,
    check_number,
    check_row,
    field,
    text_field,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import GROUND, Record, conversation
from threedrs.tasks.scene_boxes import SceneBoxes

PROMPT = "<image>Identify the object according to the following description.\n{description}"
PATH = "scanrefer/ScanRefer_filtered_{split}.json"
FILE = AnnotationFile(path=PATH)
OBJECT_TYPES = ("unique", "multiple")
THRESHOLDS = (0.25, 0.5)
_MEANING = "find the one described object: share of questions whose box overlaps the true box by"


def prompt(description: str) -> str:
    """Return the human text that asks for the described object."""
    return PROMPT.format(description=description.capitalize())


@dataclass(frozen=True, kw_only=True)
class Description:
    """A row of ScanRefer's files, which Scan2Cap reads too.

    ``object_type`` is None unless a published converter has written it into the file.
    """

    scene: str
    object_id: int
    object_name: str
    annotation: int
    text: str
    object_type: str | None


def read_description(row: Row, scenes: SceneBoxes) -> Description:
    """Return the row's fields, checked.

    Raises:
        RowError: a field is missing, malformed or empty, or the scene is not known.
    """
    object_type = row.get("eval_type")
    if object_type not in (None, *OBJECT_TYPES):
        raise RowError(
            MALFORMED, f"eval_type is {object_type!r}, none of {', '.join(OBJECT_TYPES)}"
        )
    return Description(
        scene=scenes.scene_of(row),
        object_id=check_number(field(row, "object_id"), "object_id"),
        object_name=text_field(row, "object_name"),
        annotation=check_number(field(row, "ann_id"), "ann_id"),
        text=text_field(row, "description"),
        object_type=object_type,
    )


def object_types(source: AnnotationTables) -> Callable[[Description], str | None]:
    """Return the function from a description to unique or multiple.

    An object is unique if the file's descriptions name no other one of its class in its scene.
    """
    described = []
    for row in source.tables[0]:
        with suppress(RowError):  # reported when the row is converted
            described.append(read_description(check_row(row), source.scenes))
    if source.labels_file is None or all(one.object_type for one in described):
        # The label table is not asked for: published folders do not hold it.
        return lambda one: one.object_type
    table = read_label_table(source.labels_file)
    objects: dict[tuple[str, int], set[int]] = defaultdict(set)
    for one in described:
        objects[one.scene, benchmark_class(table, one.object_name)].add(one.object_id)

    def type_of(one: Description) -> str:
        same_class = objects[one.scene, benchmark_class(table, one.object_name)]
        return one.object_type or OBJECT_TYPES[len(same_class) > 1]

    return type_of


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a description."""
    type_of = object_types(source)

    def make(number: int, row: Row) -> list[Record]:
        described = read_description(row, source.scenes)
        (box,) = source.scenes.ground_truth(described.scene, [described.object_id])
        return [
            Record(
                id=str(number),
                benchmark="scanrefer",
                scene=described.scene,
                conversations=conversation(prompt(described.text), GROUND),
                question_type=type_of(described),
                ann_id=described.annotation,
                object_ids=[described.object_id],
                box=box,
            )
        ]

    yield from source.each_row(make)


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
    published_scores=published_scores("scanrefer"),
    published_details={
        "unique": {"acc@0.25": 87.4, "acc@0.5": 77.9},
        "multiple": {"acc@0.25": 57.0, "acc@0.5": 50.8},
    },
    judged_by="acc@0.25",
)
