"""The field's own form of instruction data: one JSON array of LLaVA-style entries.

An entry is ``{"id", "video": "scannet/<scene>", "conversations", "metadata": {"dataset",
"question_type", "ann_id", "object_id"}}`` plus ``box``, ``box_input`` and ``references`` where the
record has them, so that exported records read back unchanged. Arrays that others made are read
too. Writing streams; reading holds the array in memory (223,128 entries: about 0.5 GB).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import atomic_file, read_json
from threedrs.tasks.annotation_rows import RowError, check_number
from threedrs.tasks.base import Task
from threedrs.tasks.record import FORMAT_VERSION, Record, read_records, with_unique_ids
from threedrs.tasks.registry import TASKS


def _annotation_number(record: Record, task: Task) -> int | None:
    """Return the annotation's number that ends the id of a record about objects."""
    if task.objects == "none":
        return None
    object_id = r"_\d+" if task.objects == "one" else ""
    found = re.fullmatch(rf"{task.name}_scene\d{{4}}_\d{{2}}{object_id}_(\d+)", record.id)
    return int(found[1]) if found else None


def write_llava(path: Path, records: Iterable[Record]) -> int:
    """Write records as one LLaVA-style JSON array, whole or not at all; return how many."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for record in records:
            stream.write(",\n" if count else "\n")
            stream.write(json.dumps(_entry(record), ensure_ascii=False, allow_nan=False))
            count += 1
        stream.write("\n]\n")
    return count


def _entry(record: Record) -> dict[str, Any]:
    task = TASKS[record.benchmark]
    object_id: int | list[int] | None = record.object_ids
    # Where a sample may be of several objects or none it is always a list.
    if record.object_ids and task.objects != "any":
        object_id = record.object_ids[0]
    entry: dict[str, Any] = {
        "id": record.id,
        "video": f"scannet/{record.scene}",
        "conversations": record.conversations,
        "metadata": {
            "dataset": task.dataset,
            "question_type": record.question_type,
            "ann_id": _annotation_number(record, task),
            "object_id": object_id,
        },
    }
    for name in ("box", "box_input", "references"):
        if getattr(record, name) is not None:
            entry[name] = getattr(record, name)
    return entry


def read_llava(path: Path) -> list[Record]:
    """Return the records of a LLaVA-style JSON array.

    Entries without a text as id are named by dataset, scene and annotation, or by their place;
    repeated ids get a number appended.

    Raises:
        DataError: the file is no such array; an entry is of an unknown dataset, is malformed, or
            lacks the object id or the ``box_input`` that training needs.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a JSON array of LLaVA-style entries")
    tasks = {task.dataset: task for task in TASKS.values()}
    records = [
        _record(entry, place, tasks, f"{path}: entry {place}")
        for place, entry in enumerate(entries)
    ]
    return list(with_unique_ids(records))


def _record(entry: Any, place: int, tasks: Mapping[str, Task], where: str) -> Record:
    metadata = entry.get("metadata") if isinstance(entry, dict) else None
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: expected a JSON object with an object under 'metadata'")
    dataset = metadata.get("dataset")
    if not isinstance(dataset, str) or dataset not in tasks:
        raise DataError(f"{where}: metadata.dataset is {dataset!r}; known are {', '.join(tasks)}")
    task = tasks[dataset]
    video = entry.get("video")
    if not isinstance(video, str) or not video.startswith("scannet/"):
        raise DataError(f"{where}: video is {video!r}; expected 'scannet/<scene>'")
    scene = video.removeprefix("scannet/")
    object_ids = None
    if task.objects != "none":
        object_ids = _object_ids(metadata.get("object_id"), where)
    if task.box_input and not (entry.get("box_input") or entry.get("references")):
        raise DataError(f"{where}: box_input is missing, which a {task.title} sample points at")
    value = {
        "format_version": FORMAT_VERSION,
        "id": _identifier(entry, task, scene, object_ids, place),
        "benchmark": task.name,
        "scene": scene,
        "conversations": entry.get("conversations"),
        "question_type": metadata.get("question_type"),
        "object_ids": object_ids,
        "box": entry.get("box"),
        "box_input": entry.get("box_input"),
        "references": entry.get("references"),
    }
    return Record.from_json(value, where)


def _object_ids(value: Any, where: str) -> list[int]:
    """Return the object ids of an entry: one, as number or digits, or a list of such."""
    items = value if isinstance(value, list) else [value]
    with suppress(RowError):
        ids = [check_number(item, "object_id") for item in items]
        if all(number >= 0 for number in ids):
            return ids
    raise DataError(
        f"{where}: metadata.object_id is {value!r:.80}; expected an object id or a list of them"
    )


def _identifier(
    entry: dict[str, Any], task: Task, scene: str, object_ids: list[int] | None, place: int
) -> str:
    identifier, annotation = entry.get("id"), entry["metadata"].get("ann_id")
    if isinstance(identifier, str) and identifier:
        return identifier
    if object_ids is not None and annotation is not None:
        objects = "" if task.objects == "any" else f"_{object_ids[0]}"
        return f"{task.name}_{scene}{objects}_{annotation}"
    return f"{task.name}_{place}"


def load_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file: LLaVA-style if its name ends in ``.json``, else JSON lines.

    Raises:
        DataError: the file is missing or malformed.
    """
    if Path(path).suffix == ".json":
        yield from read_llava(path)
    else:
        yield from read_records(path)
