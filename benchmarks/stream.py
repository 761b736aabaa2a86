"""A .sens of several gigabytes to a scene store: frames a second, peak memory, cores.

Makes a scan by repeating 40 frames of ScanNet's sizes, in a temporary folder, and builds its store
(stride 10, 32 frames, uniform) in a process of its own whose peak memory the operating system
tells. Then the same for scans of a tenth of the size, one process and as many as there are cores
at a time:

    python benchmarks/stream.py --gigabytes 4
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from machine import machine
from synthetic_scan import depth_image, header, jpeg, picture, pose
from threedrs.distributed.ranks import peak_resident
from threedrs.scannet.boxes import make_box_set
from threedrs.scannet.layout import DataLayout
from threedrs.scannet.sens import SensReader, SensWriter
from threedrs.scenes.build import read_inputs, write_scene
from threedrs.scenes.frame_reader import open_frames
from threedrs.scenes.frame_selection import SceneSettings
from threedrs.scenes.published_lists import PublishedLists

DIFFERENT, OBJECTS = 40, 40


def write_large(path: Path, size: int, frames: list[tuple[bytes, np.ndarray]]) -> int:
    """Write a scan of at least ``size`` bytes; return its number of frames."""
    count = 0
    with SensWriter.create(path, header()) as writer:
        written = 0
        while written < size:
            color, depth = frames[count % len(frames)]
            writer.add(pose(count), color, depth)
            count += 1
            if count % len(frames) == 0:
                written = sum(
                    file.stat().st_size for file in path.parent.iterdir() if file.is_file()
                )
    return count


def build(root: Path, scene: str) -> None:
    """Build one scene's store and print seconds, peak memory and memory before."""
    generator = np.random.default_rng(1)
    boxes = make_box_set(
        [
            (np.concatenate([generator.uniform(0, 6, 3), generator.uniform(0.3, 2, 3)]), row, "box")
            for row in range(OBJECTS)
        ]
    )
    before = peak_resident() / 2**20
    start = time.perf_counter()
    scan = DataLayout(root=root).scan(scene)
    with SensReader(scan.sens) as reader:
        frames = len(reader)
    indexed = time.perf_counter() - start
    start = time.perf_counter()
    settings = SceneSettings(stride=10, count=32)
    sets = {"gt": boxes, "pred": boxes}
    with open_frames(scan) as reader_of_frames:
        inputs = read_inputs(scan, reader_of_frames, sets, settings, "train", PublishedLists())
        write_scene(inputs, root / f"{scene}.zarr")
    seconds = time.perf_counter() - start
    print(frames, indexed, seconds, peak_resident() / 2**20, before)


def run_builds(root: Path, scenes: list[str], at_once: int) -> tuple[float, list[list[float]]]:
    """Build the scenes, ``at_once`` processes at a time; return seconds and each one's figures."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.perf_counter()
    waiting, figures = list(scenes), []
    running: list[subprocess.Popen[str]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            command = [sys.executable, __file__, "--measure", str(root), waiting.pop(0)]
            running.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            )
        done = running.pop(0)
        output, _ = done.communicate()
        if done.returncode:
            raise SystemExit(f"a build ended with status {done.returncode}")
        figures.append([float(word) for word in output.split()])
    return time.perf_counter() - start, figures


def main() -> None:
    """Make the scans, build them, print one table row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        build(Path(arguments.measure[0]), arguments.measure[1])
        return
    size = int(arguments.gigabytes * 1e9)
    cores = os.cpu_count() or 1
    small = [f"scene{number:04d}_00" for number in range(1, 1 + 2 * cores)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if shutil.disk_usage(root).free < 2 * size:
            raise SystemExit(f"{root}: needs {2 * size / 1e9:.0f} GB of free disk")
        generator = np.random.default_rng(0)
        frames = [(jpeg(picture(generator)), depth_image(generator)) for _ in range(DIFFERENT)]
        for scene in ["scene0000_00", *small]:
            path = DataLayout(root=root).scan(scene).sens
            path.parent.mkdir(parents=True)
            write_large(path, size if scene == "scene0000_00" else size // 10, frames)
        actual = DataLayout(root=root).scan("scene0000_00").sens.stat().st_size
        _, [(count, indexed, seconds, peak, before)] = run_builds(root, ["scene0000_00"], 1)
        alone, _ = run_builds(root, small, 1)
        together, _ = run_builds(root, small, cores)
    print(
        f"| `python benchmarks/stream.py --gigabytes {arguments.gigabytes:g}` | {machine()} | "
        f"{datetime.date.today().isoformat()} | {actual / 1e9:.2f} GB, {count:.0f} frames: index "
        f"{indexed:.2f} s, store of 32 frames {seconds:.1f} s ({count / seconds:.0f} frames of the "
        f"stream a second, {32 / seconds:.1f} chosen ones), peak {peak:.0f} MB ({before:.0f} MB "
        f"before); {len(small)} scans of a tenth: {alone:.1f} s one at a time, {together:.1f} s "
        f"{cores} at a time ({alone / together:.2f}x) |"
    )


if __name__ == "__main__":
    main()
