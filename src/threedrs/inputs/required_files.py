"""The user's files: which ones a run needs, and the cut of the scenes into shards.

Prepared files stand in for scans and annotations: box files, arrays of records. What a name gives
and is not there is taken from the next source: boxes from point clouds, scans and masks, records
from the benchmark's annotation files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from threedrs.errors import DataError
from threedrs.scannet.boxes import BOX_SETS
from threedrs.scannet.layout import SPLITS, DataLayout, ScanFiles, scene_split
from threedrs.tasks.annotation_rows import TRAINING_SPLIT
from threedrs.tasks.registry import annotation_files, find_task

SHOWN = 20
INTRINSIC_FILES = ("intrinsic.txt", "depth_intrinsic.txt")  # every export has both
_FIRST_BYTES = 4096  # hold the first row of an annotation file


def prepared_records(layout: DataLayout, benchmark: str, split: str) -> Path | None:
    """Return the prepared array of a benchmark's records; None: they are converted.

    A named array that is missing is returned all the same if there is nothing to convert.
    """
    name = layout.records.get(split, {}).get(benchmark)
    if name is None:
        return None
    path = layout.root / name
    others = annotation_files(layout, benchmark, split)
    converted = not layout.is_there(path) and all(other.is_file() for other in others)
    return None if converted else path


def shards(split: str, scenes: Sequence[str], size: int) -> dict[str, list[str]]:
    """Cut ``scenes`` into runs of ``size``, named ``<split>-000``, ``<split>-001``, ..."""
    return {
        f"{split}-{start // size:03d}": list(scenes[start : start + size])
        for start in range(0, len(scenes), size)
    }


def trained_runs(config: Mapping[str, Any]) -> list[str]:
    """Return the names of the runs that are trained; the others evaluate a checkpoint as it is."""
    return [name for name, run in config["runs"].items() if "checkpoint" not in run]


def scene_splits(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the splits whose scenes are needed: without training, those of evaluation alone."""
    return ("train", "val") if trained_runs(config) else ("val",)


def conversions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return benchmark and split of the records that a run needs: to train on, to evaluate on."""
    asked = [(name, find_task(name).evaluation_split) for name in config["eval"]["benchmarks"]]
    if not trained_runs(config):
        return asked
    return [(name, TRAINING_SPLIT) for name in config["instructions"]["benchmarks"]] + asked


def box_needs(layout: DataLayout, config: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return split and box set of the boxes that a run cannot do without.

    Training takes one set, and so do the grounding questions. These are scored against the true
    boxes, which conversion and the training records look up too. Captions that are converted point
    at detector boxes, prepared ones hold theirs. A scene may lack its boxes, a whole split may not.
    """
    needs = {("train", config["boxes"]["train"])} if trained_runs(config) else set()
    for benchmark, split in conversions(config):
        task, training = find_task(benchmark), split == TRAINING_SPLIT
        converted = prepared_records(layout, benchmark, split) is None
        if task.needs_true_boxes(split) or (converted and task.objects != "none"):
            needs.add((scene_split(split), "gt"))
        if task.grounding and not training:
            needs.add((scene_split(split), config["boxes"]["eval"]))
        if task.box_input and converted and not training:
            needs.add((scene_split(split), "pred"))
    return needs


def required_files(layout: DataLayout, config: Mapping[str, Any]) -> list[Path]:
    """Return every file that the configuration's runs cannot do without.

    Of several sources that may serve the same thing, the first that is there counts, and where none
    is, the first that the configuration names.

    Raises:
        DataError: a scene list is malformed.
    """
    needs = box_needs(layout, config)
    splits = scene_splits(config)
    infos = [layout.candidates_file(split) for split in splits]
    files = [path for path in infos if path is not None]
    for split in splits:
        listed = layout.has_scenes(split)
        if not listed:  # named beside all else that is missing
            files.append(layout.split_file(split))
        scans = [layout.scan(scene) for scene in (layout.scenes(split) if listed else ())]
        for scan in scans:
            if scan.source == "sens":
                files.append(scan.sens)
            else:
                files += [scan.posed_images / name for name in INTRINSIC_FILES]
            if layout.candidates is None:  # else EmbodiedScan may have the axis alignment
                files.append(scan.meta)
        for box_set in BOX_SETS:
            if (split, box_set) in needs:
                files += _box_sources(layout, split, box_set, scans)
    for benchmark, split in conversions(config):
        array = prepared_records(layout, benchmark, split)
        found = [array] if array else annotation_files(layout, benchmark, split)
        files += found
        if not array and find_task(benchmark).objects == "one" and not _has_types(found[0]):
            files.append(layout.labels_file)
    return list(dict.fromkeys(files))


def _box_sources(
    layout: DataLayout, split: str, box_set: str, scans: Sequence[ScanFiles]
) -> list[Path]:
    """Return the files that a split's boxes of one set come from, as far as they must be there."""
    if box_set in layout.prepared_boxes(split):
        return []
    own = [scan.box_files(box_set) for scan in scans]
    if layout.point_clouds is None and not layout.boxes and box_set == "gt":
        return [path for paths in own for path in paths]
    # Scenes may lack theirs, and the scene report lists these; but not all of them.
    if any(not any(_problem(layout, path) for path in paths) for paths in own):
        return []
    folder = layout.cloud_folder(split)
    if folder is not None and (split, box_set) == ("val", "gt"):
        # No box file of val's ground truth was ever published: it is in the point clouds.
        return [folder / f"{scan.scene}.pth" for scan in scans[:1]]
    if layout.boxes:
        return [layout.root / layout.boxes[split][box_set]]
    return [path for paths in own[:1] for path in paths]


def _has_types(path: Path) -> bool:
    """Whether an annotation file says which descriptions are unique, by its first bytes.

    The converter of the field writes them there, so that no label table is needed.
    """
    try:
        with path.open("rb") as stream:
            return b'"eval_type"' in stream.read(_FIRST_BYTES)
    except OSError:  # reported as missing
        return False


def _problem(layout: DataLayout, path: Path) -> str:
    """Return why a file cannot be an input; empty: it is there, or it arrives."""
    try:
        return "" if layout.is_there(path) else "missing (docs/RUNNING.md shows the folder layout)"
    except PermissionError:
        return "may not be read by this user; ask the owner of its folder"


def missing_inputs(layout: DataLayout, config: Mapping[str, Any]) -> None:
    """Check that every required file is there.

    Raises:
        DataError: one line a missing file, the first twenty of them.
    """
    problems = {path: _problem(layout, path) for path in required_files(layout, config)}
    lines = [f"{path}: {problem}" for path, problem in problems.items() if problem]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"... and {len(lines) - SHOWN} more"]
    if lines:
        raise DataError("\n".join(lines))
    _check_splits(layout)


def _check_splits(layout: DataLayout) -> None:
    """Raise DataError if a list that is there holds no scene, or two lists hold the same one."""
    split_of: dict[str, str] = {}
    for split in SPLITS:
        if not layout.has_scenes(split) or layout.split_file(split) in layout.arriving:
            continue
        path = layout.split_file(split)
        # Without a list it is the point clouds or the prepared files that have to be mended.
        source = path if path.is_file() else layout.scene_list_source(split)
        scenes = layout.scenes(split)
        if not scenes and split != "test":
            raise DataError(f"{source}: holds no scene; copy it again")
        for scene in scenes:
            if scene in split_of:
                other = layout.scene_list_source(split_of[scene])
                raise DataError(f"{source}: {scene} stands in {other} too; keep it in one of them")
            split_of[scene] = split
