"""A scene store as one image: a contact sheet of the frames, and the scene from above."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from threedrs.scannet.boxes import BOX_SETS
from threedrs.scenes.store import SceneStore
from threedrs.visualization.box_overlay import TRUE_COLOUR, DrawnBox
from threedrs.visualization.room_map import draw_from_above
from threedrs.visualization.scene_view import SceneView

BOX_COLOURS = {"gt": TRUE_COLOUR, "pred": "#e07b00"}
IMAGE_SIZE = (1170, 558)  # pixels; the scene report's page knows them too
TITLE_HEIGHT = 40  # pixels
THUMBNAIL = 96  # pixels
CAPTION_HEIGHT = 14  # pixels


def plot_scene(store: SceneStore, title: str) -> Image.Image:
    """Return all frames of a scene and its top view with all boxes, below ``title``, one line.

    Raises:
        StoreError: an array of the store is damaged.
    """
    view, sets = SceneView.of(store), {name: store.boxes(name) for name in BOX_SETS}
    step = view.rgb_VHW3.shape[1] // THUMBNAIL
    sheet = contact_sheet(
        [Image.fromarray(rgb_HW3[::step, ::step]) for rgb_HW3 in view.rgb_VHW3],
        columns=math.ceil(math.sqrt(len(view.frame_ids))),
        captions=[str(frame) for frame in view.frame_ids],
    )
    drawn = [
        # Candidate boxes have no label, so colour is not the only mark.
        DrawnBox(box=box, colour=BOX_COLOURS[name], label=f"{i} {text}" if name == "gt" else "")
        for name, boxes in sets.items()
        for box, i, text in zip(boxes.boxes, boxes.ids, boxes.labels, strict=True)
    ]
    image = Image.new("RGB", IMAGE_SIZE, "white")
    draw = ImageDraw.Draw(image)
    legend = (
        f"frames by their number in the stream; from above, {len(sets['gt'])} ground-truth boxes "
        f"(green, with id and label), {len(sets['pred'])} candidate boxes (orange), "
        "cameras (yellow)"
    )
    for top, text, size in ((2, title, 15), (22, legend, 12)):
        draw.text((6, top), text, fill="#202020", font=ImageFont.load_default(size))
    half = (IMAGE_SIZE[0] // 2 - 6, IMAGE_SIZE[1] - TITLE_HEIGHT)
    above = draw_from_above(view, drawn, [], crowded=True)
    for left, part in ((0, sheet), (half[0] + 12, above)):
        image.paste(ImageOps.contain(part, half), (left, TITLE_HEIGHT))
    return image


def contact_sheet(
    tiles: Sequence[Image.Image], *, columns: int, captions: Sequence[str] = (), gap: int = 0
) -> Image.Image:
    """Return images of one size in rows of ``columns``, each above its caption, if any.

    There is at least one image, and ``gap`` pixels are between two.
    """
    width, height = tiles[0].size
    below = CAPTION_HEIGHT if captions else 0
    step_x, step_y = width + gap, height + below + gap
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * step_x - gap, rows * step_y - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        left, top = number % columns * step_x, number // columns * step_y
        sheet.paste(tile, (left, top))
        if captions:
            draw.text((left, top + height), captions[number], fill="#3c3c3c")
    return sheet
