"""The field's own form of instruction data: one JSON array of LLaVA-style entries.

What is written is what the published converters write, field by field, so that other training and
evaluation code reads it: ids as published, an object's box under ``box`` (Scan2Cap: ``gt_box``,
beside ``box_input``), the true answers where the benchmark keeps them (`Task.references_in`).
Exported records read back unchanged. Arrays that others made are read too. Writing streams;
reading holds the array in memory (223,128 entries: about 0.5 GB).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import atomic_file, read_json
from threedrs.scannet.layout import PREFIX
from threedrs.tasks.annotation_rows import RowError, check_number
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


def read_llava(path: Path, *, evaluation: bool = False) -> list[Record]:
    """Return the records of a LLaVA-style JSON array (`read_entries`) under unique ids."""
    return list(with_unique_ids(read_entries(path, evaluation=evaluation)))


def read_entries(path: Path, *, evaluation: bool = False) -> list[Record]:
    """Return the records of a LLaVA-style JSON array, repeated ids as they are.

    Ids are taken as strings; an entry without one is named by its index.

    Args:
        path: the .json file.
        evaluation: whether the entries are questions: of a benchmark whose arrays hold the true
            answer in the gpt turn alone, it becomes the reference.

    Raises:
        DataError: the file is no such array; an entry is of an unknown dataset, is malformed, or
            lacks the object id or the ``box_input`` that training needs.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON array of LLaVA-style entries")
    tasks = {task.dataset: task for task in TASKS.values()}
    records = []
    for index, entry in enumerate(entries):
        record, task = _record(entry, index, tasks, f"{path}: entry {index}")
        # In a training array the same turn is the answer to learn, and a reference there would mark
        # the sample as a question of an evaluation split.
        if evaluation and record.references is None and task.references_in == "turn":
            record = replace(record, references=[record.answer])
        records.append(record)
    return records


def _record(entry: Any, index: int, tasks: Mapping[str, Task], where: str) -> tuple[Record, Task]:
    metadata = entry.get("metadata") if isinstance(entry, dict) else None
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: expected a JSON object with an object under 'metadata'")
    dataset = metadata.get("dataset")
    if not isinstance(dataset, str) or dataset not in tasks:
        raise DataError(f"{where}: metadata.dataset is {dataset!r}; known are {', '.join(tasks)}")
    task = tasks[dataset]
    video = entry.get("video")
    if not isinstance(video, str) or not video.startswith(PREFIX):
        raise DataError(f"{where}: video is {video!r}; expected 'scannet/<scene>'")
    object_ids = annotation = None
    if task.objects != "none":
        object_ids = _integers(metadata.get("object_id"), "object_id", where)
        annotation = metadata.get("ann_id")
        if annotation is not None:
            annotation = _integers(annotation, "ann_id", where)[0]
    references = _first_given(entry.get("references"), entry.get("annotations"))
    references = _first_given(references, metadata.get("answers"))
    if task.box_input and not (entry.get("box_input") or references):
        raise DataError(f"{where}: box_input is missing, which a {task.title} sample points at")
    box = _first_given(entry.get("box"), entry.get("gt_box"))
    question_type = metadata.get("question_type")
    identifier = _first_given(entry.get("id"), index)
    value = {
        "format_version": FORMAT_VERSION,
        "id": str(identifier) if type(identifier) is int else identifier,
        "benchmark": task.name,
        "scene": video.removeprefix(PREFIX),
        "conversations": entry.get("conversations"),
        "question_type": None if question_type == task.untyped else question_type,
        "ann_id": annotation,
        "object_ids": object_ids,
        "box": [box] if task.objects == "any" and is_box(box) else box,
        "box_input": entry.get("box_input"),
        "references": references,
    }
    return Record.from_json(value, where), task


def _first_given(value: Any, other: Any) -> Any:
    return other if value is None else value


def _integers(value: Any, name: str, where: str) -> list[int]:
    """Return one integer, as a number or as its digits, or a list of such, as a list."""
    with suppress(RowError):
        items = value if isinstance(value, list) else [value]
        numbers = [check_number(item, name) for item in items]
        if all(number >= 0 for number in numbers):
            return numbers
    raise DataError(
        f"{where}: metadata.{name} is {value!r:.80}; expected an integer from 0, or a list of them"
    )


def load_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file: LLaVA-style if its name ends in ``.json``, else JSON lines.

    Raises:
        DataError: the file is missing or malformed.
    """
    if Path(path).suffix == ".json":
        yield from read_llava(path)
    else:
        yield from read_records(path)
