"""The user's files: which ones a run needs, which scan has which, and the cut into shards.

`SCAN_FILES` lists what a scan may have. A run needs a part of it, and `scan_table` says which scan
has what: six looks at the disk a scene, 0.1 s for ScanNet's 1,513 scenes on a local disk.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.io.files import read_json
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.layout import DataLayout, ScanFiles
from threedrs.tasks.base import TRAINING_SPLIT
from threedrs.tasks.registry import annotation_files, find_task

FORMAT_VERSION = 1
SHOWN = 20
INTRINSIC_FILES = ("intrinsic.txt", "depth_intrinsic.txt")  # every export has both
# What a scan may have: kind -> its name in tables, and the files (attributes of ScanFiles).
SCAN_FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sens": ("scans (.sens)", ("sens",)),
    "posed_images": ("frames (posed_images)", ("posed_images",)),
    "mesh": ("mesh", ("mesh",)),
    "annotation": ("annotation", ("segments", "aggregation")),
    "alignment": ("axis alignment (.txt)", ("meta",)),
    "proposals": ("masks (proposals)", ("proposals",)),
}
# What follows from files.
_DERIVED = {
    "gt_boxes": "gt boxes",
    "detector_boxes": "detector boxes",
    "candidates": "candidate frames",
}
_SHOWN_SCENES = 3


def shards(split: str, scenes: Sequence[str], size: int) -> dict[str, list[str]]:
    """Cut ``scenes`` into runs of ``size``, named ``<split>-000``, ``<split>-001``, ..."""
    return {
        f"{split}-{start // size:03d}": list(scenes[start : start + size])
        for start in range(0, len(scenes), size)
    }


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Processed files that stand in for annotations and scans.

    Attributes:
        instructions: split -> path of a LLaVA-style array below the data root, perhaps with
            ``{benchmark}``, or benchmark -> path.
        boxes: path below the data root with ``{split}`` and ``{set}``, or None.
    """

    instructions: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    boxes: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ready":
        """Return what the config's ``instructions.ready`` and ``boxes.ready`` name."""
        return cls(instructions=config["instructions"]["ready"], boxes=config["boxes"]["ready"])

    def array(self, layout: DataLayout, benchmark: str, split: str) -> Path | None:
        """Return the LLaVA-style array of a benchmark's records; None: they are converted."""
        named = self.instructions.get(split)
        path = named.get(benchmark) if isinstance(named, Mapping) else named
        return None if path is None else layout.root / path.replace("{benchmark}", benchmark)

    def box_files(self, layout: DataLayout, split: str) -> dict[str, Path]:
        """Return box set -> its ready file, for those that exist."""
        if self.boxes is None:
            return {}
        named = {name: layout.root / self.boxes.format(split=split, set=name) for name in BOX_SETS}
        return {name: path for name, path in named.items() if path.is_file()}


