"""Which scan has which files: one table before a run costs time, and beside the scene report.

Eight file look-ups a scene: 0.1 s for ScanNet's 1,513 scenes on a local disk.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.layout import DataLayout, ScanFiles

FORMAT_VERSION = 1
# What a scan may have, and the files that it takes.
FILES: dict[str, tuple[str, ...]] = {
    "sens": ("sens",),
    "posed_images": ("posed_images",),
    "mesh": ("mesh",),
    "annotation": ("segments", "aggregation"),
    "alignment": ("meta",),
    "proposals": ("proposals",),
}
KINDS = (*FILES, "gt_boxes", "detector_boxes", "candidates")
SHOWN = 3


def source_table(
    layout: DataLayout, scenes: Mapping[str, Sequence[str]], ready_boxes: str | None = None
) -> dict[str, Any]:
    """Return which scenes have what: split -> scene -> kind -> whether it is there.

    Boxes are there where the files that they follow from are; candidates by stride always, listed
    ones where the split's file is.

    Args:
        layout: the data root.
        scenes: split -> its scenes.
        ready_boxes: path below the root with ``{split}`` and ``{set}``: boxes come from such
            files. None: from the scans.
    """
    return {
        "format_version": FORMAT_VERSION,
        "splits": {
            split: _of_split(layout, split, members, ready_boxes)
            for split, members in scenes.items()
        },
    }


def _of_split(
    layout: DataLayout, split: str, scenes: Sequence[str], ready_boxes: str | None
) -> dict[str, dict[str, bool]]:
    infos = layout.candidates_file(split)
    candidates = infos is None or infos.is_file()
    ready = {} if ready_boxes is None else _ready_scenes(layout, split, ready_boxes)
    table = {}
    for scene in scenes:
        has = _has(layout.scan(scene))
        boxes = {"gt": has["mesh"] and has["annotation"], "pred": has["mesh"] and has["proposals"]}
        boxes |= {name: scene in listed for name, listed in ready.items()}
        has |= {"gt_boxes": boxes["gt"], "detector_boxes": boxes["pred"], "candidates": candidates}
        table[scene] = has
    return table


def _has(scan: ScanFiles) -> dict[str, bool]:
    return {
        kind: all(getattr(scan, name).exists() for name in names) for kind, names in FILES.items()
    }


def _ready_scenes(layout: DataLayout, split: str, pattern: str) -> dict[str, Collection[str]]:
    """Return box set -> the scenes in its ready file; its stage says what is wrong with one."""
    found: dict[str, Collection[str]] = {}
    for name in BOX_SETS:
        try:
            content = read_json(layout.root / pattern.format(split=split, set=name))
        except DataError:
            content = {}
        found[name] = content if isinstance(content, dict) else {}
    return found


def summary_rows(table: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (split, kind, "n of m", first scenes without it) for each split and kind."""
    rows = []
    for split, scenes in table["splits"].items():
        for kind in KINDS:
            missing = [scene for scene, has in scenes.items() if not has[kind]]
            shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            rows.append((split, kind, f"{len(scenes) - len(missing)} of {len(scenes)}", shown))
    return rows


def start_table(
    layout: DataLayout,
    scenes: Mapping[str, Sequence[str]],
    *,
    stride: int,
    ready_boxes: str | None = None,
) -> str:
    """Return the table that a run starts with: a line a source, a column a split.

    Args:
        layout: the data root; `layout.source` says where frames come from.
        scenes: split -> its scenes.
        stride: of candidate frames where no list is given.
        ready_boxes: as in `source_table`.
    """
    names = {
        "sens": "scans (.sens)",
        "posed_images": "frames (posed_images)",
        "mesh": "mesh",
        "annotation": "annotation",
        "alignment": "axis alignment (.txt)",
        "proposals": "masks (proposals)",
        "gt_boxes": "gt boxes",
        "detector_boxes": "detector boxes",
        "candidates": "candidate frames",
    }
    taken = {
        layout.source: "frames are read from here",
        "candidates": f"every {stride}th frame" if layout.candidates is None else layout.candidates,
        "gt_boxes": ready_boxes or "from mesh and annotation",
        "detector_boxes": ready_boxes or "from mesh and masks",
    }
    rows = summary_rows(source_table(layout, scenes, ready_boxes))
    lines = [["What the scans have", *(f"{s} ({len(m)})" for s, m in scenes.items()), ""]]
    for kind in KINDS:
        cells = [_cell(count, lack) for _, found, count, lack in rows if found == kind]
        lines.append([names[kind], *cells, taken.get(kind, "")])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(count: str, lacking: str) -> str:
    there, _, scenes = count.partition(" of ")
    if there == scenes:
        return "all"
    return "none" if there == "0" else f"{int(scenes) - int(there)} lack it: {lacking}"
