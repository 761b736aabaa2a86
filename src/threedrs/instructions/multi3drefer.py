"""Multi3DRefer: find all objects that a description means: none, one or several.

Zhang et al., "Multi3DRefer: Grounding Text Description to Multiple 3D Objects", ICCV 2023.
"""

from collections.abc import Iterator

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
    MALFORMED,
    Row,
    RowError,
    check_number,
    list_field,
    text_field,
)

PROMPT = (
    "<image>Identify the object according to the following description.\n{description}\n"
    "There may be no corresponding object, or there may be one or more objects."
)

# zt, st, mt: zero, single, multiple targets; w_d, wo_d: with, without distractors of the class.
QUESTION_TYPES = ("zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt")


def convert(source: Source) -> Iterator[Record | Rejection]:
    """Yield one record a description; its boxes are looked up by ``object_ids`` when used."""

    def make(number: int, row: Row) -> list[Record]:
        scene = source.scenes.scene_of(row)
        listed = [check_number(value, "object_ids") for value in list_field(row, "object_ids")]
        object_ids = [*dict.fromkeys(listed)]  # each object once: it can be found once
        # A file without ann_id is still told apart, by place.
        annotation = check_number(row.get("ann_id", number), "ann_id")
        question_type = text_field(row, "eval_type")
        if question_type not in QUESTION_TYPES:
            choices = ", ".join(QUESTION_TYPES)
            raise RowError(MALFORMED, f"eval_type is {question_type!r}, none of {choices}")
        human = PROMPT.format(description=text_field(row, "description").capitalize())
        source.scenes.ground_truth(scene, object_ids)  # every target must have a box
        return [
            Record(
                id=f"multi3drefer_{scene}_{annotation}",
                benchmark="multi3drefer",
                scene=scene,
                conversations=conversation(human, GROUNDING_ANSWER),
                question_type=question_type,
                object_ids=object_ids,
            )
        ]

    yield from source.each_row(make)


BENCHMARK = Benchmark(
    name="multi3drefer",
    paper="https://arxiv.org/abs/2309.05251",
    dataset="multi3drefer",
    files=(AnnotationFile(path="multi3drefer/multi3drefer_{split}.json"),),
    splits=("train", "val"),
    evaluation_split="val",
    published={"train": Published(rows=43_838, records=43_838)},
    convert=convert,
)
