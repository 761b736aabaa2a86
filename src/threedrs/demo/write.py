"""The demo data set as a whole: which files it has, and writing them.

Scenes are written by one process each. What a scene holds depends on the seed and its number alone,
so the bytes are the same for any number of processes. ``demo_scenes`` and ``demo_files`` only name
things: the workflow asks them before anything exists, so rendering is imported when writing.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import ConfigError, DataError
from threedrs.io.files import is_leftover, read_json, write_json, write_text
from threedrs.scannet.layout import DataLayout
from threedrs.workflow.processes import end_with_parent

FRAMES = 104  # of a stream: 11 candidates at stride 10, of which one has no pose
MARKER = "demo.json"
FORMAT_VERSION = 1
MAX_SCENES = 10_000
MOST_VAL = 40  # scenes; more rooms are better spent on training


def demo_scenes(scenes: int) -> dict[str, list[str]]:
    """Return the scenes of each split: three of seven val, 1 to ``MOST_VAL``; test is empty.

    So 14 scenes give 6 rooms to evaluate on. A verdict over all nine metrics takes 9, of 21 scenes.

    Raises:
        ConfigError: fewer than two scenes, or more than there are names.
    """
    if not 2 <= scenes <= MAX_SCENES:
        raise ConfigError(
            f"demo: {scenes} scenes; valid are 2 to {MAX_SCENES}: at least one to train on and one "
            "to evaluate on"
        )
    names = [f"scene{number:04d}_00" for number in range(scenes)]
    train = scenes - min(max(1, round(scenes * 3 / 7)), MOST_VAL)
    return {"train": names[:train], "val": names[train:], "test": []}


def demo_files(scenes: int) -> list[str]:
    """Return the paths, relative to the data root, of all files that ``write_demo`` writes."""
    from threedrs.demo.annotations import annotation_paths

    layout = DataLayout(root=Path())
    splits = demo_scenes(scenes)
    paths = [Path(MARKER), layout.labels_file, *(layout.split_file(split) for split in splits)]
    paths += [layout.benchmark_folder / name for name in annotation_paths()]
    for scene in splits["train"] + splits["val"]:
        scan = layout.scan(scene)
        paths += [scan.sens, scan.mesh, scan.segments, scan.aggregation, scan.meta, scan.proposals]
    return [path.as_posix() for path in paths]


def _room_seeds(seed: int, number: int) -> list[np.random.SeedSequence]:
    """Independent seeds of a scene: room, scanner frame, walk, sensor, proposals, sentences."""
    return np.random.SeedSequence([seed, number]).spawn(6)


def _write_scene(
    out: Path, seed: int, number: int, frames: int, rounds: int
) -> dict[str, list[Any]]:
    """Write one scene's scan; return its rows of the benchmarks' files."""
    from threedrs.demo import scan_files
    from threedrs.demo.annotations import annotate
    from threedrs.demo.room_mesh import build_mesh
    from threedrs.demo.rooms import THEMES, make_room

    scan = DataLayout(root=out).scan(f"scene{number:04d}_00")
    seeds = _room_seeds(seed, number)
    themes = list(THEMES)
    room = make_room(themes[number % len(themes)], np.random.default_rng(seeds[0]))
    mesh = build_mesh(room)
    alignment = scan_files.scanner_frame(room, np.random.default_rng(seeds[1]))
    to_scanner = np.linalg.inv(alignment)
    scan_files.write_mesh(scan, mesh, to_scanner)
    scan_files.write_annotation(scan, room, mesh)
    scan_files.write_meta(scan, room, alignment, frames)
    masks = scan_files.make_proposals(room, mesh, np.random.default_rng(seeds[4]))
    scan_files.write_proposals(scan, masks)
    scan_files.write_stream(scan, room, mesh, to_scanner, frames, seeds[2:4])
    return annotate(scan.scene, room, np.random.default_rng(seeds[5]), rounds)


def _is_foreign(path: Path) -> bool:
    """Whether ``path`` is a file that no killed writer of this module left."""
    return not path.is_dir() and not is_leftover(path)


def _prepare(out: Path, scenes: int, seed: int) -> None:
    """Claim the folder: refuse one that holds something else, drop an older demo's other files."""
    marker = out / MARKER
    if marker.exists():
        older = read_json(marker)
        known = isinstance(older, dict) and older.get("format_version") == FORMAT_VERSION
        if not known or not isinstance(older.get("scenes"), int):
            raise DataError(
                f"{marker}: is not a demo data set's of this version; choose a new folder"
            )
        for stale in sorted(set(demo_files(older["scenes"])) - set(demo_files(scenes))):
            (out / stale).unlink(missing_ok=True)
            if (out / stale).parent.is_dir() and not any((out / stale).parent.iterdir()):
                (out / stale).parent.rmdir()
    elif out.exists() and (not out.is_dir() or any(map(_is_foreign, out.rglob("*")))):
        raise DataError(
            f"{out}: holds files that are not a demo data set (no {MARKER}); name a new or empty "
            "folder, so that nothing of yours is overwritten"
        )
    # The marker comes first: a run that was stopped half-way can be repeated into its own folder.
    write_json(marker, {"format_version": FORMAT_VERSION, "scenes": scenes, "seed": seed})


def write_demo(
    out: Path,
    scenes: int,
    seed: int,
    *,
    frames: int = FRAMES,
    rounds: int = 1,
    processes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a data set of ``scenes`` generated rooms under ``out``, in ScanNet's formats.

    The bytes depend on ``scenes``, ``seed``, ``frames`` (of each stream) and ``rounds`` (times the
    usual 46 descriptions and questions a scene) alone. ``processes``: how many render at a time
    (default: one a core); a script that calls this with several needs Python's
    ``if __name__ == "__main__"`` guard. ``say`` is told of each scene that is done. 12 scenes take
    about 40 s on two cores and some 120 MB.

    Raises:
        ConfigError: too few or too many scenes, or a negative seed.
        DataError: ``out`` holds files that are no demo data set.
    """
    from threedrs.demo.annotations import annotation_files, label_table

    splits = demo_scenes(scenes)
    if seed < 0:
        raise ConfigError(f"demo: seed {seed}; valid are 0 and above")
    out = Path(out)
    _prepare(out, scenes, seed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = min(scenes, processes or cores or 1)
    arguments = (
        [out] * scenes,
        [seed] * scenes,
        range(scenes),
        [frames] * scenes,
        [rounds] * scenes,
    )

    def collected(found: Iterable[dict[str, list[Any]]]) -> list[dict[str, list[Any]]]:
        rows = []
        for row in found:
            rows.append(row)
            say(f"demo: {len(rows)} of {scenes} rooms rendered")
        return rows

    if processes == 1:
        rows = collected(map(_write_scene, *arguments))
    else:
        # Spawned, not forked: ray casting and its threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            processes, mp_context=context, initializer=end_with_parent
        ) as pool:
            rows = collected(pool.map(_write_scene, *arguments))
    layout = DataLayout(root=out)
    by_scene = dict(zip(splits["train"] + splits["val"], rows, strict=True))
    for split, names in splits.items():
        write_text(layout.split_file(split), "".join(f"{name}\n" for name in names))
    write_text(layout.labels_file, label_table())
    for name, value in annotation_files(splits, by_scene).items():
        write_json(layout.benchmark_folder / name, value)
