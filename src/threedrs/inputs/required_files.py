"""Which of the user's files a run needs, and how scenes are cut into shards."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.base import TRAINING_SPLIT
from threedrs.tasks.registry import annotation_files, find_task

SHOWN = 20
INTRINSIC_FILES = ("intrinsic.txt", "depth_intrinsic.txt")  # every export has both


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
        instructions: split -> LLaVA-style array of its records.
        boxes: path below the data root with ``{split}`` and ``{set}``, or None.
    """

    instructions: Mapping[str, Path] = field(default_factory=dict)
    boxes: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Ready":
        """Return what the config's ``instructions.ready`` and ``boxes.ready`` name."""
        arrays = config["instructions"]["ready"]
        return cls(
            instructions={split: Path(path) for split, path in arrays.items()},
            boxes=config["boxes"]["ready"],
        )

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
    files = [layout.labels_file, *ready.instructions.values()]
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
            files.append(scan.meta)
            if ready.boxes is None:
                files += [scan.mesh, scan.segments, scan.aggregation]
        if ready.boxes is not None:
            files.append(layout.root / ready.boxes.format(split=split, set="gt"))
    for benchmark, split in records:
        if split not in ready.instructions:
            files += annotation_files(layout, benchmark, split)
    return files


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
