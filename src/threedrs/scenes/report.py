"""The scene report: a row and an image for each scene, by shard, and one page on all of them.

A row says what a store holds, how much of the mesh its frames see, and the notes of its making. The
page lists also which scenes are left out of the run, why, and what to do. Its thumbnails are
linked, not embedded, load when scrolled to and lead to the whole images, so 1,513 scenes stay one
quick page. Where the mesh is there, its coverage costs about half a second a scene.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.errors import DataError
from threedrs.io.files import atomic_folder, read_json, read_result, write_json, write_text
from threedrs.io.images import save_image
from threedrs.scannet.boxes import aligned_vertices
from threedrs.scannet.excluded_scans import is_of_the_file, read_excluded
from threedrs.scannet.geometry import IMAGE_SIZE, nearest_indices
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.coverage import MeshVoxels
from threedrs.scenes.store import SceneStore
from threedrs.visualization.scene_plot import plot_scene

FORMAT_VERSION = 1
ROWS_FILE = "scenes.json"
THUMBNAIL = ".small.jpg"  # ending of the name of an image at half its size


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
    if counted is None and (scan.point_cloud or scan.mesh.is_file()):
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
    voxels = MeshVoxels(aligned_vertices(scan), str(scan.point_cloud or scan.mesh))
    width, height = store.depth_size
    places = np.ix_(nearest_indices(height, IMAGE_SIZE), nearest_indices(width, IMAGE_SIZE))
    intrinsic, seen = store.depth_intrinsic(), np.zeros(len(voxels), dtype=bool)
    for depth, pose in zip(store.depth(), store.poses(), strict=True):
        original = np.zeros((height, width), dtype=np.uint16)
        original[places] = depth
        seen[voxels.seen(original, intrinsic, pose)] = True
    return {"covered": int(seen.sum()), "voxels": len(voxels)}


def write_shard_facts(
    scans: Sequence[ScanFiles], scenes: Path, manifest: Path, boxes: Path | None, out: Path
) -> None:
    """Write the folder of a shard's part of the report: ``scenes.json`` and an image a scene.

    Args:
        manifest: the shard's manifest. Its notes are on frames. Scenes that it excludes have no row
            and no image, but a reason under ``left_out``.
        boxes: the shard's boxes file. Its notes are on boxes. None: own captures, without one.

    Raises:
        DataError: a file is malformed.
        StoreError: a store is damaged.
    """
    notes, excluded = _notes(*filter(None, [boxes, manifest])), read_excluded(manifest)
    split = manifest.stem.rpartition("-")[0]
    rows = []
    with atomic_folder(out) as folder:
        for scan in scans:
            if scan.scene in excluded:
                continue
            store = SceneStore.open(scenes / f"{scan.scene}.zarr")
            # The store of an own capture does not know into which split it was put.
            row = {**scene_facts(store, scan, notes.get(scan.scene, [])), "split": split}
            image = plot_scene(store, caption(row))
            save_image(image, folder / f"{scan.scene}.jpg")
            save_image(image.reduce(2), folder / f"{scan.scene}{THUMBNAIL}")
            rows.append(row)
        reasons = [
            {"scene": scene, "split": split, "reason": reason} for scene, reason in excluded.items()
        ]
        content = {"format_version": FORMAT_VERSION, "scenes": rows, "left_out": reasons}
        write_json(folder / ROWS_FILE, content)


def caption(row: Mapping[str, Any]) -> str:
    """Return a scene's row in one line."""
    coverage = row["coverage"]
    seen = "no mesh" if coverage is None else f"{100 * coverage:.0f} % of its voxels seen"
    return (
        f"{row['scene']} ({row['split']}): {row['frames']} frames, {seen}, "
        f"{row['boxes']['gt']} ground-truth and {row['boxes']['pred']} candidate boxes"
    )


def _notes(*files: Path) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for file in files:
        for row in read_json(file)["notes"]:
            notes.setdefault(row["scene"], []).append(row["note"])
    return notes


def write_scene_report(
    parts: Sequence[Path],
    out: Path,
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
    counts: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        parts: the shards' folders that `write_shard_facts` wrote, below the page's folder.

    Raises:
        DataError: a part is missing or of another format version.
    """
    # Imported here, so that the jobs that only draw can do without jinja2 (envs/data.yaml).
    from threedrs.visualization.templates import page_environment, page_script

    rows: list[dict[str, Any]] = []
    excluded: list[dict[str, str]] = []
    for part in parts:
        content = read_result(part / ROWS_FILE, FORMAT_VERSION, "scenes")
        folder = part.relative_to(out.parent).as_posix()
        for row in content["scenes"]:
            found = [*row["notes"], *(notes or {}).get(row["scene"], ())]
            rows.append({**row, "notes": found, "image": f"{folder}/{row['scene']}"})
        excluded += content.get("left_out", [])
    template = page_environment("threedrs.scenes").get_template("report.html.j2")
    script, script_hash = page_script("threedrs.scenes", ["scenes.js"])
    page = template.render(
        rows=rows,
        left_out=excluded,
        totals=_totals(rows),
        counts=counts,
        thumbnail=THUMBNAIL,
        script=script,
        script_hash=script_hash,
    )
    write_text(out, page)


def _totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    coverages = [row["coverage"] for row in rows if row["coverage"] is not None]
    return {
        "scenes": len(rows),
        "frames": sum(row["frames"] for row in rows),
        "coverage": float(np.mean(coverages)) if coverages else None,
        # Scenes by tenths of coverage; one of 100 % is in the last.
        "histogram": np.histogram(coverages, bins=10, range=(0, 1))[0].tolist(),
        "splits": list(dict.fromkeys(row["split"] for row in rows)),
        "noted": sum(bool(row["notes"]) for row in rows),
        "without_pred": [
            row["scene"] for row in rows if row["split"] != "train" and not row["boxes"]["pred"]
        ],
        "without_gt": [row["scene"] for row in rows if not row["boxes"]["gt"]],
    }
