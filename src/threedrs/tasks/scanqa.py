"""ScanQA: free-form answers to questions about a scene.

Azuma et al., "ScanQA: 3D Question Answering for Spatial Scene Understanding", CVPR 2022.

The caption metrics see the prediction without its trailing dots, the references as they are.
``em`` compares the prediction verbatim; ``em_normalised`` compares after SQA3D's normalisation.
"""

from collections.abc import Iterator, Sequence

from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.captions import CAPTION_METRICS, COMBINE, caption_metrics
from threedrs.metrics.exact_match import exact_match_normalised
from threedrs.tasks.annotation_rows import (
    EMPTY_TEXT,
    AnnotationFile,
    AnnotationTables,
    PublishedSize,
    Rejection,
    Row,
    RowError,
    check_text,
    identifier_field,
    list_field,
    text_field,
)
from threedrs.tasks.base import Headline, Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation

PROMPT = "<image> {question} Answer the question simply."
PATH = "scanqa/ScanQA_v1.0_{split}.json"


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record an answer for training, one a question for evaluation."""

    def make(_: int, row: Row) -> list[Record]:
        scene = source.scenes.scene_of(row)
        record_id = f"scanqa_{identifier_field(row, 'question_id')}"
        human = PROMPT.format(question=text_field(row, "question"))
        answers = [check_text(answer, "answer") for answer in list_field(row, "answers")]
        if not answers:
            raise RowError(EMPTY_TEXT, "answers is an empty list")
        if not source.training:
            # Published files count the answers from 0 in evaluation too, where one stands for all.
            return [_record(f"{record_id}_0", scene, human, answers[0], references=answers)]
        return [
            _record(f"{record_id}_{number}", scene, human, answer)
            for number, answer in enumerate(answers)
        ]

    yield from source.each_row(make)


def _record(
    record_id: str, scene: str, human: str, answer: str, references: list[str] | None = None
) -> Record:
    return Record(
        id=record_id,
        benchmark="scanqa",
        scene=scene,
        conversations=conversation(human, answer),
        references=references,
    )


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
    published_scores={
        "3DRS (LLaVA-Video)": (104.8, 30.3),
        "its baseline (Video-3D LLM)": (102.1, 30.1),
        "LLaVA-OneVision + 3DRS": (104.0, 29.5),
        "LLaVA-OneVision": (101.7, 29.0),
        "Qwen2-VL + 3DRS": (99.2, 28.9),
        "Qwen2-VL": (97.5, 28.7),
        "LLaVA-3D": (91.7, 27.0),
        "ChatScene": (87.7, 21.6),
        "Inst3D-LLM": (88.6, 24.6),
        "LEO": (101.4, 21.5),
        "Grounded 3D-LLM": (72.7, None),
        "3D-VisTA": (69.6, 22.4),
        "3DRS with SigLIP 2": (100.2, 29.1),
        "3DRS with MAE": (102.5, 29.5),
        "3DRS with DINOv2": (103.5, 29.6),
        "3DRS with FLARE": (104.4, 30.1),
        "3DRS, last and third last layer": (101.4, 29.2),
        "3DRS, last, third and fifth last layer": (102.9, 30.0),
        "3DRS, cosine loss": (104.5, 30.1),
        "3DRS, both losses": (102.7, 29.7),
        "3D-LLaVA": (92.6, None),
        "Chat-3D v2": (87.6, None),
        "Ross3D": (107.0, None),
        "GPT4Scene (Qwen2-VL)": (96.3, None),
        "GPT4Scene (Qwen2.5-VL)": (105.7, None),
        "3D-IDE": (None, 29.8),
        "Imagine3D-LLM": (109.3, None),
        "VLM-3R": (101.9, None),
    },
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
