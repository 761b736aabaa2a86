"""Which source serves what of each scene: the table at the start of a run, and of its report.

Frames, axis alignment, candidates, boxes and coverage each come from the first source that has
them, which the table names. Costs some ten looks at the disk a scene, a fifth of a second for
ScanNet's 1,513 scenes on a local disk, and a look into the prepared box files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from threedrs.inputs.required_files import prepared_records
from threedrs.scannet.layout import SPLITS, DataLayout, ScanFiles
from threedrs.scannet.prepared_boxes import listed_scenes

FORMAT_VERSION = 2
_SHOWN_SCENES = 3
# What a scene needs -> its name in the table. Coverage is asked for by the coverage strategies.
KINDS = {
    "frames": "frames",
    "alignment": "axis alignment",
    "candidates": "candidate frames",
    "gt": "gt boxes",
    "pred": "detector boxes",
    "coverage": "voxels of coverage",
}


def scan_table(
    layout: DataLayout, scenes: Mapping[str, Sequence[str]], stride: int
) -> dict[str, Any]:
    """Return which source serves what: split -> scene -> kind -> source, None: nothing does.

    Whether EmbodiedScan's infos hold a scene is not looked up, as that takes a job of its own; the
    scene report notes the scenes that they lack.
    """
    splits: dict[str, dict[str, dict[str, str | None]]] = {}
    for split, members in scenes.items():
        files = layout.prepared_boxes(split)
        prepared = {name: (path, listed_scenes(path)) for name, path in files.items()}
        # A scene is looked up in the files of all splits.
        named = map(layout.candidates_file, SPLITS)
        infos = [path for path in named if path and path.is_file()]
        candidates = "EmbodiedScan" if infos else None
        if layout.candidates is None:
            candidates = f"every {stride}th frame"
        splits[split] = {}
        for scene in members:
            scan = layout.scan(scene)
            found = {
                # A scan's file is called by its ending, a folder by the one that it lies in.
                "frames": scan.frames.suffix or scan.frames.parent.name
                if scan.frames.exists()
                else None,
                "alignment": _alignment(scan, infos),
                "candidates": candidates,
                "gt": _vertices(scan) if _all_there(scan, "gt") else None,
                "pred": scan.proposals.parent.name if _all_there(scan, "pred") else None,
                "coverage": _coverage(layout, scan),
            }
            for name, (path, listed) in prepared.items():
                if scene in listed:
                    found[name] = path.name
            splits[split][scene] = found
    return {"format_version": FORMAT_VERSION, "splits": splits}


def _vertices(scan: ScanFiles) -> str:
    return "mesh" if scan.point_cloud is None else "point cloud"


def _all_there(scan: ScanFiles, box_set: str) -> bool:
    return all(path.exists() for path in scan.box_files(box_set))


def _alignment(scan: ScanFiles, infos: Sequence[Path]) -> str | None:
    if scan.meta.exists():
        return ".txt"
    if infos:
        return "EmbodiedScan"
    return None if scan.mesh.exists() or scan.point_cloud else "none needed"


def _coverage(layout: DataLayout, scan: ScanFiles) -> str | None:
    for key in ("selected_frames", "voxels"):
        path = layout.file(key)
        if path is not None and (key == "selected_frames" or scan.point_cloud is None):
            return path.name
    return _vertices(scan) if scan.point_cloud or scan.mesh.exists() else None


def start_table(
    layout: DataLayout,
    scenes: Mapping[str, Sequence[str]],
    *,
    stride: int,
    coverage: bool = False,
    records: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the table that a run starts with: a line for each kind of source, a column a split."""
    splits = scan_table(layout, scenes, stride)["splits"]
    lines = [["Where scenes come from", *(f"{s} ({len(m)})" for s, m in scenes.items())]]
    lines.append(["scene list", *(layout.scene_list_source(split) for split in scenes)])
    for kind, name in KINDS.items():
        if kind != "coverage" or coverage:
            lines.append([name, *(_cell(table, kind) for table in splits.values())])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*rows, *_record_lines(layout, records)])


def _cell(table: Mapping[str, Mapping[str, str | None]], kind: str) -> str:
    """Return how many scenes of a split each source serves, and the first that none does."""
    counts = Counter(served[kind] for served in table.values())
    lacking = [scene for scene, served in table.items() if served[kind] is None]
    if len(counts) <= 1:
        return next(iter(counts), None) or "none"
    cells = [f"{source}: {count}" for source, count in counts.most_common() if source is not None]
    if lacking:
        more = ", ..." if len(lacking) > _SHOWN_SCENES else ""
        cells.append(f"{len(lacking)} lack it: {', '.join(lacking[:_SHOWN_SCENES])}{more}")
    return "; ".join(cells)


def _record_lines(layout: DataLayout, records: Sequence[tuple[str, str]]) -> list[str]:
    """Return one line that says which records come from where, and one on the label table."""
    if not records:
        return []
    named: dict[str, list[str]] = {}
    for benchmark, split in dict.fromkeys(records):
        source = f"records converted from {layout.benchmark_folder}"
        if array := prepared_records(layout, benchmark, split):
            source = f"records as prepared in {array.parent}"
        named.setdefault(source, []).append(f"{benchmark} {split}")
    lines = [f"{source}/: {', '.join(names)}" for source, names in named.items()]
    if not layout.labels_file.is_file():
        lines.append(f"{layout.labels_file}: not there, and not needed for these records")
    return lines
