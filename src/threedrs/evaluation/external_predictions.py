"""The field's own predictions files: rows with ``sample_id``, turned into our prediction rows.

One JSON object a line, as 3D multimodal language models write them after inference:

    sample_id      text or number, unique in the file
    pred_response  text questions: the model's answer; grounding rows: not read
    gt_response    text questions: one true answer or a list of them;
                   grounding: one true box, a list of them, or [] for a question about no object
    question_type  optional
    scores         grounding: one score a proposal, then the zero target's (a benchmark of
                   exactly one object a question may leave that out)
    objects        grounding: the proposals' boxes
    scene, scene_id or video   optional, holds the scene's name, as ``sample_id`` may

Boxes are (cx, cy, cz, dx, dy, dz), metres. A row that names no scene is its own cluster in the
bootstrap. Other fields are ignored.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json_lines
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import FORMAT_VERSION, Prediction, read_predictions

_SCENE = re.compile(r"scene\d{4}_\d{2}")
_SCENE_FIELDS = ("scene", "scene_id", "video", "sample_id")


def is_field_row(row: Any) -> bool:
    """Return whether ``row`` is of the field's own form rather than of ours."""
    return isinstance(row, Mapping) and "sample_id" in row and "format_version" not in row


def read_any_predictions(path: Path, task: Task) -> tuple[list[Prediction], str]:
    """Return the rows of a predictions file of either form, and which it is: threedrs or field.

    Raises:
        DataError: as ``read_predictions``.
    """
    if is_field_row(next(read_json_lines(path), None)):
        return read_predictions(path, task, parse=prediction_of_field_row), "field"
    return read_predictions(path, task), "threedrs"


def prediction_of_field_row(row: Any, task: Task, where: str) -> Prediction:
    """Return our row of a row of the field's own form; ``where`` names file and line.

    Raises:
        DataError: a field is missing, of the wrong type or size.
    """
    if not is_field_row(row):
        raise DataError(f"{where}: has no sample_id, unlike the first row; use one form a file")
    wanted = ("objects", "scores", "gt_response") if task.grounding else ("gt_response",)
    for name in wanted if task.grounding else ("pred_response", *wanted):
        if row.get(name) is None:
            raise DataError(f"{where}: field {name!r} is missing; {task.title} needs it")
    sample = str(row["sample_id"])
    converted: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "id": sample,
        "benchmark": task.name,
        "scene": _scene(row) or sample,
        "question_type": row.get("question_type"),
    }
    truth = row["gt_response"]
    if task.grounding:
        scores = row["scores"]
        if task.objects == "one" and _same_length(scores, row["objects"]):
            # With exactly one object nobody looks at the zero target, so any number stands for it.
            scores = [*scores, 0.0]
        one_box = isinstance(truth, list) and bool(truth) and not isinstance(truth[0], list)
        gt = [truth] if one_box else truth
        converted |= {"scores": scores, "boxes": row["objects"], "gt": gt}
    else:
        references = [truth] if isinstance(truth, str) else truth
        converted |= {"prediction": row["pred_response"], "references": references}
    # Checked as our own rows are, but the message names the fields of the user's file.
    try:
        return Prediction.from_json(converted, task, where)
    except DataError as error:
        raise DataError(_in_the_rows_own_words(str(error), where)) from error


def has_scene(row: Prediction) -> bool:
    """Return whether the row says which scene it is about."""
    return _SCENE.fullmatch(row.scene) is not None


def _scene(row: Mapping[str, Any]) -> str | None:
    for name in _SCENE_FIELDS:
        found = _SCENE.search(str(row.get(name, "")))
        if found:
            return found.group()
    return None


def _same_length(scores: Any, objects: Any) -> bool:
    return isinstance(scores, list) and isinstance(objects, list) and len(scores) == len(objects)


def _in_the_rows_own_words(message: str, where: str) -> str:
    """Return the message with our field names replaced by those that stand in the file."""
    names = {"boxes": "objects", "gt": "gt_response", "references": "gt_response"}
    names |= {"prediction": "pred_response", "id": "sample_id"}
    reason = message.removeprefix(f"{where}: ")
    first, _, rest = reason.partition(" ")
    return f"{where}: {names.get(first, first)} {rest}"
