"""SQA3D: answers to questions asked from a described place in the scene.

Ma et al., "SQA3D: Situated Question Answering in 3D Scenes", ICLR 2023.

Its exact match is always the normalised one, so ``em`` (the benchmark's own number) and
``em_normalised`` (the number that has one meaning in all benchmarks) agree here.
"""

from collections.abc import Iterator, Sequence

from threedrs.metrics.bootstrap import Metrics, mean_metric
from threedrs.metrics.exact_match import exact_match_normalised
from threedrs.tasks.annotation_rows import (
    EMPTY_TEXT,
    MALFORMED,
    NO_ANSWER,
    NO_QUESTION,
    AnnotationFile,
    AnnotationTables,
    PublishedSize,
    Rejection,
    Row,
    RowError,
    check_row,
    check_text,
    field,
    identifier_field,
    list_field,
    text_field,
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


def convert(source: AnnotationTables) -> Iterator[Record | Rejection]:
    """Yield one record a situation for training (alternatives first), one a question otherwise."""
    answers: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(source.tables[1]):
        try:
            question_id = identifier_field(check_row(row), "question_id")
            if question_id in answers:
                raise RowError(MALFORMED, f"question {question_id} is answered more than once")
            answers[question_id] = (number, row)
        except RowError as error:
            yield source.rejection(number, error, table=1)
    asked: set[str] = set()

    def make(_: int, row: Row) -> list[Record]:
        question_id = identifier_field(row, "question_id")
        asked.add(question_id)
        scene = source.scenes.scene_of(row)
        question = text_field(row, "question")
        situations = [text_field(row, "situation")]
        if source.training:
            alternatives = list_field(row, "alternative_situation")
            checked = [check_text(text, "alternative_situation") for text in alternatives]
            situations = checked + situations  # in the published order
        if question_id not in answers:
            raise RowError(NO_ANSWER, f"question {question_id} is not among the annotations")
        texts = _answer_texts(answers[question_id][1])
        return [
            Record(
                id=question_id,  # repeated in training, once for each situation
                benchmark="sqa3d",
                scene=scene,
                conversations=conversation(
                    PROMPT.format(situation=situation, question=question), texts[0]
                ),
                question_type=question_type(question),
                references=None if source.training else texts,
            )
            for situation in situations
        ]

    yield from source.each_row(make)
    # An answer without its question says that the two files are not of one version.
    for question_id in answers.keys() - asked:
        orphan = RowError(NO_QUESTION, f"question {question_id} is not among the questions")
        yield source.rejection(answers[question_id][0], orphan, table=1)


def _answer_texts(row: Row) -> list[str]:
    answers = list_field(row, "answers")
    if not answers:
        raise RowError(EMPTY_TEXT, "answers is an empty list")
    return [check_text(field(check_row(answer), "answer"), "answer") for answer in answers]


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
            metric="em",
            title="EM",
            meaning="answer from where one stands: share of right answers",
        ),
    ),
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
