"""The field's own predictions files: rows with ``sample_id``, as 3D multimodal models write them.

`read_any_predictions` takes them wherever ours are taken. A row that names no scene (in ``scene``,
``scene_id``, ``video`` or its id) is its own cluster in the bootstrap.

`export_predictions` writes ours as the field's evaluation does, and `import_predictions` makes ours
of them again. What such rows lack (scenes, all answers of a ScanQA question, the references of a
Scan2Cap object without a detector box, for which the field's evaluation writes another object's) is
taken from the records, whose ids are the field's. Both write a meta file beside the rows, as
`threedrs predict` does, so that answers to a part of the questions do not pass for all.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from threedrs.errors import DataError, counted
from threedrs.io.external_json import ExternalRow, ExternalText, check_external
from threedrs.io.files import SCENE_NAME, read_json_lines, write_json, write_json_lines
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import (
    FORMAT_VERSION,
    Box,
    Name,
    Prediction,
    References,
    grounding_arrays,
    meta_path,
    read_meta,
    read_predictions,
    write_predictions,
)
from threedrs.tasks.record import Record, published_id, read_records
from threedrs.tasks.registry import find_task

_SCENE_FIELDS = ("scene", "scene_id", "video", "sample_id")
_FORM_FIELDS = {"sample_id", "format_version"}
_REMEDY = "mend the row, or write the file again"


def _one_is_a_list(value: Any) -> Any:
    """Return a text, or a box, as a list of one."""
    one_box = isinstance(value, list) and bool(value) and not isinstance(value[0], (list, str))
    return [value] if isinstance(value, str) or one_box else value


class _Row(ExternalRow):
    sample_id: Annotated[Name, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
    question_type: ExternalText | None = None


class _Told(_Row):
    """The answer to a question in words, and one true answer or a list of them."""

    pred_response: ExternalText
    gt_response: Annotated[References, BeforeValidator(_one_is_a_list)]


class _Chosen(_Row):
    """The chosen box alone, where a description means one object (ScanRefer), and the true one."""

    pred_response: Box
    gt_response: Annotated[list[Box], BeforeValidator(_one_is_a_list)]


class _Scored(_Row):
    """The proposals' boxes and scores, and one true box or a list of them."""

    objects: list[Box]
    scores: list[float]  # last that of the zero target, which ScanRefer's rows may leave out
    gt_response: Annotated[list[Box], BeforeValidator(_one_is_a_list)]


def is_field_row(row: Any) -> bool:
    """Return whether ``row`` is of the field's own form rather than of ours."""
    return isinstance(row, Mapping) and "sample_id" in row and "format_version" not in row


def read_any_predictions(path: Path, task: Task) -> tuple[list[Prediction], str]:
    """Return the rows of a predictions file of either form, and which it is: threedrs or field.

    Raises:
        DataError: as ``read_predictions``; the rows are of neither form.
    """
    # By the first row: a file of both forms is refused at the row where it changes.
    first = next(read_json_lines(path), None)
    if first is not None and not (isinstance(first, Mapping) and _FORM_FIELDS & first.keys()):
        raise DataError(
            f"{path}: line 1: holds neither sample_id, as rows of published code, nor "
            "format_version, as ours; docs/EVALUATION.md lists the fields of both"
        )
    if is_field_row(first):
        return read_predictions(path, task, parse=prediction_of_field_row), "field"
    return read_predictions(path, task), "threedrs"


def prediction_of_field_row(row: Any, task: Task, where: str) -> Prediction:
    """Return our row of a row of the field's own form; ``where`` names file and line.

    Raises:
        DataError: a field is missing, of the wrong type or size.
    """
    if not is_field_row(row):
        raise DataError(f"{where}: has no sample_id, unlike the first row; use one form a file")
    found: _Row
    answer: dict[str, Any]
    if not task.grounding:
        found = told = check_external(row, _Told, where, _REMEDY)
        answer = {"prediction": told.pred_response, "references": tuple(told.gt_response)}
    elif task.objects == "one" and "scores" not in row:
        found = chosen = check_external(row, _Chosen, where, _REMEDY)
        boxes = [chosen.pred_response]
        answer = grounding_arrays([1.0, 0.0], boxes, chosen.gt_response, task, where)
    else:
        found = scored = check_external(row, _Scored, where, _REMEDY)
        scores = scored.scores
        if task.objects == "one" and len(scores) == len(scored.objects):
            # With exactly one object nobody looks at the zero target, so any number stands for it.
            scores = [*scores, 0.0]
        answer = grounding_arrays(scores, scored.objects, scored.gt_response, task, where)
    named = (SCENE_NAME.search(str(row.get(name, ""))) for name in _SCENE_FIELDS)
    return Prediction(
        id=found.sample_id,
        benchmark=task.name,
        scene=next((match.group() for match in named if match), found.sample_id),
        question_type=None if found.question_type == task.untyped else found.question_type,
        **answer,
    )


