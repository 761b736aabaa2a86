"""Prepared box files, ``scannet_{split}_{gt,pred}_box.json``, which stand in for scans and masks.

A file maps each scene, written ``scene0000_00`` or as published ``scannet/scene0000_00``, to its
boxes in one of two forms: a list of boxes, whose rows are the object ids; or an object ``{"boxes":
[...], "ids": [...], "labels": [...]}``, labels optional. A box is six numbers, (cx, cy, cz, dx, dy,
dz), metres, axis-aligned world.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import check_encodable, read_json
from threedrs.scannet.layout import PREFIX

FARTHEST = 1e6  # metres from the origin: no scan reaches so far, and float32 holds it


def read_prepared_boxes(path: Path, scenes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return those of ``scenes`` that the file holds, in the form of a boxes file's set.

    Raises:
        DataError: the file is missing or malformed; the message names scene and row.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, scene to boxes")
    found = {}
    for scene in scenes:
        named = [key for key in (scene, PREFIX + scene) if key in content]
        if len(named) > 1:
            raise DataError(f"{path}: {scene} stands there with and without {PREFIX}")
        if named:
            found[scene] = _check_box_set(content[named[0]], f"{path}: {scene}")
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


def _check_box_set(value: Any, where: str) -> dict[str, Any]:
    fields = {"boxes": value} if isinstance(value, list) else value
    boxes = fields.get("boxes") if isinstance(fields, dict) else None
    if not isinstance(boxes, list):
        raise DataError(f"{where}: expected a list of boxes, or an object with boxes and ids")
    ids = fields.get("ids", list(range(len(boxes))))
    labels = fields.get("labels", [""] * len(boxes))
    if not (isinstance(ids, list) and isinstance(labels, list)):
        raise DataError(f"{where}: boxes, ids and labels must be lists")
    if not len(boxes) == len(ids) == len(labels):
        raise DataError(f"{where}: {len(boxes)} boxes, {len(ids)} ids and {len(labels)} labels")
    for row, (box, object_id, label) in enumerate(zip(boxes, ids, labels, strict=True)):
        if not _is_box(box):
            raise DataError(
                f"{where}: boxes[{row}] is not 6 finite numbers with sizes from 0, in metres"
            )
        if type(object_id) is not int or not 0 <= object_id < 2**31 or not isinstance(label, str):
            raise DataError(f"{where}: row {row} needs an integer as id and a string as label")
        check_encodable(label, f"label {row}", where, "mend the label")
    if len(set(ids)) != len(ids):
        raise DataError(f"{where}: an id stands more than once")
    return {"boxes": boxes, "ids": ids, "labels": labels}


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 6
        and all(type(value) in (int, float) and abs(value) <= FARTHEST for value in box)
        and all(size >= 0 for size in box[3:])
    )
