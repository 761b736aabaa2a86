"""The trained student answers questions about a scene.

No teacher features are read, and one scene is held at a time. A scene costs one pass over its
visual tokens, one short pass over all its questions, and one small pass for each token of the
longest answer.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from threedrs.distributed.gpus import translate_oom
from threedrs.errors import DataError
from threedrs.evaluation.settings import PredictSettings
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.inference import SceneSession
from threedrs.models.packing import Query
from threedrs.models.prompt import build_query
from threedrs.models.scene_inputs import read_scene
from threedrs.models.settings import ModelSettings
from threedrs.models.student import Student
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import Record

# What helps where a question or a scene does not fit.
REMEDY = "use a larger GPU or stop what else runs on it"


class StudentAnswerer:
    """A trained student, on the device where it answers.

    Args:
        student: in evaluation mode.
        tokenizer: the student's.
        settings: prompt style, length of answers, box set.
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
        """Return the trained model of a folder, on ``device``.

        Raises:
            CheckpointError: the model cannot be loaded.
            MachineError: the GPU's memory is too small.
        """
        model_settings = ModelSettings(
            path=model,
            attention=settings.attention,
            coordinate_dtype=settings.coordinate_dtype,
        )
        student, tokenizer = load_student(model_settings, teacher_channels=None)
        with translate_oom(str(model), REMEDY):
            return cls(student.to(device), tokenizer, settings)

    def open(self, store: SceneStore) -> "SceneAnswers":
        """Return the scene, ready for questions."""
        inputs = read_scene(store, self.settings.boxes, grid=self.student.family.grid)
        with translate_oom(store.scene, REMEDY):
            session = SceneSession(
                self.student, self.tokenizer, inputs, prompt=self.settings.prompt
            )
        return SceneAnswers(self, session, len(inputs.boxes_N6))


class SceneAnswers:
    """One scene's open session."""

    def __init__(self, answerer: StudentAnswerer, session: SceneSession, boxes: int) -> None:
        self._answerer = answerer
        self._session = session
        self._boxes = boxes

    def texts(self, records: Sequence[Record]) -> list[str]:
        """Return the greedy answers to text questions."""
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
