"""SQA3D: answers to questions asked from a described place in the scene.

Ma et al., "SQA3D: Situated Question Answering in 3D Scenes", ICLR 2023.

Its exact match is always the normalised one, so ``em`` (the benchmark's own number) and
``em_normalised`` (the number that has one meaning in all benchmarks) agree here.
"""

from collections.abc import Iterator, Sequence

from pydantic import Field

from threedrs.io.external_json import ExternalRow
from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.exact_match import exact_match_normalised
from threedrs.tasks.annotation_rows import (
    MALFORMED,
    NO_ANSWER,
    NO_QUESTION,
    AnnotationFile,
    AnnotationTables,
    Identifier,
    PublishedSize,
    Rejection,
    RowError,
    Words,
    parse_row,
)
from threedrs.tasks.base import Headline, Task, published_scores
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, conversation

PROMPT = "<image> {situation} {question} Answer the question using a single word or phrase."
QUESTION_TYPES = ("what", "is", "how", "can", "which")
OTHER_TYPE = "others"
QUESTIONS_PATH = "sqa_task/balanced/v1_balanced_questions_{split}_scannetv2.json"
ANSWERS_PATH = "sqa_task/balanced/v1_balanced_sqa_annotations_{split}_scannetv2.json"


def question_type(question: str) -> str:
    """Return the question's type: its first word's beginning, in lower case ("Isn't" is "is")."""
    start = question.lstrip().lower()
    return next((kind for kind in QUESTION_TYPES if start.startswith(kind)), OTHER_TYPE)


class Question(ExternalRow):
    """A row of the questions' file, as evaluation reads it."""

    question_id: Identifier
    scene_id: Words
    question: Words
    situation: Words


class TrainingQuestion(Question):
    """The same with what training reads of it as well."""

    alternative_situation: list[Words]


class Answer(ExternalRow):
    """One of a question's answers."""

    answer: Words


class Answers(ExternalRow):
    """A row of the annotations' file."""

    question_id: Identifier
    answers: list[Answer] = Field(min_length=1)


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a situation for training (alternatives first), one a question otherwise."""
    answers: dict[str, tuple[int, list[str]]] = {}
    for number, row in enumerate(source.tables[1]):
        try:
            found = parse_row(Answers, row)
            if found.question_id in answers:
                raise RowError(MALFORMED, f"question {found.question_id} is answered twice")
            answers[found.question_id] = (number, [one.answer for one in found.answers])
        except RowError as error:
            yield source.rejection(number, error, table=1)

    def make(_: int, row: Question) -> list[Record]:
        scene = source.scenes.check_scene(row.scene_id)
        situations = [row.situation]
        if isinstance(row, TrainingQuestion):
            situations = [*row.alternative_situation, row.situation]  # in the published order
        if row.question_id not in answers:
            raise RowError(NO_ANSWER, f"the annotations have none to question {row.question_id}")
        texts = answers[row.question_id][1]
        return [
            Record(
                id=row.question_id,  # repeated in training, once for each situation
                benchmark="sqa3d",
                scene=scene,
                conversations=conversation(
                    PROMPT.format(situation=situation, question=row.question), texts[0]
                ),
                question_type=question_type(row.question),
                references=None if source.training else texts,
            )
            for situation in situations
        ]

    yield from source.each_row(TrainingQuestion if source.training else Question, make)
    # An answer without its question says that the two files are not of one version; a rejected
    # question is there all the same.
    asked = {str(row.get("question_id")) for row in source.tables[0] if isinstance(row, dict)}
    for question_id, (number, _) in answers.items():
        if question_id not in asked:
            orphan = RowError(NO_QUESTION, f"question {question_id} is not among the questions")
            yield source.rejection(number, orphan, table=1)


def measure(rows: Sequence[Prediction], meteor: bool) -> Metrics:
    """Return the exact match (``meteor`` plays no part)."""
    matches = mean_metric(
        [exact_match_normalised(row.prediction or "", row.references) for row in rows]
    )
    return {"em": matches, "em_normalised": matches}


TASK = Task(
    name="sqa3d",
    title="SQA3D",
    paper="https://arxiv.org/abs/2210.07474",
    protocol=1,
    dataset="sqa3d",
    references_in="turn",
    files=(
        AnnotationFile(path=QUESTIONS_PATH, key="questions"),
        AnnotationFile(path=ANSWERS_PATH, key="annotations"),
    ),
    splits=("train", "val", "test"),
    evaluation_split="test",
    published_sizes={
        "train": PublishedSize(rows=26_623, records=79_445),
        "test": PublishedSize(rows=3_519, records=3_519, scenes=67),
    },
    prompt=PROMPT,
    convert=convert,
    metrics=("em", "em_normalised"),
    measure=measure,
    headline=(
        Headline(
            metric="em", title="EM", meaning="answer from where one stands: share of right answers"
        ),
    ),
    types={
        "what": "What",
        "is": "Is",
        "how": "How",
        "can": "Can",
        "which": "Which",
        "others": "Others",
    },
    published_scores=published_scores("sqa3d"),
    published_details={
        "what": {"em": 54.4},
        "is": {"em": 75.2},
        "how": {"em": 57.0},
        "can": {"em": 72.2},
        "which": {"em": 49.9},
        "others": {"em": 59.0},
    },
    judged_by="em",
)
