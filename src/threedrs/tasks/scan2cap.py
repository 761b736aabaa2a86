"""Scan2Cap: describe the object in a given box; annotations are ScanRefer's.

Chen et al., "Scan2Cap: Context-aware Dense Captioning in RGB-D Scans", CVPR 2021.

Evaluation follows the paper's "@0.5": every annotated object counts, but only a detector box with
an IoU of at least 0.5 is described. An object without one has the empty prediction, and it counts.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from threedrs.metrics.bootstrap import Metrics
from threedrs.metrics.captions import CAPTION_METRICS, COMBINE, caption_metrics
from threedrs.tasks.annotation_rows import (
    AnnotationTables,
    PublishedSize,
    Rejection,
    RowError,
    parse_row,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation
from threedrs.tasks.scanrefer import FILE, Description, described, object_types

PROMPT = "<image> Given an object located at <coord> , describe the object in detail."
MINIMUM_IOU = 0.5
_MEANING = "describe an object: closeness to people's descriptions,"


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a description for training, one an object for evaluation."""
    return _training(source) if source.training else _evaluation(source)


def _training(source: AnnotationTables) -> Iterator[Record | Rejection]:
    type_of = object_types(source)

    def make(number: int, row: Description) -> list[Record]:
        fields = described(source, number, row, type_of)
        return [_record([row.description], fields, box_input=fields["box"])]

    yield from source.each_row(Description, make)


def _evaluation(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield a record for each (scene, object id, object name), in order of first occurrence."""
    type_of = object_types(source)
    rows: dict[tuple[str, int, str], list[tuple[int, Description]]] = defaultdict(list)
    for number, row in enumerate(source.tables[0]):
        try:
            one = parse_row(Description, row)
            scene = source.scenes.check_scene(one.scene_id)
        except RowError as error:
            yield source.rejection(number, error)
        else:
            # By name as well: an object that goes by two names is two questions, as published.
            rows[scene, one.object_id, one.object_name].append((number, one))
    for (scene, _, _), members in rows.items():
        try:
            fields = described(source, *members[0], type_of)
            box_input = source.scenes.best_detector_box(scene, fields["box"], MINIMUM_IOU)
        except RowError as error:
            # The list of rejected rows counts rows of the file, and here a question has several.
            for number, _ in members:
                yield source.rejection(number, error)
            continue
        texts = [one.description for _, one in members]
        record = _record(texts, fields, box_input=box_input, references=texts)
        yield from source.of_scene([record], [number for number, _ in members])


def _record(texts: list[str], fields: dict[str, Any], **others: Any) -> Record:
    turns = conversation(PROMPT, texts[0].capitalize())
    return Record(benchmark="scan2cap", conversations=turns, **fields, **others)


def wrapped(text: str) -> str:
    """Return the text as the benchmark compares it: ``sos [text] eos``.

    Lower case, full stops and commas surrounded by spaces.
    """
    return f"sos {text.lower().replace('.', ' . ').replace(',', ' , ')} eos"


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return CIDEr, BLEU-1..4, METEOR and ROUGE-L of the wrapped texts."""
    return caption_metrics(
        [wrapped(row.prediction or "") for row in rows],
        [[wrapped(text) for text in row.references] for row in rows],
        meteor=meteor,
    )


TASK = Task(
    name="scan2cap",
    title="Scan2Cap",
    paper="https://arxiv.org/abs/2012.02206",
    protocol=1,
    dataset="scan2cap",
    references_in="annotations",
    files=(FILE,),
    splits=("train", "val"),
    evaluation_split="val",
    published_sizes={
        "train": PublishedSize(rows=36_665, records=36_665),
        "val": PublishedSize(rows=9_508, records=2_068, scenes=141),
    },
    prompt=PROMPT,
    convert=convert,
    objects="one",
    box_input=True,
    metrics=CAPTION_METRICS,
    measure=measure,
    combine=COMBINE,
    headline=(
        Headline(metric="cider", title="C@0.5", meaning=f"{_MEANING} rare words counting more"),
        Headline(metric="bleu4", title="B-4@0.5", meaning=f"{_MEANING} runs of four words"),
    ),
    further={"meteor": "M@0.5", "rouge_l": "R@0.5"},
    published_scores=published_scores("scan2cap"),
    published_details={"all": {"meteor": 28.97, "rouge_l": 62.29}},
    judged_by="cider",
)
