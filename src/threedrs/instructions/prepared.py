"""Records from a prepared LLaVA-style array, in place of a conversion.

One array may hold several benchmarks, of which one is taken. The array is held in memory: 223,128
entries take about 0.5 GB.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from threedrs.errors import DataError
from threedrs.instructions.convert import (
    ConversionSummary,
    OnReject,
    split_rejections,
    write_conversion,
)
from threedrs.instructions.llava_format import read_entries
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.annotation_rows import (
    MALFORMED,
    SCENE_MISSING,
    TRAINING_SPLIT,
    AnnotationTables,
    Rejection,
    RowError,
)
from threedrs.tasks.base import Task
from threedrs.tasks.record import Record
from threedrs.tasks.registry import find_task
from threedrs.tasks.scene_boxes import SceneBoxes

if TYPE_CHECKING:
    from threedrs.scannet.boxes import BoxSet

logger = logging.getLogger(__name__)


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
    hold their references; training samples may not.

    The other arguments are those of `convert`.

    Args:
        array: the .json file.
        scenes: the scenes of the split.

    Raises:
        ConfigError: unknown benchmark or split.
        DataError: as `split_rejections`; the file is no such array or holds nothing of the
            benchmark, or questions and training samples are mixed up.
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
        names=(array.name,),
        tables=(found,),
        scenes=SceneBoxes(layout, split, boxes, left_out),
        labels_file=layout.labels_file,
    )
    outcomes = _checked(found, task, source, scenes)
    records, rejections = split_rejections(
        outcomes, source, array.parent, out, on_reject, max_reject_fraction
    )
    return write_conversion(task, source, records, rejections, array.parent, out)


def _checked(
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
                    SCENE_MISSING,
                    f"{record.id}: {record.scene} is not in the split's scene list",
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
