"""The field's own form of instruction data: one JSON array of LLaVA-style entries.

What is written is what the published converters write, field by field, so that other training and
evaluation code reads it: ids as published, an object's box under ``box`` (Scan2Cap: ``gt_box``,
beside ``box_input``), the true answers where the benchmark keeps them (`Task.references_in`).
Exported records read back unchanged. Arrays that others made are read too. Writing streams;
reading holds the array in memory (223,128 entries: about 0.5 GB).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from threedrs.errors import DataError
from threedrs.io.external_json import ExternalRow, check_external
from threedrs.io.files import atomic_file, read_json
from threedrs.scannet.layout import PREFIX
from threedrs.tasks.annotation_rows import Integer
from threedrs.tasks.base import Task
from threedrs.tasks.record import (
    FORMAT_VERSION,
    Record,
    is_box,
    published_id,
    read_records,
    with_unique_ids,
)
from threedrs.tasks.registry import TASKS

_REMEDY = "mend the entry, or convert the annotations instead"


def _of_a_scan(video: str) -> str:
    if not video.startswith(PREFIX):
        raise ValueError(f"is {video!r}; expected 'scannet/<scene>'")
    return video.removeprefix(PREFIX)


_Counts = Annotated[
    list[Annotated[Integer, Field(ge=0)]],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
]


class _Objects(ExternalRow):
    """What the metadata say of the annotated objects, where a benchmark has such."""

    object_id: _Counts
    ann_id: _Counts | None = None


class _Metadata(ExternalRow):
    dataset: str
    question_type: Any = None
    answers: Any = None


class _Entry(ExternalRow):
    """The fields that say what an entry is; the record checks those that go into it."""

    video: Annotated[str, AfterValidator(_of_a_scan)]
    metadata: _Metadata


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def write_llava(path: Path, records: Iterable[Record]) -> int:
    """Write records as one LLaVA-style JSON array, whole or not at all; return how many."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("[")
        # Entry by entry: as one text, 223,128 of them would be in memory a second time.
        for record in records:
            stream.write(",\n" if count else "\n")
            stream.write(json.dumps(_entry(record), ensure_ascii=False, allow_nan=False))
            count += 1
        stream.write("\n]\n")
    return count


def _entry(record: Record) -> dict[str, Any]:
    task = TASKS[record.benchmark]
    metadata: dict[str, Any] = {
        "dataset": task.dataset,
        "question_type": record.question_type or task.untyped,
    }
    entry: dict[str, Any] = {
        "id": published_id(record.id),
        "video": f"{PREFIX}{record.scene}",
        "conversations": record.conversations,
        "metadata": metadata,
    }
    if task.objects == "any":
        metadata |= {"ann_id": record.ann_id, "object_id": record.object_ids}
    elif record.object_ids:
        # ScanRefer's files hold texts of digits, and so do those made from them.
        annotation = None if record.ann_id is None else str(record.ann_id)
        metadata |= {"ann_id": annotation, "object_id": str(record.object_ids[0])}
    if task.box_input:
        entry |= {"box_input": record.box_input, "gt_box": record.box}
    elif record.box is not None:
        entry["box"] = record.box
    # Each benchmark's published converter has its own place for the true answers.
    if task.references_in == "answers" and record.references is not None:
        metadata["answers"] = record.references
    elif task.references_in == "turn" and record.references == [record.answer]:
        pass  # the gpt turn says it
    elif record.references is not None:
        other = task.references_in == "turn"
        entry["references" if other else task.references_in] = record.references
    return entry


def read_entries(path: Path, *, evaluation: bool = False) -> list[Record]:
    """Return the records of a LLaVA-style JSON array, repeated ids as they are.

    Ids are taken as strings; an entry without one is named by its index. In an array of questions
    (``evaluation``) of a benchmark whose arrays hold the true answer in the gpt turn alone, it
    becomes the reference.

    Raises:
        DataError: the file is no such array; an entry is of an unknown dataset, is malformed, or
            lacks the object id or the ``box_input`` that training needs.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON array of LLaVA-style entries; copy it again")
    records = []
    for index, entry in enumerate(entries):
        record, task = _record(entry, index, f"{path}: entry {index}")
        # In a training array the same turn is the answer to learn, and a reference there would mark
        # the sample as a question of an evaluation split.
        if evaluation and record.references is None and task.references_in == "turn":
            record = replace(record, references=[record.answer])
        records.append(record)
    return records


def _record(value: Any, index: int, where: str) -> tuple[Record, Task]:
    entry = check_external(value, _Entry, where, _REMEDY)
    metadata = entry.metadata
    tasks = {task.dataset: task for task in TASKS.values()}
    if metadata.dataset not in tasks:
        known = ", ".join(tasks)
        raise DataError(f"{where}: metadata.dataset is {metadata.dataset!r}; known are {known}")
    task = tasks[metadata.dataset]
    objects = None
    if task.objects != "none":
        objects = check_external(value["metadata"], _Objects, f"{where}: metadata", _REMEDY)
    references = _first_given(value.get("references"), value.get("annotations"), metadata.answers)
    if task.box_input and not (value.get("box_input") or references):
        raise DataError(f"{where}: box_input is missing, which a {task.title} sample points at")
    box = _first_given(value.get("box"), value.get("gt_box"))
    untyped = metadata.question_type == task.untyped
    # Ids are taken as strings; an entry without one is named by its index.
    identifier = _first_given(value.get("id"), index)
    record = {
        "format_version": FORMAT_VERSION,
        "id": str(identifier) if type(identifier) is int else identifier,
        "benchmark": task.name,
        "scene": entry.video,
        "conversations": value.get("conversations"),
        "question_type": None if untyped else metadata.question_type,
        "ann_id": objects.ann_id[0] if objects and objects.ann_id else None,
        "object_ids": objects.object_id if objects else None,
        "box": [box] if task.objects == "any" and is_box(box) else box,
        "box_input": value.get("box_input"),
        "references": references,
    }
    return Record.from_json(record, where), task


def load_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file: LLaVA-style if its name ends in ``.json``, else JSON lines.

    Of an array (`read_entries`), repeated ids get numbers appended.

    Raises:
        DataError: the file is missing or malformed.
    """
    if path.suffix == ".json":
        yield from with_unique_ids(read_entries(path))
    else:
        yield from read_records(path)
