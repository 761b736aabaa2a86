"""The true answers of a benchmark's annotation files, for rows that hold fewer of them.

The field's own code writes one of a ScanQA question's several answers into its rows, and rows that
others made may hold a part of an object's descriptions. Scored against a part, right answers count
as wrong. The annotation files are small: reading them takes a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from threedrs.errors import ConfigError, DataError
from threedrs.io.files import sha256_of_file
from threedrs.tasks.annotation_rows import AnnotationTables
from threedrs.tasks.base import Task
from threedrs.tasks.prediction import Prediction
from threedrs.tasks.record import Record, with_unique_ids
from threedrs.tasks.scene_boxes import NamesOnly


@dataclass(frozen=True, kw_only=True)
class AnswerCheck:
    """What taking the true answers of an annotation file changed."""

    file: str
    sha256: str
    questions: int  # that the file has
    fewer: int  # rows that held fewer true answers than the file
    other: int  # rows that held an answer which the file does not have


def annotated_questions(task: Task, path: Path) -> dict[str, Record]:
    """Return the evaluation questions of a benchmark, with all true answers, by their ids.

    ``path`` is its annotation file of any name. Where it has several, it is one of them, and the
    others are read from the same folder by their published names.

    Raises:
        ConfigError: the benchmark compares boxes.
        DataError: a file is missing or malformed, or holds no question.
    """
    if task.grounding:
        raise ConfigError(
            f"--annotations: {task.title} compares with the boxes of the rows; run it without"
        )
    split = task.evaluation_split
    published = [Path(file.path.format(split=split)).name for file in task.files]
    paths = [path] if len(published) == 1 else [path.parent / name for name in published]
    source = AnnotationTables(
        split=split,
        folder=path.parent,
        names=tuple(file.name for file in paths),
        tables=tuple(file.read(at) for file, at in zip(task.files, paths, strict=True)),
        scenes=NamesOnly(),
        labels_file=None,
    )
    records = [made for made in task.convert(source) if isinstance(made, Record)]
    if not records:
        raise DataError(f"{path}: holds no question of {task.title}; give its annotation file")
    return {record.id: record for record in with_unique_ids(records)}


def take_annotated_answers(
    rows: Sequence[Prediction], task: Task, predictions: Path, annotations: Path
) -> tuple[list[Prediction], AnswerCheck]:
    """Return the rows with the true answers of the annotation file, and what that changed.

    The scene is the file's as well, and so is the question's type where a row has none.

    Raises:
        ConfigError: as `annotated_questions`.
        DataError: as `annotated_questions`; a row is of a question that the file does not have, or
            no row has a true answer in common with it.
    """
    questions = annotated_questions(task, annotations)
    completed = []
    fewer = other = 0
    for number, row in enumerate(rows, start=1):
        # The field's rows of ScanQA number the answers of a question behind its id, and its metrics
        # set that number to 0. Other tools write the file's own id, without the benchmark in front.
        names = row.id, f"{row.id.rpartition('_')[0]}_0", f"{task.name}_{row.id}_0"
        question = next((questions[name] for name in names if name in questions), None)
        if question is None:
            raise DataError(
                f"{predictions}: line {number}: {annotations} has no question {row.id!r}, its "
                f"first is {next(iter(questions))!r}; give the file of the questions asked"
            )
        references = tuple(question.references or ())
        held, true = _compared(row.references), _compared(references)
        fewer += held < true
        other += not held <= true
        question_type = row.question_type or question.question_type
        completed.append(
            replace(row, references=references, scene=question.scene, question_type=question_type)
        )
    # Numbers name the questions of some benchmarks, and every version of a file has them. So the
    # ids alone do not tell that the file is the right one.
    if other == len(rows):
        raise DataError(
            f"{annotations}: no row of {predictions} has its true answers there; give the file of "
            "the questions that were asked"
        )
    check = AnswerCheck(
        file=annotations.name,
        sha256=sha256_of_file(annotations),
        questions=len(questions),
        fewer=fewer,
        other=other,
    )
    return completed, check


def _compared(texts: Sequence[str]) -> set[str]:
    # The turn of a conversation begins with a capital where the annotation may not.
    return {text.strip().casefold() for text in texts}
