"""The five benchmarks' annotation files and the label table, with the published fields.

ScanRefer (Chen et al., ECCV 2020), Multi3DRefer (Zhang et al., ICCV 2023), ScanQA (Azuma et al.,
CVPR 2022) and SQA3D (Ma et al., ICLR 2023). Scan2Cap uses ScanRefer's files.
"""

import re
from collections import defaultdict
from itertools import count
from typing import Any

import numpy as np

from threedrs.demo.language import describe_things, make_descriptions, make_multi_descriptions
from threedrs.demo.questions import Question, make_questions
from threedrs.demo.relations import SIZES, Query
from threedrs.demo.room_objects import Room
from threedrs.demo.situations import Situation, make_situated_questions
from threedrs.scannet.layout import scene_split
from threedrs.tasks import multi3drefer, scanqa, scanrefer, sqa3d

SITUATIONS = 8  # a round, scene and split; val scenes have as many again for test
FIRST_SQA3D_ID = 220_602_000_000
TRAINING_ANSWERS = 2  # of a ScanQA question: each is a training sample, as in the published files

_TABLE_HEADER = [
    "id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "nyu40class",
    "eigen13class", "ModelNet40", "ModelNet10", "ShapeNetCore55", "synsetoffset", "wnsynsetid",
    "wnsynsetkey", "mpcat40", "mpcat40index",
]  # fmt: skip
# raw category -> NYU40 id and class, Eigen13 id and class
_CLASSES: dict[str, tuple[int, str, int, str]] = {
    "wall": (1, "wall", 12, "Wall"),
    "floor": (2, "floor", 5, "Floor"),
    "chair": (5, "chair", 4, "Chair"),
    "office chair": (5, "chair", 4, "Chair"),
    "armchair": (5, "chair", 4, "Chair"),
    "couch": (6, "sofa", 9, "Sofa"),
    "table": (7, "table", 10, "Table"),
    "coffee table": (7, "table", 10, "Table"),
    "desk": (14, "desk", 10, "Table"),
    "cabinet": (3, "cabinet", 6, "Furniture"),
    "dresser": (17, "dresser", 6, "Furniture"),
    "bookshelf": (10, "bookshelf", 6, "Furniture"),
    "bed": (4, "bed", 1, "Bed"),
    "nightstand": (32, "night stand", 6, "Furniture"),
    "lamp": (35, "lamp", 7, "Objects"),
    "trash can": (39, "otherfurniture", 6, "Furniture"),
    "refrigerator": (24, "refridgerator", 6, "Furniture"),
    "monitor": (40, "otherprop", 7, "Objects"),
    "box": (29, "box", 7, "Objects"),
    "pillow": (18, "pillow", 7, "Objects"),
    "stool": (40, "otherprop", 7, "Objects"),
    "ottoman": (39, "otherfurniture", 6, "Furniture"),
    "door": (8, "door", 12, "Wall"),
    "window": (9, "window", 13, "Window"),
    "picture": (11, "picture", 8, "Picture"),
}


def label_table() -> str:
    """Return the text of ``scannetv2-labels.combined.tsv``: 17 columns, a row for each class."""
    import pandas as pd

    rows = [
        [number, label, label, 0, nyu, eigen, nyu_class, nyu_class, eigen_class]
        for number, (label, (nyu, nyu_class, eigen, eigen_class)) in enumerate(_CLASSES.items(), 1)
    ]
    table = pd.DataFrame(rows, columns=_TABLE_HEADER[: len(rows[0])])
    return str(table.reindex(columns=_TABLE_HEADER).to_csv(sep="\t", index=False))


def _flags(query: Query) -> dict[str, bool]:
    """Multi3DRefer's marks of what a description speaks of."""
    size = query.relation is not None and query.relation.kind in SIZES
    return {
        "spatial": query.relation is not None and not size,
        "color": query.colour is not None,
        "texture": False,
        "shape": size,
    }


