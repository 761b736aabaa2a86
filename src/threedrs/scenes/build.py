"""From a scan to its scene store, and from a shard of scans to its manifest.

One pass over the frames' index, and one read and decode of each chosen frame. Measured: 32 frames
of 640x480 and 100 boxes take 1.8 s on one core, 160 MB of memory and 15 MB of disk; choosing them
by coverage adds what `threedrs.scenes.frame_selection` says.
"""

import io
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threedrs.errors import DataError, StoreError
from threedrs.io.files import read_json, write_json
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.excluded_scans import leaving_out, left_out_rows
from threedrs.scannet.geometry import GRID, IMAGE_SIZE, coordinate_map, patch_means, resize_depth
from threedrs.scannet.layout import ScanFiles
from threedrs.scenes.frame_reader import Frames, open_frames
from threedrs.scenes.masks import COARSE_GRID, FINE_GRID, frame_masks
from threedrs.scenes.settings import SceneSettings
from threedrs.scenes.store import SceneStore
from threedrs.scenes.store_inputs import Source, read_source
from threedrs.scenes.writer import SceneContents, write_scene_store

__all__ = ["SceneSettings", "build_scene", "build_shard", "restore_store"]

MANIFEST_VERSION = 1
_log = logging.getLogger(__name__)


def build_scene(
    scan: ScanFiles,
    boxes: Mapping[str, BoxSet],
    settings: SceneSettings,
    out: Path,
    split: str,
    listed: Collection[int] | None = None,
) -> SceneStore:
    """Build the scene store of ``scan`` at ``out``, whole or not at all, and open it.

    Args:
        scan: the scan's files; its frames and ``meta`` are read, for coverage also ``mesh``.
        boxes: the sets ``gt`` and ``pred``; either may be empty.
        settings: the choice of frames, and how missing depth counts.
        out: the store's folder, for instance ``results/scenes/scene0000_00.zarr``.
        split: train, val or test.
        listed: candidate frames (indices in the stream) from EmbodiedScan; None: by stride.

    Raises:
        DataError: the scan has no usable frame, or its files are malformed.
        SensError: the .sens is damaged.
        StoreError: the store cannot be written.
    """
    with open_frames(scan) as reader:
        source = read_source(scan, reader, boxes, settings, split, listed)
        return _build(scan, reader, source, boxes, settings, out, split)


