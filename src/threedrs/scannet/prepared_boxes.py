"""Prepared box files, ``scannet_{split}_{gt,pred}_box.json``, which stand in for scans and masks.

A file maps each scene, written ``scene0000_00`` or as published ``scannet/scene0000_00``, to its
boxes in one of two forms: a list of boxes, whose rows are the object ids; or an object ``{"boxes":
[...], "ids": [...], "labels": [...]}``, labels optional. A box is six numbers, (cx, cy, cz, dx, dy,
dz), metres, axis-aligned world.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from threedrs.errors import DataError
from threedrs.io import external_json
from threedrs.io.files import read_json
from threedrs.scannet.layout import PREFIX

FARTHEST = 1e6  # metres from the origin: no scan reaches so far, and float32 holds it
_REMEDY = "mend the file, or make it again"


def _check_sizes(box: list[float]) -> list[float]:
    if min(box[3:]) < 0:
        raise ValueError("a size is negative")
    return box


_Box = Annotated[
    list[Annotated[float, Field(ge=-FARTHEST, le=FARTHEST)]],
    Field(min_length=6, max_length=6),
    AfterValidator(_check_sizes),
]


class _PreparedSet(external_json.ExternalRow):
    boxes: list[_Box]
    ids: list[Annotated[int, Field(ge=0, lt=2**31)]]
    labels: list[external_json.ExternalText]

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        """Give a list of boxes, or an object without all fields, those that follow from it."""
        fields = {"boxes": value} if isinstance(value, list) else value
        boxes = fields.get("boxes") if isinstance(fields, dict) else None
        if not isinstance(boxes, list):
            return fields
        return {"ids": list(range(len(boxes))), "labels": [""] * len(boxes), **fields}

    @model_validator(mode="after")
    def _fitting(self) -> "_PreparedSet":
        counts = len(self.boxes), len(self.ids), len(self.labels)
        if len({*counts}) > 1:
            raise ValueError("{} boxes, {} ids and {} labels".format(*counts))
        if len({*self.ids}) != len(self.ids):
            raise ValueError("an id stands more than once")
        return self


def read_prepared_boxes(path: Path, scenes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return those of ``scenes`` that the file holds, in the form of a boxes file's set.

    Raises:
        DataError: the file is missing or malformed; the message names scene and row.
    """
    content = external_json.read_external_json(path, dict[str, Any], _REMEDY)
    found = {}
    for scene in scenes:
        named = [key for key in (scene, PREFIX + scene) if key in content]
        if len(named) > 1:
            raise DataError(f"{path}: {scene} stands there with and without {PREFIX}; {_REMEDY}")
        if named:
            where = f"{path}: {scene}"
            found[scene] = dict(
                external_json.check_external(content[named[0]], _PreparedSet, where, _REMEDY)
            )
    return found


def listed_scenes(path: Path) -> frozenset[str]:
    """Return the scenes that a prepared file holds; of one that cannot be read none.

    What is wrong with it is said by the stage that needs its boxes.
    """
    try:
        content = read_json(path)
    except DataError:
        return frozenset()
    keys = content if isinstance(content, dict) else {}
    return frozenset(key.removeprefix(PREFIX) for key in keys)
