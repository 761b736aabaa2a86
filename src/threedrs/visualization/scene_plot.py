"""What a scene store holds, as a picture: its frames, and the scene from above with all boxes.

Matplotlib; about a second and a half a scene of 32 frames, most of it the point cloud.
"""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from threedrs.io.files import atomic_file
from threedrs.scannet.boxes import BOX_SETS, BoxSet
from threedrs.scenes.store import SceneStore

BOX_COLOURS = {"gt": "#1a9850", "pred": "#e07b00"}
BOX_NAMES = {"gt": "ground truth", "pred": "detector"}
THUMBNAIL = 96  # pixels
STRIDE = 4  # of the pixels that become points
CEILING = 2.2  # metres above the floor; points above it would hide the room
_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


def scene_picture(store: SceneStore, title: str, out: Path) -> None:
    """Write the contact sheet and the top view of a scene, whole or not at all.

    Args:
        store: the scene.
        title: one line above it.
        out: a .png or .jpg file; another suffix gives PNG.

    Raises:
        StoreError: an array of the store is damaged.
    """
    rgb, boxes = store.rgb(), {name: store.boxes(name) for name in BOX_SETS}
    points_N3, colours_N3 = scene_points(store, rgb)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    _contact_sheet(left, rgb, store.frame_ids)
    _top_view(right, points_N3, colours_N3, store.poses(), boxes)
    options: dict[str, Any] = {"format": _FORMATS.get(out.suffix.lower(), "png")}
    if options["format"] == "jpeg":
        options["pil_kwargs"] = {"quality": 85}
    with atomic_file(out) as temporary:
        figure.savefig(temporary, dpi=90, bbox_inches="tight", pad_inches=0.1, **options)
    plt.close(figure)


def scene_points(store: SceneStore, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return measured world points (N,3) f32, metres, and their colours (N,3) u8.

    Every fourth row and column of each frame; pixels without depth are left out.
    """
    depth_VHW = store.depth()[:, ::STRIDE, ::STRIDE]
    world_VHW3 = store.coordinates()[:, ::STRIDE, ::STRIDE]
    measured = depth_VHW > 0
    return world_VHW3[measured], rgb[:, ::STRIDE, ::STRIDE][measured]


def _contact_sheet(axes: Axes, rgb: np.ndarray, frame_ids: list[int]) -> None:
    frames, step = len(rgb), rgb.shape[1] // THUMBNAIL
    columns = int(np.ceil(np.sqrt(frames)))
    rows = -(-frames // columns)
    sheet = np.full((rows * THUMBNAIL, columns * THUMBNAIL, 3), 255, dtype=np.uint8)
    for number, frame in enumerate(frame_ids):
        top, left = (place * THUMBNAIL for place in divmod(number, columns))
        sheet[top : top + THUMBNAIL, left : left + THUMBNAIL] = rgb[number, ::step, ::step]
        axes.text(
            left + 4, top + 14, str(frame), fontsize=7, color="white", backgroundcolor="#00000080"
        )
    axes.imshow(sheet)
    axes.set_title(f"{frames} frames, by number in the stream", fontsize=10)
    axes.axis("off")


def _top_view(
    axes: Axes,
    points_N3: np.ndarray,
    colours_N3: np.ndarray,
    poses_V44: np.ndarray,
    boxes: dict[str, BoxSet],
) -> None:
    if len(points_N3):
        low = points_N3[:, 2] < np.percentile(points_N3[:, 2], 1) + CEILING
        order = np.argsort(points_N3[low, 2], kind="stable")  # the highest are drawn last
        shown, colours = points_N3[low][order], colours_N3[low][order] / 255.0
        axes.scatter(shown[:, 0], shown[:, 1], c=colours, s=4, linewidths=0, rasterized=True)
    for name, box_set in boxes.items():
        for row, box in enumerate(box_set.boxes):
            corner = box[:2] - box[3:5] / 2
            axes.add_patch(
                Rectangle(
                    (float(corner[0]), float(corner[1])),
                    float(box[3]),
                    float(box[4]),
                    fill=False,
                    edgecolor=BOX_COLOURS[name],
                    linewidth=1.4 if name == "gt" else 0.9,
                    linestyle="-" if name == "gt" else "--",
                    label=f"{BOX_NAMES[name]}: {len(box_set)}" if row == 0 else None,
                )
            )
            if name == "gt":
                text = f"{box_set.ids[row]} {box_set.labels[row]}"
                axes.text(float(box[0]), float(box[1]), text, fontsize=6, ha="center", clip_on=True)
    axes.plot(*poses_V44[:, :2, 3].T, ".-", color="#2a78d6", linewidth=0.8, label="cameras")
    axes.set_aspect("equal")
    axes.set_xlabel("x, metres")
    axes.set_ylabel("y, metres")
    axes.legend(fontsize=8, loc="upper right")
    axes.set_title("from above", fontsize=10)