def conversions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return benchmark and split of the records that a run needs: to train on, to evaluate on."""
    trained = [(name, TRAINING_SPLIT) for name in config["instructions"]["benchmarks"]]
    asked = [(name, find_task(name).evaluation_split) for name in config["eval"]["benchmarks"]]
    return trained + asked


def required_files(
    layout: DataLayout, records: Iterable[tuple[str, str]], ready: Ready | None = None
) -> list[Path]:
    """Return every file that a run over train and val scenes cannot do without.

    ``records`` are the pairs of `conversions`.

    A scan may lack its detector proposals: it then has no detector boxes, and the scene report says
    so.

    Raises:
        DataError: a scene list is missing or malformed.
    """
    ready = ready or Ready()
    kinds = ["alignment"] if ready.boxes else ["alignment", "mesh", "annotation"]
    files = [layout.labels_file]
    for split in ("train", "val"):
        candidates = layout.candidates_file(split)
        if candidates is not None:
            files.append(candidates)
        for scene in layout.scenes(split):
            scan = layout.scan(scene)
            if scan.source == "sens":
                files.append(scan.sens)
            else:
                files += [scan.posed_images / name for name in INTRINSIC_FILES]
            files += [path for kind in kinds for path in _files(scan, kind)]
        if ready.boxes is not None:
            files.append(layout.root / ready.boxes.format(split=split, set="gt"))
    for benchmark, split in records:
        array = ready.array(layout, benchmark, split)
        files += [array] if array else annotation_files(layout, benchmark, split)
    return list(dict.fromkeys(files))  # several benchmarks may share an array


def _files(scan: ScanFiles, kind: str) -> list[Path]:
    return [getattr(scan, name) for name in SCAN_FILES[kind][1]]


def proposal_files(
    layout: DataLayout, ready: Ready, splits: Iterable[str] = ("train", "val")
) -> list[Path]:
    """Return where the detector proposals of ``splits`` belong; scans may lack them.

    Raises:
        DataError: a scene list is missing or malformed.
    """
    if ready.boxes is not None:
        return [layout.root / ready.boxes.format(split=split, set="pred") for split in splits]
    return [layout.scan(scene).proposals for split in splits for scene in layout.scenes(split)]


def _problem(path: Path) -> str:
    """Return why a file cannot be an input; empty: it is there."""
    try:
        return "" if path.is_file() else "missing (README.md shows the folder layout)"
    except PermissionError:
        return "may not be read by this user; ask the owner of its folder"


def missing_inputs(
    layout: DataLayout,
    records: Iterable[tuple[str, str]],
    arriving: Collection[Path] = (),
    ready: Ready | None = None,
) -> None:
    """Check that every required file is there, and the proposals of at least one val scene.

    ``records`` are the pairs of `conversions`, ``arriving`` files that the run downloads, ``ready``
    those that stand in for others.

    Raises:
        DataError: one line a missing file, the first twenty of them.
    """
    ready = ready or Ready()
    needed = required_files(layout, records, ready)
    missing = [path for path in needed if _problem(path) and path not in arriving]
    proposals = proposal_files(layout, ready, ("val",))
    if proposals and all(_problem(path) and path not in arriving for path in proposals):
        missing.append(proposals[0])
    if missing:
        lines = [f"{path}: {_problem(path)}" for path in missing[:SHOWN]]
        if len(missing) > SHOWN:
            lines.append(f"... and {len(missing) - SHOWN} more")
        raise DataError("\n".join(lines))
    _check_splits(layout, arriving)


def _check_splits(layout: DataLayout, arriving: Collection[Path]) -> None:
    """Raise DataError if a list that is there holds no scene, or two lists hold the same one."""
    split_of: dict[str, str] = {}
    for split in ("train", "val", "test"):
        path = layout.split_file(split)
        if not path.is_file() or path in arriving:
            continue
        scenes = layout.scenes(split)
        if not scenes and split != "test":
            raise DataError(f"{path}: holds no scene; copy the list again")
        for scene in scenes:
            if scene in split_of:
                other = layout.split_file(split_of[scene])
                raise DataError(f"{path}: {scene} stands in {other.name} too; keep it in one list")
            split_of[scene] = split


def scan_table(
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
    splits: dict[str, dict[str, dict[str, bool]]] = {}
    for split, members in scenes.items():
        infos = layout.candidates_file(split)
        candidates = infos is None or infos.is_file()
        ready = {} if ready_boxes is None else _ready_scenes(layout, split, ready_boxes)
        splits[split] = {}
        for scene in members:
            scan = layout.scan(scene)
            has = {kind: all(path.exists() for path in _files(scan, kind)) for kind in SCAN_FILES}
            boxes = {
                "gt": has["mesh"] and has["annotation"],
                "pred": has["mesh"] and has["proposals"],
            }
            boxes |= {name: scene in listed for name, listed in ready.items()}
            splits[split][scene] = has | {
                "gt_boxes": boxes["gt"],
                "detector_boxes": boxes["pred"],
                "candidates": candidates,
            }
    return {"format_version": FORMAT_VERSION, "splits": splits}


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


def start_table(
    layout: DataLayout,
    scenes: Mapping[str, Sequence[str]],
    *,
    stride: int,
    ready_boxes: str | None = None,
) -> str:
    """Return the table that a run starts with: a line a kind of file, a column a split.

    Args:
        layout: the data root; `layout.source` says where frames come from.
        scenes: split -> its scenes.
        stride: of candidate frames where no list is given.
        ready_boxes: as in `scan_table`.
    """
    names = {kind: name for kind, (name, _) in SCAN_FILES.items()} | _DERIVED
    remarks = {
        layout.source: "frames are read from here",
        "candidates": f"every {stride}th frame" if layout.candidates is None else layout.candidates,
        "gt_boxes": ready_boxes or "from mesh and annotation",
        "detector_boxes": ready_boxes or "from mesh and masks",
    }
    splits = scan_table(layout, scenes, ready_boxes)["splits"]
    lines = [["What the scans have", *(f"{s} ({len(m)})" for s, m in scenes.items()), ""]]
    for kind, name in names.items():
        cells = [_cell(table, kind) for table in splits.values()]
        lines.append([name, *cells, remarks.get(kind, "")])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(table: Mapping[str, Mapping[str, bool]], kind: str) -> str:
    """Return how many scenes of a split lack a kind, and the first of them."""
    lacking = [scene for scene, has in table.items() if not has[kind]]
    if not lacking:
        return "all"
    if len(lacking) == len(table):
        return "none"
    more = ", ..." if len(lacking) > _SHOWN_SCENES else ""
    return f"{len(lacking)} lack it: {', '.join(lacking[:_SHOWN_SCENES])}{more}"