def has_scene(row: Prediction) -> bool:
    """Return whether the row says which scene it is about."""
    return SCENE_NAME.fullmatch(row.scene) is not None


def export_predictions(predictions: Path, records: Path, out: Path, model_id: str) -> int:
    """Write predictions of either form as rows of the field's own form; return their number.

    ``records`` are those that were asked; ``model_id`` names the model in each row.

    Raises:
        DataError: a file is malformed, or they are not of the same questions.
    """
    rows, questions, task, asked = _answered_questions(predictions, records)
    count = write_json_lines(
        out, (_field_row(row, questions[row.id], task, model_id) for row in rows)
    )
    write_json(meta_path(out), {"format_version": FORMAT_VERSION, "n": count, **asked})
    return count


def import_predictions(predictions: Path, records: Path, out: Path) -> tuple[int, int, int]:
    """Write rows of the field's own form as a predictions file of ours.

    Returns how many they are, how many questions there are, and in how many rows the records have
    fewer true answers than the field's. The rows come in the order of ``records``, with the scenes,
    question types and true answers of these.

    Raises:
        DataError: a file is malformed, or they are not of the same questions.
    """
    rows, questions, _, asked = _answered_questions(predictions, records)
    answered = {row.id: row for row in rows}
    # In the questions' order, as `predict` writes them: two such files then compare line by line.
    count = write_predictions(
        out,
        (
            replace(
                answered[name],
                scene=question.scene,
                question_type=question.question_type,
                references=tuple(question.references or ()),
            )
            for name, question in questions.items()
            if name in answered  # the others were not asked
        ),
    )
    write_json(meta_path(out), {"format_version": FORMAT_VERSION, "n": count, **asked})
    fewer = sum(set(questions[row.id].references or ()) < {*row.references} for row in rows)
    return count, len(questions), fewer


def _answered_questions(
    predictions: Path, records: Path
) -> tuple[list[Prediction], dict[str, Record], Task, dict[str, Any]]:
    """Return the rows, the questions by their ids, their benchmark, and what was not asked."""
    questions = {record.id: record for record in read_records(records)}
    if not questions:
        raise DataError(f"{records}: holds no questions; convert the annotations again")
    task = find_task(next(iter(questions.values())).benchmark)
    rows, _ = read_any_predictions(predictions, task)
    for number, row in enumerate(rows, start=1):
        if row.id not in questions:
            raise DataError(
                f"{predictions}: line {number}: {records} has no question {row.id!r}; give the "
                "records that were asked"
            )
    # In another form, too, answers to a part of the questions must not pass for answers to all. So
    # what the meta file says of those that were not asked goes into that of the other form.
    meta = read_meta(predictions) or {}
    asked = {name: meta[name] for name in ("limit", "left_out") if meta.get(name)}
    limit, left_out = asked.get("limit"), asked.get("left_out")
    not_asked = limit["of"] - limit["questions"] if limit else 0
    not_asked += left_out["questions"] if left_out else 0
    if len(rows) < len(questions) - not_asked:
        raise DataError(
            f"{predictions}: answers {len(rows)} of the {counted(len(questions), 'question')} of "
            f"{records}; a partial file is not scored: finish it, or give the records that were "
            "asked"
        )
    return rows, questions, task, asked


def _field_row(row: Prediction, record: Record, task: Task, model_id: str) -> dict[str, Any]:
    from threedrs.models.prompt import as_trained  # imports transformers

    found: dict[str, Any] = {
        "dataset": task.dataset,
        "sample_id": published_id(row.id),
        "prompt": as_trained(record),  # as the field writes it, though its model saw no instruction
    }
    if task.choose is not None:
        assert row.scores is not None
        if task.objects == "one":
            # A scene without proposals has no answer, which a box of no size is, too.
            chosen = [*row.boxes[task.choose(row.scores)], np.zeros(6)][0]
            found |= {"pred_response": _half(chosen), "gt_response": row.gt[0].tolist()}
        else:
            found |= {"scores": row.scores.tolist(), "objects": _half(row.boxes)}
            found["gt_response"] = row.gt.tolist()
    elif task.box_input:
        found |= {"pred_response": row.prediction, "gt_response": list(row.references)}
        found["scene"] = f"scannet/{row.scene}"
    else:
        found |= {"pred_response": row.prediction, "gt_response": record.answer}
    return {**found, "model_id": model_id, "question_type": row.question_type or task.untyped}


def _half(boxes: np.ndarray) -> list[Any]:
    """Return boxes as the field writes them, in the precision that its evaluation computes in."""
    return boxes.astype(np.float16).astype(np.float64).tolist()
