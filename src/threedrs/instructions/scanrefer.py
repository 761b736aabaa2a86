"""ScanRefer: find the one object that a description means.

Chen et al., "ScanRefer: 3D Object Localization in RGB-D Scans using Natural Language", ECCV 2020.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from threedrs.instructions.benchmark import (
    GROUNDING_ANSWER,
    AnnotationFile,
    Benchmark,
    Published,
    Rejection,
    Source,
)
from threedrs.instructions.record import Record, conversation
from threedrs.instructions.rows import (
    Row,
    RowError,
    check_number,
    check_row,
    field,
    text_field,
)
from threedrs.instructions.scene_boxes import SceneBoxes
from threedrs.scannet.label_table import benchmark_class, read_label_table

PROMPT = "<image>Identify the object according to the following description.\n{description}"
FILE = AnnotationFile(path="scanrefer/ScanRefer_filtered_{split}.json")


def prompt(description: str) -> str:
    """Return the human text that asks for the described object."""
    return PROMPT.format(description=description.capitalize())


@dataclass(frozen=True, kw_only=True)
class Description:
    """A row of ScanRefer's files, which Scan2Cap reads too."""

    scene: str
    object_id: int
    object_name: str
    annotation: int
    text: str


def read_description(row: Row, scenes: SceneBoxes) -> Description:
    """Return the row's fields, checked.

    Raises:
        RowError: a field is missing, malformed or empty, or the scene is not known.
    """
    return Description(
        scene=scenes.scene_of(row),
        object_id=check_number(field(row, "object_id"), "object_id"),
        object_name=text_field(row, "object_name"),
        annotation=check_number(field(row, "ann_id"), "ann_id"),
        text=text_field(row, "description"),
    )


def convert(source: Source) -> Iterator[Record | Rejection]:
    """Yield one record a description."""
    table = read_label_table(source.labels_file)
    objects: dict[tuple[str, int], set[int]] = defaultdict(set)
    for row in source.tables[0]:
        try:
            described = read_description(check_row(row), source.scenes)
        except RowError:
            continue  # reported below, when the row is converted
        class_id = benchmark_class(table, described.object_name)
        objects[described.scene, class_id].add(described.object_id)

    def make(_: int, row: Row) -> list[Record]:
        described = read_description(row, source.scenes)
        scene, object_id = described.scene, described.object_id
        same_class = objects[scene, benchmark_class(table, described.object_name)]
        (box,) = source.scenes.ground_truth(scene, [object_id])
        return [
            Record(
                id=f"scanrefer_{scene}_{object_id}_{described.annotation}",
                benchmark="scanrefer",
                scene=scene,
                conversations=conversation(prompt(described.text), GROUNDING_ANSWER),
                question_type="unique" if len(same_class) == 1 else "multiple",
                object_ids=[object_id],
                box=box,
            )
        ]

    yield from source.each_row(make)


BENCHMARK = Benchmark(
    name="scanrefer",
    paper="https://arxiv.org/abs/1912.08830",
    dataset="scanrefer",
    files=(FILE,),
    splits=("train", "val"),
    evaluation_split="val",
    published={"train": Published(rows=36_665, records=36_665)},
    convert=convert,
)
