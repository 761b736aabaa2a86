"""Records of a benchmark: from its annotation files, or from a prepared LLaVA-style array.

An array may hold several benchmarks, of which one is taken; it is held in memory (223,128 entries:
about 0.5 GB). Beside ``<name>.jsonl`` stand ``<name>.rejected.jsonl`` with the rows that could not
be converted, and ``<name>.summary.json`` with the counts. The largest split, SQA3D's 79,445
training records, takes a few seconds and about 300 MB.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from threedrs.errors import DataError, counted
from threedrs.instructions.llava_format import read_entries
from threedrs.io.files import sha256_of_file, write_json, write_json_lines
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.annotation_rows import (
    MALFORMED,
    SCENE_LEFT_OUT,
    SCENE_MISSING,
    TRAINING_SPLIT,
    AnnotationTables,
    Rejection,
    RowError,
)
from threedrs.tasks.base import Task
from threedrs.tasks.record import FORMAT_VERSION, Record, with_unique_ids, write_records
from threedrs.tasks.registry import find_task
from threedrs.tasks.scene_boxes import SceneBoxes

if TYPE_CHECKING:
    from threedrs.scannet.boxes import BoxSet

logger = logging.getLogger(__name__)
OnReject = Literal["report", "fail"]  # list rejected rows, or stop at the first


@dataclass(frozen=True, kw_only=True)
class ConversionSummary:
    """What a conversion read and wrote."""

    benchmark: str
    split: str
    rows: int  # rows of the benchmark's first annotation file
    records: int  # records written
    rejected: int  # rows rejected, of all its annotation files, those of left-out scenes included
    reasons: dict[str, int]  # reason -> rows rejected for it
    repeated_ids: int  # records whose id stood before; they got a number appended
    inputs: dict[str, str]  # annotation file (path below the benchmark folder) -> SHA-256
    # Records that the full published file gives; None where this file has another number of rows or
    # the number is not known.
    published_records: int | None
    # Scene whose scan cannot be used -> records that it would have had.
    left_out: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the value of the summary file."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def convert(
    benchmark: str,
    split: str,
    layout: DataLayout,
    boxes: "Mapping[str, Mapping[str, BoxSet]] | None",
    out: Path,
    on_reject: OnReject = "report",
    max_reject_fraction: float = 0.01,
    left_out: Mapping[str, str] | None = None,
) -> ConversionSummary:
    """Convert a benchmark's annotation files and write records, rejected rows and summary.

    Args:
        boxes: scene -> {"gt": BoxSet, "pred": BoxSet}; None: computed from the scans when needed.
        on_reject, max_reject_fraction: as ``instructions`` of the configuration has them.
        left_out: scene -> reason, for scenes whose scans cannot be used. Their rows are listed as
            rejected and counted, but are no fault of the annotations: they stop nothing.

    Raises:
        ConfigError: unknown benchmark or split.
        DataError: an annotation file is missing or malformed, a row or too many are rejected, or a
            full published file gives another number of records than published.
    """
    task = find_task(benchmark, split)
    folder = layout.benchmark_folder
    names = tuple(file.path.format(split=split) for file in task.files)
    source = AnnotationTables(
        split=split,
        folder=folder,
        names=names,
        tables=tuple(
            file.read(folder / name) for file, name in zip(task.files, names, strict=True)
        ),
        scenes=SceneBoxes(layout, split, boxes, left_out),
        labels_file=layout.labels_file,
    )
    # A published file is recognised by its number of rows.
    published = task.published_sizes.get(split)
    expected = published.records if published and published.rows == len(source.tables[0]) else None
    outcomes = task.convert(source)
    return _write_conversion(
        task, outcomes, source, out, on_reject, max_reject_fraction, published_records=expected
    )


def take_prepared(
    benchmark: str,
    split: str,
    array: Path,
    layout: DataLayout,
    scenes: frozenset[str],
    boxes: "Mapping[str, Mapping[str, BoxSet]]",
    out: Path,
    on_reject: OnReject = "report",
    max_reject_fraction: float = 0.01,
    left_out: Mapping[str, str] | None = None,
) -> ConversionSummary:
    """Write the records of one benchmark from a LLaVA-style array, as `convert` does.

    An entry of a scene outside ``scenes``, or of an object without a box that its split needs, is
    rejected and listed; its row counts from 0 within the whole array. Evaluation questions must
    hold their references; training samples may not. ``scenes`` are those of the split.

    Raises:
        ConfigError: unknown benchmark or split.
        DataError: as `convert`; the file is no such array or holds nothing of the benchmark, or
            questions and training samples are mixed up.
    """
    task = find_task(benchmark, split)
    training = split == TRAINING_SPLIT
    entries = enumerate(read_entries(array, evaluation=not training))
    found = [(row, record) for row, record in entries if record.benchmark == benchmark]
    if not found:
        raise DataError(f"{array}: holds no entries of {benchmark}; leave it out of instructions")
    for _, record in found:
        if training and record.references is not None:
            raise DataError(f"{array}: {record.id} has references: an evaluation question")
        if not training and record.references is None and not task.grounding:
            # Grounding is scored against boxes, not texts.
            raise DataError(f"{array}: {record.id} has no references, which {split} is scored with")
    if not training and task.seems_short_of_answers(r.references or () for _, r in found):
        logger.warning(
            "%s: no question of %s holds more than one true answer; published scores count all "
            "that its annotation files give, so convert those if there are several",
            *(array, task.title),
        )
    source = AnnotationTables(
        split=split,
        folder=array.parent,
        names=(array.name,),
        tables=(found,),
        scenes=SceneBoxes(layout, split, boxes, left_out),
        labels_file=layout.labels_file,
    )
    outcomes = _checked_entries(found, task, source, scenes)
    return _write_conversion(task, outcomes, source, out, on_reject, max_reject_fraction)


def _checked_entries(
    found: Sequence[tuple[int, Record]],
    task: Task,
    source: AnnotationTables,
    scenes: frozenset[str],
) -> Iterator[Record | Rejection]:
    """Yield each record that the converters could have made, and the rejection of each other."""
    # Whoever made the array may have had other scans and boxes than these, so an entry is held
    # against what a converted row would be.
    for row, record in found:
        try:
            if record.scene not in scenes:
                raise RowError(
                    SCENE_MISSING, f"{record.id}: {record.scene} is not in the split's scene list"
                )
            if record.object_ids is not None:
                count = len(record.object_ids)
                if count != 1 and task.objects == "one":
                    raise RowError(MALFORMED, f"{record.id}: names {count} objects, expected one")
                if task.needs_true_boxes(source.split):
                    source.scenes.ground_truth(record.scene, record.object_ids)
        except RowError as error:
            yield source.rejection(row, error)
        else:
            yield from source.of_scene([record], [row])


def _write_conversion(
    task: Task,
    outcomes: Iterable[Record | Rejection],
    source: AnnotationTables,
    out: Path,
    on_reject: OnReject,
    max_reject_fraction: float,
    published_records: int | None = None,
) -> ConversionSummary:
    """Write rejected rows, records and summary of a conversion, and return the summary.

    Raises:
        DataError: a row is rejected and ``on_reject`` is "fail", or more than the fraction of a
            file's rows are; those of excluded scenes do not count. Or there are other than the
            ``published_records``.
    """
    records: list[Record] = []
    rejections: list[Rejection] = []
    for outcome in outcomes:
        if isinstance(outcome, Record):
            records.append(outcome)
        elif on_reject == "fail" and outcome.reason != SCENE_LEFT_OUT:
            raise DataError(
                f"{source.folder / outcome.file}: row {outcome.row}: {outcome.reason} "
                f"({outcome.detail}); mend the row, or set on_reject to report"
            )
        else:
            rejections.append(outcome)
    _write_rejected(rejections, source, out, max_reject_fraction)
    rows = len(source.tables[0])
    # With rejected rows the count must differ.
    if published_records not in (None, len(records)) and not rejections:
        raise DataError(
            f"{source.folder / source.names[0]}: has the published file's "
            f"{counted(rows, 'row')} but gives {counted(len(records), 'record')}, not "
            f"{published_records}; take the file as published"
        )
    unique = list(with_unique_ids(records))
    left_out: Counter[str] = Counter()
    for rejection in rejections:
        if rejection.scene is not None:
            left_out[rejection.scene] += rejection.records
    summary = ConversionSummary(
        benchmark=task.name,
        split=source.split,
        rows=rows,
        records=len(records),
        rejected=len(rejections),
        reasons=dict(sorted(Counter(rejection.reason for rejection in rejections).items())),
        repeated_ids=sum(a is not b for a, b in zip(records, unique, strict=True)),
        inputs={name: sha256_of_file(source.folder / name) for name in source.names},
        published_records=published_records,
        left_out=dict(left_out),
    )
    # The summary comes last: where it is, the records are whole.
    write_records(out, unique)
    write_json(out.with_suffix(".summary.json"), summary.to_json())
    return summary


def _write_rejected(
    rejections: Sequence[Rejection], source: AnnotationTables, out: Path, max_reject_fraction: float
) -> None:
    """List the rejected rows beside ``out``, and refuse too many; see `_write_conversion`."""
    # Written before the limit is checked, so that the user sees what was wrong.
    rejected_file = out.with_suffix(".rejected.jsonl")
    fields = ("file", "row", "reason", "detail")
    write_json_lines(
        rejected_file,
        (
            {"format_version": FORMAT_VERSION, **{name: getattr(one, name) for name in fields}}
            for one in sorted(rejections, key=lambda one: (one.file, one.row))
        ),
    )
    for name, table in zip(source.names, source.tables, strict=True):
        of_file = [r for r in rejections if r.file == name and r.reason != SCENE_LEFT_OUT]
        if len(of_file) > max_reject_fraction * len(table):
            # With the first row, since Snakemake removes the list together with a failed job.
            raise DataError(
                f"{source.folder / name}: {counted(len(of_file), 'row')} rejected of {len(table)}, "
                f"more than max_reject_fraction {max_reject_fraction:g}; {rejected_file} lists "
                f"them, e.g. row {of_file[0].row}: {of_file[0].reason} ({of_file[0].detail})"
            )
