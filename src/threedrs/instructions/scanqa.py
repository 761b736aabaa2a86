"""ScanQA: free-form answers to questions about a scene.

Azuma et al., "ScanQA: 3D Question Answering for Spatial Scene Understanding", CVPR 2022.
"""

from collections.abc import Iterator

from threedrs.instructions.benchmark import (
    AnnotationFile,
    Benchmark,
    Published,
    Rejection,
    Source,
)
from threedrs.instructions.record import Record, conversation
from threedrs.instructions.rows import (
    EMPTY_TEXT,
    Row,
    RowError,
    check_text,
    identifier_field,
    list_field,
    text_field,
)

PROMPT = "<image> {question} Answer the question simply."


def convert(source: Source) -> Iterator[Record | Rejection]:
    """Yield one record an answer for training, one a question for evaluation."""

    def make(_: int, row: Row) -> list[Record]:
        scene = source.scenes.scene_of(row)
        record_id = f"scanqa_{identifier_field(row, 'question_id')}"
        human = PROMPT.format(question=text_field(row, "question"))
        answers = [check_text(answer, "answer") for answer in list_field(row, "answers")]
        if not answers:
            raise RowError(EMPTY_TEXT, "answers is an empty list")
        if not source.training:
            return [_record(record_id, scene, human, answers[0], references=answers)]
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


BENCHMARK = Benchmark(
    name="scanqa",
    paper="https://arxiv.org/abs/2112.10482",
    dataset="scanQA",
    files=(AnnotationFile(path="scanqa/ScanQA_v1.0_{split}.json"),),
    splits=("train", "val"),
    evaluation_split="val",
    published={"train": Published(rows=25_563, records=26_515)},
    convert=convert,
)
