"""From a scan to its scene store, and from a shard of scans to its manifest.

A store is made from the boxes and the chosen frames (`threedrs.scenes.frame_selection`).
A hash of all inputs decides whether a finished store is kept. It costs the choice of frames and the
chosen frames' payloads (some 15 MB of a file of gigabytes), so with `uniform` a shard with one new
scan is remade in about the time of one scene.

Building is one pass over the frames' index, and one read and decode of each chosen frame. Measured:
32 frames of 640x480 and 100 boxes take 1.8 s on one core, 160 MB of memory and 15 MB of disk.
"""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from threedrs.errors import DataError, StoreError, without_remedy
from threedrs.io.files import sha256_of_json, write_json
from threedrs.io.images import encode_image
from threedrs.io.zarr_store import array_digest
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scannet.camera import check_depths, check_intrinsic, count_depths
from threedrs.scannet.excluded_scans import excluded_rows, excluding
from threedrs.scannet.frames import Frames
from threedrs.scannet.geometry import (
    FINE_GRID,
    GRID,
    IMAGE_SIZE,
    axis_alignment,
    coordinate_map,
    frame_masks,
    patch_means,
    resize_depth,
)
from threedrs.scannet.layout import LEAVE_OUT, ScanFiles
from threedrs.scenes.frame_reader import open_frames
from threedrs.scenes.frame_selection import FrameSelection, SceneSettings, select_frames
from threedrs.scenes.published_lists import PublishedLists
from threedrs.scenes.store import SceneContents, SceneStore, write_scene_store
from threedrs.scenes.upright import lying_note
from threedrs.workflow.code_hash import code_hash

MANIFEST_VERSION = 1
# Six decimals of published texts, and f32 of a .sens, differ by less.
_SAME_ALIGNMENT = 1e-4
_SAME_INTRINSIC = 1e-2  # pixels
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreInputs:
    """What one scene store is made from."""

    reader: Frames  # the scan's frames, open
    boxes: Mapping[str, BoxSet]  # the sets ``gt`` and ``pred``
    selection: FrameSelection  # which frames
    poses_V44: np.ndarray  # (V,4,4) f64 camera to axis-aligned world, metres
    depth_intrinsic: np.ndarray  # (4,4) f64 of the depth image, pixels
    # Of the store. Its ``inputs_sha256`` is of all that the store depends on: payloads, poses,
    # boxes, settings, split, notes, and this package's code.
    attributes: dict[str, Any]


def read_inputs(
    scan: ScanFiles,
    reader: Frames,
    boxes: Mapping[str, BoxSet],
    settings: SceneSettings,
    split: str,
    lists: PublishedLists,
) -> StoreInputs:
    """Choose the frames of ``scan`` and hash all that its store depends on.

    Raises:
        DataError: no candidate frame has a valid pose, none sees the mesh that the strategy looks
            at, or the depth intrinsic is unusable.
        SensError: the .sens is damaged.
    """
    alignment, intrinsic, notes = _matrices(scan, reader, lists)
    selection = select_frames(scan, reader, settings, alignment, intrinsic, lists)
    notes += selection.notes
    poses_V44 = alignment @ reader.poses[selection.places]
    # The payloads as they stand in the file: cheaper than pixels, and a change of any byte counts.
    payloads = hashlib.sha256(reader.header_bytes)
    for place in dict.fromkeys(selection.places):
        payloads.update(reader.color_bytes(place))
        payloads.update(reader.depth_bytes(place))
    origin = {
        "scene": scan.scene,
        "split": split,
        "frame_ids": selection.frame_ids,
        "source_sha256": payloads.hexdigest(),
        "coverage": selection.coverage,
        "notes": notes,
    }
    inputs = {
        **origin,
        "code": code_hash("scenes"),
        "poses": array_digest(poses_V44),
        "depth_intrinsic": array_digest(intrinsic),
        "boxes": {
            name: [array_digest(found.boxes), array_digest(found.ids), *found.labels]
            for name, found in boxes.items()
        },
        "settings": settings.to_json(),
    }
    return StoreInputs(
        reader=reader,
        boxes=boxes,
        selection=selection,
        poses_V44=poses_V44,
        depth_intrinsic=intrinsic,
        attributes={
            **origin,
            "source": reader.name,
            "inputs_sha256": sha256_of_json(inputs),
            "stride": settings.stride,
            "strategy": settings.strategy,
            "invalid_depth": settings.invalid_depth,
        },
    )


