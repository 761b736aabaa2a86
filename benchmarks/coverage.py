"""Time and memory of choosing frames by voxel coverage, from a .sens to frame ids, on one core.

Makes a scan of a furnished room (analytic depth with noise and holes, 640x480), then chooses from
it in a process of its own, whose peak memory is read from the operating system:

    python benchmarks/coverage.py --candidates 300
"""

import argparse
import datetime
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from machine import machine
from threedrs.distributed.ranks import peak_resident
from threedrs.scannet.sens import SensHeader, SensReader, SensWriter
from threedrs.scenes.coverage import PERCENT, MeshVoxels, coverage_indices
from threedrs.scenes.frame_selection import candidate_frames

WIDTH, HEIGHT = 640, 480
INTRINSIC = np.array([[577.9, 0, 319.5, 0], [0, 578.7, 239.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
ROOM = (np.zeros(3), np.array([8.0, 6.0, 2.8]))
SPACING = 0.02  # metres between vertices, as in ScanNet's meshes


def furniture(generator: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the lower and upper corners of fifteen boxes on the floor."""
    lower = np.column_stack([generator.uniform(0.2, (6.5, 4.5), (15, 2)), np.zeros(15)])
    return list(zip(lower, lower + generator.uniform(0.3, 1.5, (15, 3)), strict=True))


def surface(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return vertices on the faces of a box, (P,3)."""
    faces = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        grid = np.meshgrid(*(np.arange(lower[o], upper[o], SPACING) for o in others))
        for height in (lower[axis], upper[axis]):
            face = np.full((grid[0].size, 3), height)
            face[:, others] = np.column_stack([part.ravel() for part in grid])
            faces.append(face)
    return np.concatenate(faces)


def render(
    pose: np.ndarray,
    boxes: list[tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the depth image of the room from within, (H,W) u16, mm."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - 319.5) / 577.9, (v - 239.5) / 578.7, np.ones((HEIGHT, WIDTH))])
    rays = np.einsum("ij,jhw->ihw", pose[:3, :3], rays)
    depth = np.full((HEIGHT, WIDTH), np.inf)
    for number, (lower, upper) in enumerate([ROOM, *boxes]):
        first, last = (
            (corner[:, None, None] - pose[:3, 3, None, None]) / rays for corner in (lower, upper)
        )
        near, far = np.minimum(first, last).max(axis=0), np.maximum(first, last).min(axis=0)
        hit = far if number == 0 else np.where((near < far) & (near > 0), near, np.inf)
        depth = np.minimum(depth, hit)
    depth = depth * 1000 + generator.normal(0, 3, depth.shape)
    depth[generator.random(depth.shape) < 0.02] = 0
    depth[:, :12] = 0
    return np.clip(depth, 0, 65535).astype(np.uint16)


def write_scan(folder: Path, candidates: int) -> None:
    """Write ``scan.sens`` with one frame a candidate, and the mesh's vertices."""
    generator = np.random.default_rng(0)
    boxes = furniture(generator)
    vertices = np.concatenate([surface(*box) for box in [ROOM, *boxes]])
    np.save(folder / "vertices.npy", vertices + generator.normal(0, 0.004, vertices.shape))
    stream = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stream, "JPEG")
    header = SensHeader(
        sensor_name="benchmark",
        intrinsic_color=INTRINSIC,
        extrinsic_color=np.eye(4),
        intrinsic_depth=INTRINSIC,
        extrinsic_depth=np.eye(4),
        color_width=WIDTH,
        color_height=HEIGHT,
        depth_width=WIDTH,
        depth_height=HEIGHT,
    )
    with SensWriter.create(folder / "scan.sens", header) as writer:
        for turn in np.linspace(0, 6 * np.pi, candidates):
            tilt = 0.45 + 0.25 * np.sin(3.1 * turn)
            forward = np.array([np.cos(turn), np.sin(turn), -tilt])
            forward /= np.linalg.norm(forward)
            right = np.cross(forward, [0, 0, 1])
            right /= np.linalg.norm(right)
            pose = np.eye(4)
            pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
            pose[:3, 3] = [4 + 2.5 * np.sin(turn / 5), 3 + 1.5 * np.cos(turn / 3), 1.6]
            writer.add(pose, stream.getvalue(), render(pose, boxes, generator))


def choose(folder: Path, strategy: str) -> None:
    """Choose the frames of the scan and print the figures."""
    vertices = np.load(folder / "vertices.npy")
    before = peak_resident() / 2**20
    start, busy = time.perf_counter(), time.process_time()
    with SensReader(folder / "scan.sens") as reader:
        frames = candidate_frames(reader.poses, range(len(reader))).frames
        voxels = MeshVoxels(vertices, "mesh")
        intrinsic = reader.header.intrinsic_depth
        found = coverage_indices(
            len(frames),
            strategy,
            32,
            len(voxels),
            lambda i: voxels.seen(reader.depth_millimetres(frames[i]), intrinsic, reader.poses[i]),
        )
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    peak = peak_resident() / 2**20
    print(
        f"{strategy}: {seconds:.2f} s, of which {busy:.2f} s of processor time "
        f"({busy / found.looked_at * 1000:.1f} ms a frame looked at), peak {peak:.0f} MB "
        f"({before:.0f} MB before); {len(found.indices)} frames of {found.looked_at} looked at "
        f"cover {found.covered} of {found.coverable} coverable voxels "
        f"(mesh: {len(vertices)} vertices, {found.voxels} voxels)"
    )


def main() -> None:
    """Make the scan, measure each strategy in a process of its own, print one table row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        choose(Path(arguments.measure[0]), arguments.measure[1])
        return
    command = f"python benchmarks/coverage.py --candidates {arguments.candidates}"
    one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder), arguments.candidates)
        for strategy in PERCENT:
            answer = subprocess.run(
                [sys.executable, __file__, "--measure", folder, strategy],
                env=os.environ | one_core,
                check=True,
                capture_output=True,
                text=True,
            )
            today = datetime.date.today().isoformat()
            print(f"| `{command}` | {machine()} (1 used) | {today} | {answer.stdout.strip()} |")


if __name__ == "__main__":
    main()