def annotate(
    scene: str, room: Room, rng: np.random.Generator, rounds: int = 1, *, things: bool = False
) -> dict[str, list[Any]]:
    """Return a scene's rows of each benchmark, by name, without what depends on the split.

    ``rounds``: times the usual number of rows, as far as the room has different ones. ``things``:
    descriptions by colour alone besides.

    ``object_name`` has underscores for spaces, as published in ScanRefer.
    """
    numbers: defaultdict[int, count] = defaultdict(count)  # of an object's descriptions
    by_colour = [*describe_things(room)] if things else []
    single = [row for _, row in by_colour if len(row.object_ids) == 1]
    descriptions = [
        {
            "scene_id": scene,
            "object_id": str(row.object_ids[0]),
            "object_name": row.label.replace(" ", "_"),
            "ann_id": str(next(numbers[row.object_ids[0]])),
            "description": row.text,
            "token": re.findall(r"[a-z0-9]+|[^\sa-z0-9]", row.text.lower()),
        }
        for row in [*make_descriptions(room, rng, rounds), *single]
    ]
    multiple = [
        {
            "scene_id": scene,
            "object_ids": list(row.object_ids),
            "object_name": row.label.replace(" ", "_"),
            "ann_id": number,
            "description": row.text,
            "eval_type": eval_type,
            **_flags(row.query),
        }
        for number, (eval_type, row) in enumerate(
            [*make_multi_descriptions(room, rng, rounds), *by_colour]
        )
    ]
    questions = [
        {
            "scene_id": scene,
            "question": row.text[0].upper() + row.text[1:],
            "answers": list(row.answers),
            "object_ids": list(row.object_ids),
            "object_names": [room.pieces[i].label for i in row.object_ids],
        }
        for row in make_questions(room, rng, rounds)
    ]
    situated = make_situated_questions(room, 2 * SITUATIONS * rounds, rng)
    return {
        "scanrefer": descriptions,
        "multi3drefer": multiple,
        "scanqa": questions,
        "sqa3d": [_situated_row(scene, here, question) for here, question in situated],
    }


def _situated_row(scene: str, here: Situation, asked: Question) -> dict[str, dict[str, Any]]:
    """A question's entries of SQA3D's two files.

    ``rotation`` is a quaternion about z that turns +y into the way the person faces; ``position``
    is metres in the axis-aligned world, whose origin is the middle of the room.
    """
    turn = here.heading - np.pi / 2
    sine, cosine = float(np.sin(turn / 2)), float(np.cos(turn / 2))
    question = {
        "scene_id": scene,
        "situation": here.texts[0],
        "alternative_situation": list(here.texts[1:]),
        "question": asked.text,
    }
    annotation = {
        "scene_id": scene,
        "question_type": "N/A",
        "answer_type": "other",
        "answers": [
            {"answer": text, "answer_confidence": "yes", "answer_id": number}
            for number, text in enumerate(asked.answers, 1)
        ],
        "rotation": {"_x": 0, "_y": 0, "_z": sine, "_w": cosine},
        "position": {"x": here.position[0], "y": here.position[1], "z": 0},
    }
    return {"question": question, "annotation": annotation}


def _sqa3d_file(key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "info": {"description": "Generated demo data in SQA3D's format", "version": "1.0"},
        "license": {"name": "generated, no rights reserved", "url": ""},
        "data_type": "scannet",
        "data_subtype": "v2",
        **({"task_type": "Situated question answering"} if key == "questions" else {}),
        key: rows,
    }


def annotation_files(
    splits: dict[str, list[str]], rows: dict[str, dict[str, list[Any]]]
) -> dict[str, Any]:
    """Return the JSON value of each file, by its path below the benchmark folder.

    ``rows``: scene -> ``annotate``'s rows. SQA3D's test questions are about the val scenes, other
    ones than val's, as there are no test scenes.
    """
    # The tasks' paths alone: an edited metric must not make the demo data stale.
    files: dict[str, Any] = {}
    for split in ("train", "val"):
        scenes = splits[split]
        for benchmark, path in (("scanrefer", scanrefer.PATH), ("multi3drefer", multi3drefer.PATH)):
            files[path.format(split=split)] = [
                row for scene in scenes for row in rows[scene][benchmark]
            ]
        most = TRAINING_ANSWERS if split == "train" else None
        files[scanqa.PATH.format(split=split)] = [
            {
                **row,
                "answers": row["answers"][:most],
                "question_id": f"{split}-{scene.removesuffix('_00')}-{number}",
            }
            for scene in scenes
            for number, row in enumerate(rows[scene]["scanqa"])
        ]
    number = FIRST_SQA3D_ID
    for split in ("train", "val", "test"):
        chosen = []
        for scene in splits[scene_split(split)]:
            situated = rows[scene]["sqa3d"]
            half = len(situated) // 2
            chosen += situated[half:] if split == "test" else situated[:half]
        ids = range(number, number + len(chosen))
        number += len(chosen)
        for path, part in ((sqa3d.QUESTIONS_PATH, "question"), (sqa3d.ANSWERS_PATH, "annotation")):
            entries = [{**row[part], "question_id": i} for i, row in zip(ids, chosen, strict=True)]
            files[path.format(split=split)] = _sqa3d_file(f"{part}s", entries)
    return files
