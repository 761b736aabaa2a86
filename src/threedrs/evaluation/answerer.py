"""Questions of a records file, answered by the trained student, become prediction rows.

No teacher features are read, and one scene is held at a time. A scene costs one pass over its
visual tokens, one short pass over all its questions, and one small pass for each token of the
longest answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from threedrs.distributed.gpus import translate_oom
from threedrs.errors import DataError, StoreError
from threedrs.models.backbones.fused_layers import fuse_projections
from threedrs.models.checkpoint.folder import lacks_grounding_head
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import ModelSettings, PredictSettings, read_run_config
from threedrs.models.packing import Query
from threedrs.models.prompt import build_query
from threedrs.models.scene_inputs import read_scene
from threedrs.models.student import Student
from threedrs.models.token_passes import TokenPasses
from threedrs.scenes.store import SceneStore
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import find_task

# What helps where a question or a scene does not fit.
REMEDY = "use a larger GPU or stop what else runs on it"


@dataclass(eq=False)
class StudentAnswerer:
    """A trained student in evaluation mode, on the device where it answers.

    ``can_ground`` says whether its grounding head is trained, as loading makes a new one.
    """

    student: Student
    tokenizer: PreTrainedTokenizerBase
    settings: PredictSettings
    can_ground: bool = True

    def __post_init__(self) -> None:
        self.passes = TokenPasses(self.student)

    @classmethod
    def load(
        cls, model: Path, settings: PredictSettings, device: torch.device
    ) -> "StudentAnswerer":
        """Return a model on ``device``: of a folder, or the one with which a run would start.

        Raises:
            CheckpointError: the model cannot be loaded.
            DataError: it is a file, and not a run's settings.
            MachineError: the GPU's memory is too small.
        """
        # A run's config.json stands for the model as its training would start, which has no folder.
        start = read_run_config(model) if model.is_file() else None
        model_settings = ModelSettings.from_config(start) if start else ModelSettings(path=model)
        model_settings = model_settings.replace(
            attention=settings.attention, coordinate_dtype=settings.coordinate_dtype
        )
        student, tokenizer = load_student(model_settings, teacher_channels=None)
        can_ground = not lacks_grounding_head(model)
        with translate_oom(str(model), REMEDY):
            fuse_projections(student.to(device).language_model)
        return cls(student, tokenizer, settings, can_ground=can_ground)

    def open(self, store: SceneStore) -> "SceneAnswers":
        """Return the scene, ready for questions."""
        inputs = read_scene(store, self.settings.boxes, grid=self.student.family.grid)
        if self.settings.control == "text_only":
            inputs = inputs.without_images()
        with translate_oom(store.scene, REMEDY):
            session = SceneSession(
                self.student,
                self.tokenizer,
                inputs,
                prompt=self.settings.prompt,
                decoding=self.settings.decoding,
                passes=self.passes,
            )
        return SceneAnswers(self.settings, session)


@dataclass(frozen=True)
class SceneAnswers:
    """One scene's open session."""

    settings: PredictSettings
    session: SceneSession

    def texts(self, records: Sequence[Record]) -> list[str]:
        """Return the answers to text questions."""
        # All at once: the questions share one pass over the visual tokens, which is what costs.
        with translate_oom(self.session.scene.scene, REMEDY):
            return self.session.answer_all(self._queries(records), self.settings.max_new_tokens)

    def scores(self, records: Sequence[Record]) -> list[list[float]]:
        """Return for each question the score of each box and, last, of the zero target.

        Raises:
            DataError: the model gave a score that is not finite.
        """
        with translate_oom(self.session.scene.scene, REMEDY):
            rows = self.session.ground_all(self._queries(records))
        for record, scores in zip(records, rows, strict=True):
            # Refused here, where the cause is known: in a sorted list such a score means nothing.
            if not all(map(math.isfinite, scores)):
                raise DataError(
                    f"{record.scene}, question {record.id}: the model's scores are not finite; "
                    "its training diverged, or the checkpoint is damaged"
                )
        return rows

    def _queries(self, records: Sequence[Record]) -> list[Query]:
        tokenizer, prompt = self.session.tokenizer, self.settings.prompt
        return [build_query(record, tokenizer, prompt=prompt) for record in records]


