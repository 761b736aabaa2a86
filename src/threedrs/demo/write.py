"""The demo data set as a whole: which files it has, and writing them.

Scenes are written by one process each. What a scene holds depends on the seed and its number alone,
so the bytes are the same for any number of processes. ``demo_scenes`` and ``demo_files`` only name
things: the workflow asks them before anything exists, so rendering is imported when writing.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.config.yaml_files import config_option
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
    """Return the paths, relative to the data root, of the files of a demo beside its marker."""
    from threedrs.demo.annotations import annotation_files

    layout = DataLayout(root=Path())
    splits = demo_scenes(scenes)
    paths = [layout.labels_file, *(layout.split_file(split) for split in splits)]
    no_scenes: dict[str, list[str]] = {split: [] for split in splits}
    paths += [layout.benchmark_folder / name for name in annotation_files(no_scenes, {})]
    for scene in splits["train"] + splits["val"]:
        scan = layout.scan(scene)
        paths += [scan.sens, scan.mesh, scan.segments, scan.aggregation, scan.meta, scan.proposals]
    return [path.as_posix() for path in paths]


def _end_at_once() -> None:
    """Let Ctrl-C, or the end of the parent, end this process in the middle of a room."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def _write_scene(
    out: Path, seed: int, number: int, things: bool, *, frames: int, rounds: int
) -> dict[str, list[Any]]:
    """Write one scene's scan; return its rows of the benchmarks' files."""
    from threedrs.demo import scan_files
    from threedrs.demo.annotations import annotate
    from threedrs.demo.camera_walk import draw_scanned_room
    from threedrs.demo.rooms import THEMES

    scan = DataLayout(root=out).scan(f"scene{number:04d}_00")
    # A seed of its own for each thing, so that a change of one leaves the others as they are.
    seeds = np.random.SeedSequence([seed, number]).spawn(6)
    of_room, of_frame, of_walk, of_proposals, of_sentences = (
        np.random.default_rng(seeds[index]) for index in (0, 1, 2, 4, 5)
    )
    themes = list(THEMES)
    room, mesh, walk = draw_scanned_room(themes[number % len(themes)], frames, of_room, of_walk)
    alignment = scan_files.scanner_frame(room, of_frame)
    to_scanner = np.linalg.inv(alignment)
    scan_files.write_mesh(scan, mesh, to_scanner)
    scan_files.write_annotation(scan, room, mesh)
    scan_files.write_meta(scan, room, alignment, frames)
    scan_files.write_proposals(scan, scan_files.make_proposals(room, mesh, of_proposals))
    scan_files.write_stream(scan, room, mesh, to_scanner, walk, seeds[3])
    return annotate(scan.scene, room, of_sentences, rounds, things=things)


def check_folder(out: Path, layout: str) -> None:
    """Check that ``out`` is new, empty, or a demo of this layout.

    Raises:
        DataError: the folder holds something else.
    """
    if older_demo(out, layout):
        return
    # What a killed writer left, and the folders that Snakemake makes for outputs, are in no way.
    others = out.rglob("*") if out.is_dir() else [out] if out.exists() else []
    if any(not path.is_dir() and not is_leftover(path) for path in others):
        raise DataError(
            f"{out}: holds files that are not a demo of layout {layout} (no {MARKER} of one); name "
            "a new or empty folder, so that nothing of yours is overwritten"
        )


def check_files(out: Path, scenes: int) -> None:
    """Check that a demo of so many scenes would write over no file but those of an older demo.

    Others may be there, such as a benchmark's or captures of the user's own beside the demo.

    Raises:
        DataError: it would.
    """
    older = older_demo(out, "scans")
    made = {MARKER, *demo_files(older)} if older else set()
    others = (file for file in (MARKER, *demo_files(scenes)) if file not in made)
    lost = next((file for file in others if (out / file).exists()), None)
    if lost is not None:
        raise DataError(
            f"{out} holds {lost}, which demo data would replace; set data.demo to null too, as in "
            f"{config_option('data', {'root': str(out), 'demo': None})}, or name another folder"
        )


def read_marker(out: Path) -> dict[str, Any] | None:
    """Return what the marker of the demo in ``out`` says, or None."""
    content: Any = read_json(out / MARKER) if (out / MARKER).is_file() else None
    ours = isinstance(content, dict) and content.get("format_version") == FORMAT_VERSION
    scenes = content.get("scenes") if ours else None
    # One edited by hand marks nothing: which files are the demo's could not be told.
    return content if type(scenes) is int and 2 <= scenes <= MAX_SCENES else None


def older_demo(out: Path, layout: str) -> int | None:
    """Return how many scenes the demo has that is in ``out`` already, or None."""
    content = read_marker(out)
    return content["scenes"] if content and content.get("layout", "scans") == layout else None


def write_marker(out: Path, layout: str, scenes: int, seed: int) -> None:
    """Write the file by which `check_folder` knows a demo."""
    content = {"format_version": FORMAT_VERSION, "layout": layout, "scenes": scenes, "seed": seed}
    write_json(out / MARKER, content)


def write_demo(
    out: Path,
    scenes: int,
    seed: int,
    *,
    frames: int = FRAMES,
    rounds: int = 1,
    things: bool = False,
    processes: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a data set of ``scenes`` generated rooms under ``out``, in ScanNet's formats.

    The bytes depend on ``scenes``, ``seed``, ``frames`` (of each stream), ``rounds`` (times the
    usual 46 descriptions and questions a scene) and ``things`` (whether training rooms have
    descriptions by colour alone besides) alone. ``processes``: how many render at a time
    (default: one a core); a script that calls this with several needs Python's
    ``if __name__ == "__main__"`` guard. ``say`` is told of each scene that is done. 12 scenes take
    about 40 s on two cores and some 140 MB.

    Raises:
        ConfigError: too few or too many scenes, or a negative seed.
        DataError: files of ``out`` that are of no demo would be written over.
    """
    from threedrs.demo.annotations import annotation_files, label_table

    splits = demo_scenes(scenes)
    if seed < 0:
        raise ConfigError(f"demo: seed {seed}; valid are 0 and above")
    check_files(out, scenes)
    if older := older_demo(out, "scans"):
        for file in sorted(set(demo_files(older)) - set(demo_files(scenes))):
            (out / file).unlink(missing_ok=True)
    # The marker comes first: a run that was stopped half-way can be repeated into its own folder.
    write_marker(out, "scans", scenes, seed)
    by_scene: dict[str, dict[str, list[Any]]] = {}
    write = partial(_write_scene, out, seed, frames=frames, rounds=rounds)
    # Spawned, not forked: ray casting and its threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    processes = min(scenes, processes or len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_at_once) as pool:
        # One room at a time needs no other process, whose imports take seconds.
        # What is evaluated on stays as it is, so that scores with and without can be compared.
        rooms = range(scenes), [things] * len(splits["train"]) + [False] * len(splits["val"])
        written = pool.map(write, *rooms) if processes > 1 else map(write, *rooms)
        for scene, rows in zip(splits["train"] + splits["val"], written, strict=True):
            by_scene[scene] = rows
            say(f"demo: {len(by_scene)} of {scenes} rooms rendered")
    layout = DataLayout(root=out)
    for split, names in splits.items():
        write_text(layout.split_file(split), "".join(f"{name}\n" for name in names))
    write_text(layout.labels_file, label_table())
    for name, value in annotation_files(splits, by_scene).items():
        write_json(layout.benchmark_folder / name, value)
