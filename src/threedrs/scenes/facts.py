"""The rows of the scene report: what a store holds, how much of the mesh its frames see, notes.

With the mesh, coverage costs about half a second a scene.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import atomic_folder, read_json, write_json
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.excluded_scans import is_of_the_file, read_left_out
from threedrs.scannet.geometry import IMAGE_SIZE, nearest_indices
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.coverage import MeshVoxels
from threedrs.scenes.store import SceneStore
from threedrs.visualization.scene_plot import scene_picture

FORMAT_VERSION = 1
ROWS_FILE = "scenes.json"


def scene_facts(store: SceneStore, scan: ScanFiles, notes: Sequence[str]) -> dict[str, Any]:
    """Return one scene's row.

    ``coverage`` is the share of the mesh's voxels of 0.1 m that the chosen frames see: as counted
    when the frames were chosen by it, else from the depth kept in the store (384x384 of the
    original pixels); None, with a note, where the mesh cannot be read; None without a mesh.

    Raises:
        DataError: the mesh cannot be read by a fault of the machine.
        StoreError: the store is damaged.
    """
    attributes, notes = store.attributes, list(notes)
    counted = attributes.get("coverage")
    if counted is None and scan.mesh.is_file():
        try:
            counted = _coverage(store, scan)
        except DataError as error:
            if not is_of_the_file(error):
                raise
            notes.append(f"coverage is not known: {error}")
    return {
        "scene": store.scene,
        "split": store.split,
        "source": attributes.get("source"),
        "strategy": attributes.get("strategy"),
        "frame_ids": store.frame_ids,
        "frames": len(store.frame_ids),
        "different_frames": len(set(store.frame_ids)),
        "coverage": None if counted is None else counted["covered"] / counted["voxels"],
        "voxels": None if counted is None else counted["voxels"],
        "boxes": store.object_counts(),
        "notes": notes,
    }


def _coverage(store: SceneStore, scan: ScanFiles) -> dict[str, int]:
    voxels = MeshVoxels(aligned_vertices(scan), str(scan.mesh))
    width, height = store.depth_size
    places = np.ix_(nearest_indices(height, IMAGE_SIZE), nearest_indices(width, IMAGE_SIZE))
    intrinsic, seen = store.depth_intrinsic(), np.zeros(len(voxels), dtype=bool)
    for depth, pose in zip(store.depth(), store.poses(), strict=True):
        original = np.zeros((height, width), dtype=np.uint16)
        original[places] = depth
        seen[voxels.seen(original, intrinsic, pose)] = True
    return {"covered": int(seen.sum()), "voxels": len(voxels)}


def write_shard_facts(
    scans: Sequence[ScanFiles], scenes: Path, manifest: Path, boxes: Path, out: Path
) -> None:
    """Write the folder of a shard's part of the report: ``scenes.json`` and a picture a scene.

    Args:
        scans: the shard's scans.
        scenes: folder of the scene stores.
        manifest: the shard's manifest; its notes are on frames. Scenes that it leaves out have no
            row and no picture, but a reason under ``left_out``.
        boxes: the shard's boxes file; its notes are on boxes.
        out: the folder, written whole or not at all.

    Raises:
        DataError: a file is malformed.
        StoreError: a store is damaged.
    """
    notes, left_out = _notes(boxes, manifest), read_left_out(manifest)
    split = manifest.stem.rpartition("-")[0]
    rows = []
    with atomic_folder(out) as folder:
        for scan in scans:
            if scan.scene in left_out:
                continue
            store = SceneStore.open(scenes / f"{scan.scene}.zarr")
            row = scene_facts(store, scan, notes.get(scan.scene, []))
            scene_picture(store, caption(row), folder / f"{scan.scene}.jpg")
            rows.append(row)
        reasons = [
            {"scene": scene, "split": split, "reason": reason} for scene, reason in left_out.items()
        ]
        content = {"format_version": FORMAT_VERSION, "scenes": rows, "left_out": reasons}
        write_json(folder / ROWS_FILE, content)


def caption(row: Mapping[str, Any]) -> str:
    """Return a scene's row in one line."""
    coverage = row["coverage"]
    seen = "no mesh" if coverage is None else f"{100 * coverage:.0f} % of the mesh's voxels seen"
    return (
        f"{row['scene']} ({row['split']}): {row['frames']} frames, {seen}, "
        f"{row['boxes']['gt']} ground-truth and {row['boxes']['pred']} detector boxes"
    )


def _notes(*files: Path) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for file in files:
        content = read_json(file)
        rows = content.get("notes") if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise DataError(
                f"{file}: has no list of notes; delete it and run `snakemake --cores all scenes`"
            )
        for row in rows:
            notes.setdefault(row["scene"], []).append(row["note"])
    return notes
