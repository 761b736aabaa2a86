"""A scene as pictures need it: read from the store once; its points; sheets of its frames."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from threedrs.errors import DataError
from threedrs.scannet.geometry import nearest_indices, unproject
from threedrs.scenes.store import SceneStore

CAPTION_HEIGHT = 14  # pixels
SHEET_WIDTH = 480  # pixels of a sheet of four frames


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneView:
    """The frames of one scene and their cameras.

    Attributes:
        scene: ScanNet's scene name.
        frame_ids: index in the stream of each of the V frames.
        jpegs: the V colour images as captured.
        rgb_VHW3: (V, 384, 384, 3) u8, these images as the student sees them.
        depth_VHW: (V, 384, 384) u16, millimetres, 0: no measurement.
        poses_V44: camera to world, metres.
        intrinsic: (4, 4), of the original depth image, pixels.
        depth_size: (width, height) of the original depth image, pixels.
    """

    scene: str
    frame_ids: list[int]
    jpegs: list[bytes]
    rgb_VHW3: np.ndarray
    depth_VHW: np.ndarray
    poses_V44: np.ndarray
    intrinsic: np.ndarray
    depth_size: tuple[int, int]

    @classmethod
    def of(cls, store: SceneStore) -> "SceneView":
        """Read what drawing needs from ``store``. Raises StoreError where it is damaged."""
        return cls(
            scene=store.scene,
            frame_ids=store.frame_ids,
            jpegs=store.jpegs(),
            rgb_VHW3=store.rgb(),
            depth_VHW=store.depth(),
            poses_V44=store.poses(),
            intrinsic=store.depth_intrinsic(),
            depth_size=store.depth_size,
        )

    def picture(self, frame: int, width: int) -> Image.Image:
        """Return the captured image of ``frame``, ``width`` wide, in the depth image's aspect.

        Raises:
            DataError: the stored image cannot be decoded.
        """
        height = round(width * self.depth_size[1] / self.depth_size[0])
        try:
            # Not whatever Pillow knows: some formats start programs (EPS: Ghostscript).
            stream = io.BytesIO(self.jpegs[frame])
            with Image.open(stream, formats=("JPEG", "PNG")) as captured:
                return captured.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self.scene}: frame {self.frame_ids[frame]} cannot be decoded ({error})"
            ) from error

    def points(self, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """Return measured world points (N, 3), metres, and their colours (N, 3) u8.

        Every ``stride``-th row and column of each frame; pixels without depth are left out.
        """
        side = self.depth_VHW.shape[1]
        columns, rows = (nearest_indices(size, side)[::stride] for size in self.depth_size)
        points, colours = [], []
        for depth_HW, rgb_HW3, pose in zip(
            self.depth_VHW, self.rgb_VHW3, self.poses_V44, strict=True
        ):
            shown_HW = depth_HW[::stride, ::stride]
            world = unproject(shown_HW, self.intrinsic, pose, columns_W=columns, rows_H=rows)
            points.append(world[shown_HW > 0])
            colours.append(rgb_HW3[::stride, ::stride][shown_HW > 0])
        return np.concatenate(points), np.concatenate(colours)

    def sheet(self, most: int = 4) -> Image.Image:
        """Return up to ``most`` evenly spaced frames, two a row."""
        shown = evenly_spaced(len(self.frame_ids), most)
        tiles = [self.picture(frame, SHEET_WIDTH // 2) for frame in shown]
        return contact_sheet(tiles, columns=2)


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return up to ``most`` different indices below ``count``, first and last among them."""
    return np.unique(np.linspace(0, count - 1, most).astype(int)).tolist()


def contact_sheet(
    tiles: Sequence[Image.Image],
    *,
    columns: int,
    captions: Sequence[str] = (),
    gap: int = 0,
    ground: str = "#808080",
) -> Image.Image:
    """Return images of one size in rows of ``columns``, each above its caption, if any.

    Args:
        tiles: at least one image.
        columns: images in a row.
        captions: one for each image, or none at all.
        gap: pixels between images.
        ground: colour where there is no image.
    """
    width, height = tiles[0].size
    below = CAPTION_HEIGHT if captions else 0
    step_x, step_y = width + gap, height + below + gap
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * step_x - gap, rows * step_y - gap), ground)
    draw = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        left, top = number % columns * step_x, number // columns * step_y
        sheet.paste(tile, (left, top))
        if captions:
            draw.text((left, top + height), captions[number], fill="#3c3c3c")
    return sheet
