"""Rooms to turn: a file a room beside the page, read by the page when a question is opened.

A file is a script that hands over base64 of gzipped JSON, because a page that was opened from disk
may load a script but not data. It holds up to 30,000 measured points with their colours, quantised
to 16 bits within the room, the cameras and their frames, and how much of each box that a question
or an answer is about every frame shows. Costs about a second and 1 MB a room of 32 frames. A room
whose store, boxes and code have not changed keeps its file.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from threedrs.io.files import sha256_of_json, write_text
from threedrs.report.question_columns import pack
from threedrs.scannet.camera import PINHOLE
from threedrs.scenes.store import SceneStore
from threedrs.visualization.box_overlay import seen_shares
from threedrs.visualization.scene_view import SceneView
from threedrs.visualization.templates import data_uri
from threedrs.workflow.code_hash import code_hash

MOST_POINTS = 30_000
STRIDE = 4  # every fourth row and column of the depth image
FRAME_WIDTH = 320  # pixels
JPEG_QUALITY = 70


def write_rooms(folder: Path, boxes: Mapping[str, np.ndarray], out: Path) -> None:
    """Write a file for each scene of ``boxes`` that has changed, and remove those of other scenes.

    ``folder`` holds the scene stores, ``boxes`` (B, 6) are those that questions and answers are of.

    Raises:
        StoreError: a store is missing or damaged.
        DataError: a frame cannot be decoded.
    """
    out.mkdir(parents=True, exist_ok=True)
    code = code_hash(None, "report.room_files:pack_room")
    for scene, boxes_N6 in boxes.items():
        store, file = SceneStore.open(folder / f"{scene}.zarr"), out / f"{scene}.js"
        head = f"// {sha256_of_json([code, store.content_hash(), boxes_N6.tolist()])}\n"
        if file.is_file():
            with file.open(encoding="utf-8") as stream:
                if stream.readline() == head:
                    continue
        room = json.dumps(pack_room(SceneView.of(store), boxes_N6))
        write_text(file, f"{head}threedrsRoom({json.dumps(scene)},{room})\n")
    for file in out.iterdir():
        if file.stem not in boxes:
            file.unlink()


def pack_room(view: SceneView, boxes_N6: np.ndarray) -> str:
    """Return a room as its file holds it: base64 of gzipped JSON."""
    points_N3, colours_N3 = view.points(STRIDE)
    if len(points_N3) > MOST_POINTS:
        # A fixed draw, so that the same room gives the same bytes.
        kept = np.random.default_rng(0).choice(len(points_N3), MOST_POINTS, replace=False)
        points_N3, colours_N3 = points_N3[kept], colours_N3[kept]
    # Stray measurements behind windows would make the room small on the screen.
    low, high = np.zeros(3), np.ones(3)
    if len(points_N3):
        low, high = np.percentile(points_N3, (0.5, 99.5), axis=0)
        high = np.maximum(high, low + 0.001)
        inside = ((points_N3 >= low) & (points_N3 <= high)).all(axis=1)
        points_N3, colours_N3 = points_N3[inside], colours_N3[inside]
    quantised = np.rint((points_N3 - low) / (high - low) * 65535).astype("<u2")
    content = {
        "low": low.round(4).tolist(),
        "high": high.round(4).tolist(),
        "points": _base64(quantised.tobytes()),
        "colours": _base64(colours_N3.astype(np.uint8).tobytes()),
        "frame_ids": view.frame_ids,
        "cameras": view.poses_V44[:, :3].round(5).tolist(),
        "intrinsic": view.intrinsic[PINHOLE].tolist(),
        "size": list(view.depth_size),
        "frames": [
            data_uri(view.image(frame, FRAME_WIDTH), "JPEG", quality=JPEG_QUALITY)
            for frame in range(len(view.frame_ids))
        ],
        "seen": [np.rint(100 * seen_shares(view, box)).astype(int).tolist() for box in boxes_N6],
    }
    return pack(content)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
