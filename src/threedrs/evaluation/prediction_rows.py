"""A scene's questions to prediction rows."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from threedrs.errors import DataError
from threedrs.evaluation.predictions import Prediction
from threedrs.evaluation.settings import PredictSettings
from threedrs.instructions.record import Record
from threedrs.scenes.store import SceneStore


class Answers(Protocol):
    """What is asked of a scene's session."""

    def texts(self, records: Sequence[Record]) -> list[str]:
        """Return the answers to text questions."""

    def scores(self, records: Sequence[Record]) -> list[list[float]]:
        """Return for each question the score of every box and, last, of the zero target."""


class Answerer(Protocol):
    """What is asked of a model."""

    def open(self, store: SceneStore) -> Answers:
        """Return the scene, ready for questions."""


def needs_model(record: Record) -> bool:
    """Whether the model is asked: not for a Scan2Cap object that no detector box covers."""
    return record.benchmark != "scan2cap" or record.box_input is not None


def text_rows(records: Sequence[Record], answers: Answers | None) -> list[Prediction]:
    """Return the rows of a scene's text questions; where the model is not asked the text is empty.

    Args:
        records: the questions.
        answers: the scene's session; None if no question needs the model.
    """
    asked = [record for record in records if needs_model(record)]
    text_of: dict[str, str] = {}
    if asked:
        assert answers is not None
        texts = answers.texts(asked)
        text_of = {record.id: text for record, text in zip(asked, texts, strict=True)}
    return [
        Prediction(
            id=record.id,
            benchmark=record.benchmark,
            scene=record.scene,
            question_type=record.question_type,
            prediction=text_of.get(record.id, ""),
            references=tuple(record.references or ()),
        )
        for record in records
    ]


def grounding_rows(
    records: Sequence[Record], answers: Answers, store: SceneStore, settings: PredictSettings
) -> list[Prediction]:
    """Return the rows of a scene's grounding questions, with proposal boxes and true boxes.

    Raises:
        DataError: an object that a question is about has no true box in the store.
    """
    boxes = store.boxes(settings.boxes).boxes.astype(np.float64)
    true = store.boxes("gt")
    row_of = {int(object_id): row for row, object_id in enumerate(true.ids)}
    for record in records:
        missing = [object_id for object_id in record.object_ids or () if object_id not in row_of]
        if missing:
            raise DataError(
                f"{store.path}: object {missing[0]} of question {record.id!r} has no true box; "
                "convert the annotations again with this data"
            )
    return [
        Prediction(
            id=record.id,
            benchmark=record.benchmark,
            scene=record.scene,
            question_type=record.question_type,
            scores=np.array(scores, dtype=np.float64),
            boxes=boxes,
            gt=true.boxes[[row_of[object_id] for object_id in record.object_ids or ()]].astype(
                np.float64
            ),
        )
        for record, scores in zip(records, answers.scores(records), strict=True)
    ]
