"""Boxes from ready files, ``scannet_{train,val}_{gt,pred}_box.json``, instead of scans and masks.

A file maps each scene to its boxes, centre and size in metres, axis-aligned world. Two forms are
read: a list of boxes, ``[[cx, cy, cz, dx, dy, dz], ...]``, whose rows are the object ids; or an
object ``{"boxes": [...], "ids": [...], "labels": [...]}``, labels optional.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json, text_problem, write_json
from threedrs.scannet.boxes import BOX_SETS, FORMAT_VERSION, read_boxes_file


def take_boxes(scenes: Sequence[str], files: dict[str, Path], out: Path) -> None:
    """Write the boxes file of ``scenes`` as `threedrs.scannet.boxes.extract_boxes` does.

    A scene that a file lacks has no boxes of that set, and a note.

    Args:
        scenes: the shard's scenes.
        files: box set -> its file; a set without a file has no boxes.
        out: the boxes file.

    Raises:
        DataError: a file is missing or malformed; the message names scene and row.
    """
    taken: dict[str, dict[str, Any]] = {scene: {} for scene in scenes}
    notes = []
    for name in BOX_SETS:
        content = read_json(files[name]) if name in files else {}
        if not isinstance(content, dict):
            raise DataError(f"{files[name]}: expected a JSON object, scene to boxes")
        for scene in scenes:
            if scene in content:
                taken[scene][name] = _box_set(content[scene], f"{files[name]}: {scene}")
                continue
            taken[scene][name] = {"boxes": [], "ids": [], "labels": []}
            where = files[name].name if name in files else "configured file"
            notes.append({"scene": scene, "note": f"not in {where}: no {name} boxes"})
    used = ", ".join(str(file) for file in files.values())
    try:
        write_json(out, {"format_version": FORMAT_VERSION, "scenes": taken, "notes": notes})
    except UnicodeEncodeError as error:
        problem = text_problem(error.object)
        raise DataError(f"{used}: a text {problem}; mend the label") from error
    except ValueError as error:  # JSON has no infinity, Python's reader takes it
        raise DataError(f"{used}: holds a number that is not finite") from error
    try:
        read_boxes_file(out)  # its checks of numbers and ids
    except DataError as error:
        out.unlink()
        raise DataError(f"{used}: {str(error).removeprefix(f'{out}: ')}") from error


def _box_set(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, list):
        value = {"boxes": value}
    if not isinstance(value, dict) or not isinstance(value.get("boxes"), list):
        raise DataError(f"{where}: expected a list of boxes, or an object with boxes and ids")
    count = len(value["boxes"])
    return {
        "boxes": value["boxes"],
        "ids": value.get("ids", list(range(count))),
        "labels": value.get("labels", [""] * count),
    }
