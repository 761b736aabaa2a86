"""The trained student answers the questions about a scene, and the answers become prediction rows.

No teacher features are read, and one scene is held at a time. A scene costs one pass over its
visual tokens, one short pass over all its questions, and one small pass for each token of the
longest answer.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from threedrs.distributed.gpus import translate_oom
from threedrs.errors import DataError
from threedrs.evaluation.settings import PredictSettings
from threedrs.io.files import read_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Query
from threedrs.models.prompt import build_query
from threedrs.models.scene_inputs import read_scene
from threedrs.models.student import Student
from threedrs.scenes.store import SceneStore
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record

# What helps where a question or a scene does not fit.
REMEDY = "use a larger GPU or stop what else runs on it"


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


class StudentAnswerer:
    """A trained student, on the device where it answers.

    Args:
        student: in evaluation mode.
        tokenizer: the student's.
        settings: prompt style, decoding, length of answers, box set.
    """

    def __init__(
        self, student: Student, tokenizer: PreTrainedTokenizerBase, settings: PredictSettings
    ) -> None:
        self.student = student
        self.tokenizer = tokenizer
        self.settings = settings

    @classmethod
    def load(
        cls, model: Path, settings: PredictSettings, device: torch.device
    ) -> "StudentAnswerer":
        """Return a model on ``device``: of a folder, or the one with which a run would start.

        Raises:
            CheckpointError: the model cannot be loaded.
            MachineError: the GPU's memory is too small.
        """
        start = read_json(model) if model.is_file() else None
        model_settings = ModelSettings.from_config(start) if start else ModelSettings(path=model)
        model_settings = model_settings.replace(
            attention=settings.attention, coordinate_dtype=settings.coordinate_dtype
        )
        student, tokenizer = load_student(model_settings, teacher_channels=None)
        with translate_oom(str(model), REMEDY):
            return cls(student.to(device), tokenizer, settings)

    def open(self, store: SceneStore) -> "SceneAnswers":
        """Return the scene, ready for questions."""
        inputs = read_scene(store, self.settings.boxes, grid=self.student.family.grid)
        with translate_oom(store.scene, REMEDY):
            session = SceneSession(
                self.student,
                self.tokenizer,
                inputs,
                prompt=self.settings.prompt,
                decoding=self.settings.decoding,
            )
        return SceneAnswers(self, session, len(inputs.boxes_N6))


class SceneAnswers:
    """One scene's open session."""

    def __init__(self, answerer: StudentAnswerer, session: SceneSession, boxes: int) -> None:
        self._answerer = answerer
        self._session = session
        self._boxes = boxes

    def visual_states(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last hidden states at the visual tokens (V,G,G,D) and their points (V,G,G,3).

        The points are mean world coordinates of the tokens' patches, float32, metres.
        """
        return self._session.visual_VGGD, self._session.scene.patch_xyz_VGG3

    def texts(self, records: Sequence[Record]) -> list[str]:
        """Return the answers to text questions."""
        with translate_oom(self._session.scene.scene, REMEDY):
            return self._session.answer_all(
                self._queries(records), self._answerer.settings.max_new_tokens
            )

    def scores(self, records: Sequence[Record]) -> list[list[float]]:
        """Return for each question the score of each box and, last, of the zero target.

        Raises:
            DataError: the model gave a score that is not finite.
        """
        with translate_oom(self._session.scene.scene, REMEDY):
            rows = self._session.ground_all(self._queries(records))
        for record, scores in zip(records, rows, strict=True):
            assert len(scores) == self._boxes + 1, "one score a box and one for the zero target"
            if not all(map(math.isfinite, scores)):
                raise DataError(
                    f"{record.scene}, question {record.id}: the model's scores are not finite; "
                    "its training diverged, or the checkpoint is damaged"
                )
        return rows

    def _queries(self, records: Sequence[Record]) -> list[Query]:
        answerer = self._answerer
        return [
            build_query(record, answerer.tokenizer, prompt=answerer.settings.prompt)
            for record in records
        ]


def needs_model(record: Record, task: Task) -> bool:
    """Return whether a model is asked this question; the answer to any other one is empty."""
    return not task.box_input or record.box_input is not None


def prediction_rows(
    records: Sequence[Record],
    task: Task,
    answers: Answers | None,
    store: SceneStore,
    settings: PredictSettings,
) -> list[Prediction]:
    """Return the rows of a scene's questions.

    Args:
        records: the questions.
        task: their benchmark.
        answers: the scene's session, or None if no question needs the model.
        store: the scene.
        settings: how the model is asked.

    Raises:
        DataError: an object that a question is about has no true box in the store.
    """
    if task.grounding:
        assert answers is not None
        return _grounding_rows(records, answers, store, settings)
    asked = [record for record in records if needs_model(record, task)]
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


def _grounding_rows(
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