def read_questions(path: Path) -> tuple[list[Record], Task]:
    """Return the questions of a records file and their benchmark.

    Raises:
        ConfigError: the benchmark is unknown or lacks a part.
        DataError: no questions, of several benchmarks, an id twice, or what scoring needs
            (references, object ids) is missing.
    """
    # What scoring will need is asked for now: without it hours of answering would be for nothing.
    records = list(read_records(path))
    if not records:
        raise DataError(f"{path}: holds no questions; convert the annotations again")
    task = find_task(records[0].benchmark)
    seen: set[str] = set()
    for number, record in enumerate(records, start=1):
        where = f"{path}: line {number}"
        if record.benchmark != task.name:
            raise DataError(f"{where}: is of {record.benchmark}, line 1 of {task.name}")
        if record.id in seen:
            raise DataError(f"{where}: id {record.id!r} stands there a second time")
        seen.add(record.id)
        if task.grounding and record.object_ids is None:
            raise DataError(f"{where}: a grounding question needs object_ids ([] for no object)")
        if not task.grounding and not any(t.strip() for t in record.references or ()):
            raise DataError(f"{where}: an evaluation question needs references")
    return records, task


def open_store(scenes: Path, scene: str) -> SceneStore:
    """Return the scene's store.

    Raises:
        StoreError: there is none, or it cannot be used.
    """
    path = scenes / f"{scene}.zarr"
    if not path.is_dir():
        raise StoreError(
            f"{path}: there is no scene store of {scene}; run `snakemake --cores all scenes`"
        )
    return SceneStore.open(path)


def prediction_rows(
    records: Sequence[Record], task: Task, answers: SceneAnswers | None, store: SceneStore
) -> list[Prediction]:
    """Return the rows of a scene's questions.

    ``answers`` is the scene's session, or None if no question needs the model.

    Raises:
        DataError: an object that a question is about has no true box in the store.
    """
    if task.grounding:
        assert answers is not None
        return _grounded(records, answers, store)
    # An object that no detector box covers is not described, yet it counts, with an empty text.
    asked = [record for record in records if task.needs_model(record)]
    texts = iter(answers.texts(asked) if answers is not None and asked else ())
    return [
        Prediction(
            **_identity(record),
            prediction=next(texts) if task.needs_model(record) else "",
            references=tuple(record.references or ()),
        )
        for record in records
    ]


def _identity(record: Record) -> dict[str, Any]:
    """Return the fields that a prediction has from its question."""
    return {name: getattr(record, name) for name in ("id", "benchmark", "scene", "question_type")}


def _grounded(
    records: Sequence[Record], answers: SceneAnswers, store: SceneStore
) -> list[Prediction]:
    true = store.boxes("gt")
    # Rows hold float64, which metrics compute in; the store has float32.
    boxes_N6 = store.boxes(answers.settings.boxes).boxes.astype(np.float64)
    true_M6 = true.boxes.astype(np.float64)
    row_of = {int(object_id): row for row, object_id in enumerate(true.ids)}
    # Looked at before the model is asked, which takes longer.
    for record in records:
        missing = [object_id for object_id in record.object_ids or () if object_id not in row_of]
        if missing:
            raise DataError(
                f"{store.path}: object {missing[0]} of question {record.id!r} has no true box; "
                "convert the annotations again with this data"
            )
    return [
        Prediction(
            **_identity(record),
            scores=np.array(scores, dtype=np.float64),
            boxes=boxes_N6,
            gt=true_M6[[row_of[number] for number in record.object_ids or ()]],
        )
        for record, scores in zip(records, answers.scores(records), strict=True)
    ]