def build_shard(
    scans: Sequence[ScanFiles],
    boxes: Mapping[str, Mapping[str, BoxSet]],
    settings: SceneSettings,
    out_folder: Path,
    manifest: Path,
    split: str,
    candidates: Mapping[str, Collection[int]] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Build the stores of a shard's scenes, and last its manifest (docs/ARCHITECTURE.md).

    A finished store is kept if it is undamaged and the hash of its inputs is the recorded one
    (`threedrs.scenes.store_inputs`); file dates do not count. A scan that cannot be used is listed
    in the manifest under ``left_out`` with the reason, and tried anew each time; a store that it
    had stays, unused, and is kept once the scan is as it was.

    Args:
        scans: the scenes, in the manifest's order.
        boxes: scene -> set -> boxes, from `threedrs.scannet.boxes.read_boxes_file`.
        settings: the choice of frames, and how missing depth counts.
        out_folder: where ``<scene>.zarr`` goes.
        manifest: the shard's JSON file; an older one is removed first.
        split: train, val or test.
        candidates: scene -> candidate frames from EmbodiedScan; a scene that it lacks takes them by
            stride, with a note. None: all scenes do.
        left_out: scene -> reason, for scans that the boxes file leaves out.

    Raises:
        DataError: the boxes file lacks a scene, or a file cannot be read by a fault of the
            machine; finished scenes survive.
        StoreError: a store cannot be written; finished scenes survive.
    """
    began = time.time()
    manifest.unlink(missing_ok=True)
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    reasons = dict(left_out or {})
    for scan in scans:
        if scan.scene in reasons:
            continue
        if scan.scene not in boxes:
            raise DataError(f"{manifest.stem}: the boxes file has no entry for {scan.scene}")
        listed = None if candidates is None else candidates.get(scan.scene)
        with leaving_out(scan.scene, reasons):
            store, found = _build_or_keep(
                scan,
                boxes[scan.scene],
                settings,
                out_folder / f"{scan.scene}.zarr",
                split,
                listed,
            )
            scenes[scan.scene] = {
                "content": store.content_hash(),
                "frames": len(store.frame_ids),
                "objects": store.object_counts(),
            }
            if candidates is not None and listed is None:
                note = f"not in EmbodiedScan's infos: candidates by stride {settings.stride}"
                found = [note, *found]
            notes += [{"scene": scan.scene, "note": note} for note in found]
    ordered = {scan.scene: reasons[scan.scene] for scan in scans if scan.scene in reasons}
    _refuse_unfinished_copies([scan for scan in scans if scan.scene in reasons], began)
    rows = {"scenes": scenes, "notes": notes, "left_out": left_out_rows(ordered)}
    write_json(manifest, {"format_version": MANIFEST_VERSION, **rows})


def restore_store(
    scan: ScanFiles,
    boxes: Mapping[str, BoxSet] | None,
    settings: SceneSettings,
    out: Path,
    manifest: Path,
    split: str,
    listed: Collection[int] | None = None,
) -> None:
    """Build the store again that a finished shard lists and that is gone; the manifest stays.

    Args:
        scan: the scan's files.
        boxes: the scene's boxes; None: the boxes file leaves it out.
        settings: the choice of frames, and how missing depth counts.
        out: the store's folder; a store that is whole and of the same inputs is kept.
        manifest: the shard's JSON file.
        split: train, val or test.
        listed: candidate frames from EmbodiedScan; None: by stride.

    Raises:
        DataError: the scan cannot be used any more, or no longer gives what the manifest says.
        StoreError: the store cannot be written.
    """
    entry = read_json(manifest)["scenes"].get(scan.scene)
    store = None
    if entry and boxes:
        store, _ = _build_or_keep(scan, boxes, settings, out, split, listed)
    if store is None or store.content_hash() != entry["content"]:
        raise DataError(
            f"{out}: the scan no longer gives the store that {manifest} lists; delete that file "
            "and run `snakemake --cores all scenes`"
        )


def _refuse_unfinished_copies(left_out: Sequence[ScanFiles], began: float) -> None:
    """Raise DataError for a file that changed since ``began``: its date tells no later run."""
    for scan in left_out:
        if scan.frames.exists() and scan.frames.stat().st_mtime > began:
            raise DataError(
                f"{scan.frames}: changed while it was read; run again when it is copied"
            )


def _build_or_keep(
    scan: ScanFiles,
    boxes: Mapping[str, BoxSet],
    settings: SceneSettings,
    path: Path,
    split: str,
    listed: Collection[int] | None,
) -> tuple[SceneStore, list[str]]:
    """Return the scan's store, made anew if need be, and the notes on its frames."""
    with open_frames(scan) as reader:
        source = read_source(scan, reader, boxes, settings, split, listed)
        store = _kept_store(path, source)
        _log.info("%s: %s", scan.scene, "kept" if store else "building")
        if store is None:
            store = _build(scan, reader, source, boxes, settings, path, split)
    return store, source.notes


def _kept_store(path: Path, source: Source) -> SceneStore | None:
    """Return the store at ``path`` if it is undamaged and made from the same inputs."""
    if not path.exists():
        return None
    try:
        store = SceneStore.open(path)
        if store.attributes.get("inputs_sha256") != source.inputs_sha256:
            return None
        store.verify()
    except StoreError as error:
        _log.warning("%s; remaking it now", error)
        return None
    return store


def _build(
    scan: ScanFiles,
    reader: Frames,
    source: Source,
    boxes: Mapping[str, BoxSet],
    settings: SceneSettings,
    out: Path,
    split: str,
) -> SceneStore:
    header, frames = reader.header, len(source.frame_ids)
    depth_size = (header.depth_width, header.depth_height)
    rgb = np.empty((frames, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    depth = np.empty((frames, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint16)
    patch_xyz = np.empty((frames, GRID, GRID, 3), dtype=np.float32)
    masks = {
        name: (
            np.zeros((len(boxes[name]), frames, FINE_GRID, FINE_GRID), dtype=bool),
            np.zeros((len(boxes[name]), frames, COARSE_GRID, COARSE_GRID), dtype=bool),
        )
        for name in BOX_SETS
    }
    for row, place in enumerate(source.places):
        if row > 0 and place == source.places[row - 1]:  # repeats of a frame are neighbours
            for array in (rgb, depth, patch_xyz):
                array[row] = array[row - 1]
            for fine, coarse in masks.values():
                fine[:, row], coarse[:, row] = fine[:, row - 1], coarse[:, row - 1]
            continue
        rgb[row] = _square(reader.color(place))
        depth[row] = resize_depth(reader.depth_millimetres(place))
        world = coordinate_map(
            depth[row], source.poses_V44[row], header.intrinsic_depth, depth_size
        )
        valid = depth[row] > 0 if settings.invalid_depth == "ignore" else None
        patch_xyz[row] = patch_means(world, valid)
        if not np.isfinite(patch_xyz[row]).all():
            frame = source.frame_ids[row]
            raise DataError(f"{reader.path}: frame {frame}: its coordinates are not finite")
        for name in BOX_SETS:
            fine, coarse = masks[name]
            fine[:, row], coarse[:, row] = frame_masks(
                world.astype(np.float32), boxes[name].boxes, valid
            )
    contents = SceneContents(
        rgb=rgb,
        jpegs=[_payload(reader, place) for place in source.places],
        depth=depth,
        poses=source.poses_V44,
        depth_intrinsic=header.intrinsic_depth,
        depth_size=depth_size,
        patch_xyz=patch_xyz,
        boxes=boxes,
        masks=masks,
        attributes={
            "scene": scan.scene,
            "split": split,
            "frame_ids": source.frame_ids,
            "source": reader.name,
            "source_sha256": source.source_sha256,
            "inputs_sha256": source.inputs_sha256,
            "stride": settings.stride,
            "strategy": settings.strategy,
            "invalid_depth": settings.invalid_depth,
            "coverage": source.coverage,
            "notes": source.notes,
        },
    )
    write_scene_store(out, contents)
    return SceneStore.open(out)


def _square(color_HW3: np.ndarray) -> np.ndarray:
    """Return a colour image at the encoder's square size, (384,384,3) u8; aspect is not kept."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.asarray(Image.fromarray(color_HW3).resize(size, Image.Resampling.BICUBIC))


def _payload(reader: Frames, place: int) -> bytes:
    """Return a frame's colour image as captured; uncompressed pixels are stored as a PNG."""
    if reader.header.color_compression != "raw":
        return reader.color_bytes(place)
    stream = io.BytesIO()
    Image.fromarray(reader.color(place)).save(stream, format="PNG")
    return stream.getvalue()