def _matrices(
    scan: ScanFiles, reader: Frames, lists: PublishedLists
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return axis alignment and depth intrinsic, (4,4) f64 each, and notes where files disagree."""
    header, infos = reader.header, lists.infos
    intrinsic, where = header.intrinsic_depth, f"{reader.path}: the depth intrinsic"
    try:
        # Images that were resized after their export are common, and nothing here computes with it.
        where_color = "the colour intrinsic (not used)"
        notes = check_intrinsic(header.intrinsic_color, header.color_size, where_color)
    except DataError as error:
        notes = [str(error)]
    if infos is None:
        notes += check_intrinsic(intrinsic, header.depth_size, where)
        # A scan of the user's own has no alignment, and its poses any world.
        if not scan.meta.exists() and reader.valid.any():
            notes += filter(None, [lying_note(reader.poses[reader.valid], scan.meta.name)])
        return axis_alignment(scan), intrinsic, notes
    listed = None if infos.axis_alignment is None else np.array(infos.axis_alignment)
    alignment = axis_alignment(scan, listed)
    if listed is not None and not np.allclose(alignment, listed, rtol=0, atol=_SAME_ALIGNMENT):
        notes.append(f"the axis alignment of {scan.meta.name} is used, EmbodiedScan's is another")
    # A .sens has its own; an exported text is rounded, and the published training took the infos'.
    if scan.source == "posed_images" and infos.depth_intrinsic is not None:
        listed = np.array(infos.depth_intrinsic)
        if not np.allclose(intrinsic, listed, rtol=0, atol=_SAME_INTRINSIC):
            notes.append("EmbodiedScan's depth intrinsic is used, depth_intrinsic.txt has another")
        intrinsic, where = listed, f"{reader.path}: EmbodiedScan's depth_cam2img"
    notes += check_intrinsic(intrinsic, header.depth_size, where)
    return alignment, intrinsic, notes


def build_shard(
    scans: Sequence[ScanFiles],
    boxes: Mapping[str, Mapping[str, BoxSet]],
    settings: SceneSettings,
    out_folder: Path,
    manifest: Path,
    split: str,
    lists: Mapping[str, PublishedLists] | None = None,
    excluded: Mapping[str, str] | None = None,
) -> None:
    """Build the stores of a shard's scenes, and last its manifest (docs/ARCHITECTURE.md).

    A finished store is kept if it is undamaged and the hash of its inputs is the recorded one. A
    scan that cannot be used is listed in the manifest under ``left_out`` with the reason, and tried
    anew each time. A store that it had stays, unused, until the scan is as it was.

    Args:
        manifest: the shard's JSON file. An older one is removed first.
        lists: scene -> what is published about its frames. Where EmbodiedScan's infos are used, a
            scene that they lack takes its candidates by stride, with a note.
        excluded: scene -> reason, for scans that the boxes file excludes.

    Raises:
        DataError: the boxes file lacks a scene, or a file cannot be read by a fault of the
            machine. Finished scenes survive.
        StoreError: a store cannot be written. Finished scenes survive.
    """
    began = time.time()
    manifest.unlink(missing_ok=True)
    scenes: dict[str, Any] = {}
    notes: list[dict[str, str]] = []
    reasons = dict(excluded or {})
    lists = lists or {}
    listed = any(found.infos is not None for found in lists.values())
    for scan in scans:
        if scan.scene in reasons:
            continue
        if scan.scene not in boxes:
            raise DataError(f"{manifest.stem}: the boxes file has no entry for {scan.scene}")
        published = lists.get(scan.scene, PublishedLists())
        with excluding(scan.scene, reasons), open_frames(scan) as reader:
            if listed and published.infos is None and not scan.meta.exists():
                raise DataError(
                    f"{scan.meta}: missing, and EmbodiedScan's infos lack the scene, so its axis "
                    f"alignment is not known; {LEAVE_OUT}"
                )
            inputs = read_inputs(scan, reader, boxes[scan.scene], settings, split, published)
            store = _build_or_keep(inputs, out_folder / f"{scan.scene}.zarr")
            scenes[scan.scene] = manifest_entry(store)
            found = store.attributes["notes"]  # of a store that is kept, too
            if listed and published.infos is None:
                note = f"not in EmbodiedScan's infos: candidates by stride {settings.stride}"
                found = [note, *found]
            notes += [{"scene": scan.scene, "note": note} for note in found]
    ordered = {scan.scene: reasons[scan.scene] for scan in scans if scan.scene in reasons}
    _refuse_unfinished_copies([scan for scan in scans if scan.scene in reasons], began)
    rows = {"scenes": scenes, "notes": notes, "left_out": excluded_rows(ordered)}
    write_json(manifest, {"format_version": MANIFEST_VERSION, **rows})


def manifest_entry(store: SceneStore) -> dict[str, Any]:
    """Return what a shard's manifest says of a store."""
    return {
        "content": store.content_hash(),
        "frames": len(store.frame_ids),
        "objects": store.object_counts(),
    }


def _refuse_unfinished_copies(excluded: Sequence[ScanFiles], began: float) -> None:
    """Raise DataError for a file that changed since ``began``."""
    # The manifest will be newer than the file, so no later run would read the whole copy.
    for scan in excluded:
        if scan.frames.exists() and scan.frames.stat().st_mtime > began:
            raise DataError(
                f"{scan.frames}: changed while it was read; run again when it is copied"
            )


def _build_or_keep(inputs: StoreInputs, path: Path) -> SceneStore:
    """Return the store at ``path``, made anew unless it is whole and made from the same inputs."""
    store = None
    if path.exists():
        try:
            found = SceneStore.open(path)
            if found.attributes.get("inputs_sha256") == inputs.attributes["inputs_sha256"]:
                found.verify()
                store = found
        except StoreError as error:
            # Its remedy says what a person would do, and this does it.
            logger.warning("%s; remaking it now", without_remedy(str(error)))
    logger.info("%s: %s", path.stem, "kept" if store else "building")
    return store or write_scene(inputs, path)


def write_scene(inputs: StoreInputs, out: Path) -> SceneStore:
    """Decode the chosen frames, find what they see of the boxes, and write the store at ``out``.

    Raises:
        DataError: a frame is damaged.
        StoreError: the store cannot be written.
    """
    reader, selection = inputs.reader, inputs.selection
    header, frames = reader.header, len(selection.frame_ids)
    rgb = np.empty((frames, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    depth = np.empty((frames, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint16)
    patch_xyz = np.empty((frames, GRID, GRID, 3), dtype=np.float32)
    masks = {
        name: (
            np.zeros((len(inputs.boxes[name]), frames, FINE_GRID, FINE_GRID), dtype=bool),
            np.zeros((len(inputs.boxes[name]), frames, GRID, GRID), dtype=bool),
        )
        for name in BOX_SETS
    }
    for row, place in enumerate(selection.places):
        if row > 0 and place == selection.places[row - 1]:  # repeats of a frame are neighbours
            for array in (rgb, depth, patch_xyz):
                array[row] = array[row - 1]
            for fine, coarse in masks.values():
                fine[:, row], coarse[:, row] = fine[:, row - 1], coarse[:, row - 1]
            continue
        image = Image.fromarray(reader.color(place))
        rgb[row] = np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
        depth[row] = resize_depth(reader.depth_millimetres(place))
        world = coordinate_map(
            depth[row], inputs.poses_V44[row], inputs.depth_intrinsic, header.depth_size
        )
        valid = depth[row] > 0 if inputs.attributes["invalid_depth"] == "ignore" else None
        patch_xyz[row] = patch_means(world, valid)
        if not np.isfinite(patch_xyz[row]).all():
            frame = selection.frame_ids[row]
            raise DataError(f"{reader.path}: frame {frame}: its coordinates are not finite")
        # Consumers compute with float32 coordinates, so which pixels lie in a box is decided there.
        world_f32 = world.astype(np.float32)
        for name, (fine, coarse) in masks.items():
            fine[:, row], coarse[:, row] = frame_masks(world_f32, inputs.boxes[name].boxes, valid)
    doubts = check_depths(count_depths(depth), 1000.0, str(reader.path))
    contents = SceneContents(
        rgb=rgb,
        jpegs=[_payload(reader, place) for place in selection.places],
        depth=depth,
        poses=inputs.poses_V44,
        depth_intrinsic=inputs.depth_intrinsic,
        depth_size=header.depth_size,
        patch_xyz=patch_xyz,
        boxes=inputs.boxes,
        masks=masks,
        attributes={**inputs.attributes, "notes": inputs.attributes["notes"] + doubts},
    )
    write_scene_store(out, contents)
    return SceneStore.open(out)


def _payload(reader: Frames, place: int) -> bytes:
    """Return a frame's colour image as captured; uncompressed pixels are stored as a PNG."""
    if reader.header.color_compression != "raw":
        return reader.color_bytes(place)
    return encode_image(Image.fromarray(reader.color(place)), "PNG")
