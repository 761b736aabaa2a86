"""Which of the user's files a run needs, and how scenes are cut into shards."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from threedrs.errors import DataError
from threedrs.instructions import annotation_files
from threedrs.layout import DataLayout

SHOWN = 20
INTRINSIC_FILES = ("intrinsic.txt", "depth_intrinsic.txt")  # every export has both


def shards(split: str, scenes: Sequence[str], size: int) -> dict[str, list[str]]:
    """Cut ``scenes`` into runs of ``size``, named ``<split>-000``, ``<split>-001``, ..."""
    return {
        f"{split}-{start // size:03d}": list(scenes[start : start + size])
        for start in range(0, len(scenes), size)
    }


def required_files(layout: DataLayout, benchmarks: Iterable[str]) -> list[Path]:
    """Return every file that a run over train and val scenes cannot do without.

    A scan may lack its detector proposals: it then has no detector boxes, and the scene report says
    so.

    Raises:
        DataError: a scene list is missing or malformed.
    """
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
            files += [scan.mesh, scan.segments, scan.aggregation, scan.meta]
    for benchmark in benchmarks:
        files += annotation_files(layout, benchmark)
    return files


def missing_inputs(
    layout: DataLayout, benchmarks: Iterable[str], arriving: Collection[Path] = ()
) -> None:
    """Check that every required file is there, and the proposals of at least one val scene.

    ``arriving`` are files that the run downloads.

    Raises:
        DataError: one line a missing file, the first twenty of them.
    """
    needed = required_files(layout, benchmarks)
    missing = [path for path in needed if not path.is_file() and path not in arriving]
    proposals = [layout.scan(scene).proposals for scene in layout.scenes("val")]
    if proposals and not any(path.is_file() or path in arriving for path in proposals):
        missing.append(proposals[0])
    if missing:
        lines = [f"{path}: missing (README.md shows the folder layout)" for path in missing[:SHOWN]]
        if len(missing) > SHOWN:
            lines.append(f"... and {len(missing) - SHOWN} more")
        raise DataError("\n".join(lines))
