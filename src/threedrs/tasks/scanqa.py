"""ScanQA: free-form answers to questions about a scene.

Azuma et al., "ScanQA: 3D Question Answering for Spatial Scene Understanding", CVPR 2022.

The caption metrics see the prediction without its trailing dots, the references as they are.
``em`` compares the prediction verbatim; ``em_normalised`` compares after SQA3D's normalisation.
"""

from collections.abc import Iterator, Sequence

from pydantic import Field

from threedrs.io.external_json import ExternalRow
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.captions import CAPTION_METRICS, COMBINE, ORDERS, caption_metrics
from threedrs.metrics.exact_match import exact_match_normalised
from threedrs.tasks.annotation_rows import (
    AnnotationFile,
    AnnotationTables,
    Identifier,
    PublishedSize,
    Rejection,
    Words,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation

PROMPT = "<image> {question} Answer the question simply."
PATH = "scanqa/ScanQA_v1.0_{split}.json"


class Question(ExternalRow):
    """A row of the annotation file."""

    scene_id: Words
    question_id: Identifier
    question: Words
    answers: list[Words] = Field(min_length=1)


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record an answer for training, one a question for evaluation."""

    def make(_: int, row: Question) -> list[Record]:
        scene = source.scenes.check_scene(row.scene_id)
        human = PROMPT.format(question=row.question)
        # Published files count the answers from 0 in evaluation too, where one stands for all.
        return [
            Record(
                id=f"scanqa_{row.question_id}_{number}",
                benchmark="scanqa",
                scene=scene,
                conversations=conversation(human, answer),
                references=None if source.training else row.answers,
            )
            for number, answer in enumerate(row.answers if source.training else row.answers[:1])
        ]

    yield from source.each_row(Question, make)


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return CIDEr, BLEU-1..4, METEOR, ROUGE-L, EM and normalised EM."""
    predictions = [row.prediction or "" for row in rows]
    references = [list(row.references) for row in rows]
    pairs = list(zip(predictions, references, strict=True))
    return {
        "em": mean_metric([text in truths for text, truths in pairs]),  # verbatim
        "em_normalised": mean_metric([exact_match_normalised(*pair) for pair in pairs]),
        **caption_metrics([text.rstrip(".") for text in predictions], references, meteor=meteor),
    }


TASK = Task(
    name="scanqa",
    title="ScanQA",
    paper="https://arxiv.org/abs/2112.10482",
    protocol=1,
    dataset="scanQA",
    references_in="answers",
    untyped="unknow",
    files=(AnnotationFile(path=PATH),),
    splits=("train", "val"),
    evaluation_split="val",
    published_sizes={
        "train": PublishedSize(rows=25_563, records=26_515),
        "val": PublishedSize(rows=4_675, records=4_675, scenes=71),
    },
    prompt=PROMPT,
    convert=convert,
    metrics=("em", "em_normalised", *CAPTION_METRICS),
    measure=measure,
    combine=COMBINE,
    headline=(
        Headline(
            metric="cider", title="C", meaning="answer a question: closeness to people's answers"
        ),
        Headline(
            metric="em",
            title="EM",
            meaning="answer a question: share of answers a person gave verbatim",
        ),
    ),
    further={
        **{f"bleu{order}": f"B-{order}" for order in range(1, ORDERS + 1)},
        "meteor": "M",
        "rouge_l": "R",
    },
    published_scores=published_scores("scanqa"),
    published_details={
        "all": {
            "bleu1": 48.37,
            "bleu2": 32.67,
            "bleu3": 23.79,
            "bleu4": 17.22,
            "rouge_l": 49.82,
            "meteor": 20.47,
        }
    },
    judged_by="em",
)
