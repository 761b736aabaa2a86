"""Scan2Cap: describe the object at a given place; annotations are ScanRefer's.

Chen et al., "Scan2Cap: Context-aware Dense Captioning in RGB-D Scans", CVPR 2021. Evaluation
follows the paper's "@0.5": every annotated object counts, but only a detector box with an IoU of
at least 0.5 is described.
"""

from collections import defaultdict
from collections.abc import Iterator

from threedrs.instructions.benchmark import (
    Benchmark,
    Published,
    Rejection,
    Source,
)
from threedrs.instructions.record import Record, conversation
from threedrs.instructions.rows import (
    Row,
    RowError,
    check_row,
)
from threedrs.instructions.scanrefer import FILE, Description, read_description

PROMPT = "<image> Given an object located at <coord> , describe the object in detail."
MINIMUM_IOU = 0.5


def convert(source: Source) -> Iterator[Record | Rejection]:
    """Yield one record a description for training, one an object for evaluation."""
    return _training(source) if source.training else _evaluation(source)


def _training(source: Source) -> Iterator[Record | Rejection]:
    def make(_: int, row: Row) -> list[Record]:
        described = read_description(row, source.scenes)
        scene, object_id = described.scene, described.object_id
        (box,) = source.scenes.ground_truth(scene, [object_id])
        return [
            Record(
                id=f"scan2cap_{scene}_{object_id}_{described.annotation}",
                benchmark="scan2cap",
                scene=scene,
                conversations=conversation(PROMPT, described.text.capitalize()),
                object_ids=[object_id],
                box=box,
                box_input=box,
            )
        ]

    yield from source.each_row(make)


def _evaluation(source: Source) -> Iterator[Record | Rejection]:
    """Yield a record for each (scene, object id, object name), in order of first occurrence."""
    rows: dict[tuple[str, int, str], list[tuple[int, Description]]] = defaultdict(list)
    for number, row in enumerate(source.tables[0]):
        try:
            described = read_description(check_row(row), source.scenes)
        except RowError as error:
            yield source.rejection(number, error)
        else:
            key = (described.scene, described.object_id, described.object_name)
            rows[key].append((number, described))
    for (scene, object_id, object_name), members in rows.items():
        try:
            (box,) = source.scenes.ground_truth(scene, [object_id])
            box_input = source.scenes.best_detector_box(scene, box, MINIMUM_IOU)
        except RowError as error:
            for number, _ in members:
                yield source.rejection(number, error)
            continue
        texts = [described.text for _, described in members]
        record = Record(
            id=f"scan2cap_{scene}_{object_id}_{object_name}",
            benchmark="scan2cap",
            scene=scene,
            conversations=conversation(PROMPT, texts[0].capitalize()),
            object_ids=[object_id],
            box=box,
            box_input=box_input,
            references=texts,
        )
        yield from source.usable([record], [number for number, _ in members])


BENCHMARK = Benchmark(
    name="scan2cap",
    paper="https://arxiv.org/abs/2012.02206",
    dataset="scan2cap",
    files=(FILE,),
    splits=("train", "val"),
    evaluation_split="val",
    published={
        "train": Published(rows=36_665, records=36_665),
        "val": Published(rows=9_508, records=2_068),
    },
    convert=convert,
)
