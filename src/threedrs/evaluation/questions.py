"""The questions of one benchmark: reading them, asking a model, and what the answers depend on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from threedrs.errors import DataError, StoreError
from threedrs.evaluation.settings import PredictSettings
from threedrs.io.files import sha256_of_file, sha256_of_json
from threedrs.models.checkpoint.folder import hash_files, require_whole
from threedrs.scenes.store import SceneStore
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, read_records
from threedrs.tasks.registry import find_task
from threedrs.workflow.code_hash import code_hash


def read_questions(path: Path) -> tuple[list[Record], Task]:
    """Return the questions of a records file and their benchmark.

    Raises:
        ConfigError: the benchmark is unknown or lacks a part.
        DataError: no questions, of several benchmarks, an id twice, or what scoring needs
            (references, object ids) is missing.
    """
    records = list(read_records(path))
    if not records:
        raise DataError(f"{path}: holds no questions")
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
        raise StoreError(f"{path}: there is no scene store of {scene}; run the stage `scenes`")
    return SceneStore.open(path)


def answer_inputs(
    model: Path,
    records_file: Path,
    records: Sequence[Record],
    scenes: Path,
    settings: PredictSettings,
) -> dict[str, str]:
    """Return what the answers depend on, as hashes: model, records, settings, scenes, code.

    Raises:
        DataError: there is no trained model.
        CheckpointError: the model does not fit the manifest beside it.
        StoreError: a scene store is missing or cannot be used.
    """
    if not model.is_dir():
        raise DataError(f"{model}: is not a folder with a trained model; run the stage `models`")
    names = sorted({record.scene for record in records})
    hashes = hash_files(model)
    require_whole(model, hashes)
    return {
        "model": sha256_of_json(hashes),
        "records": sha256_of_file(records_file),
        "settings": sha256_of_json(settings.to_json()),
        "scenes": sha256_of_json({n: open_store(scenes, n).content_hash() for n in names}),
        "code": code_hash("predict"),
    }


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


def needs_model(record: Record, task: Task) -> bool:
    """Whether a model is asked this question; the answer to any other one is empty."""
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
