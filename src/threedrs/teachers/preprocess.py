"""Colour pictures as the teachers take them: JPEG bytes to an array of bytes of a fixed size.

Decoding and resizing a 1296x968 picture costs about 20 ms of one core; Pillow releases Python's
lock for both, so threads help. Everything is done by Pillow and numpy: no GPU, no torchvision.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from threedrs.errors import DataError

PICTURE_FORMATS = ("JPEG", "PNG")  # of a scene store's pictures


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """The size of a teacher's pictures.

    Attributes:
        width: pixels.
        patch: pixels: rows and columns of a patch.
        square: True: squeezed to ``width`` x ``width``; False: the proportions are kept, the height
            rounded to whole patches and cropped to ``width``.
    """

    width: int
    patch: int
    square: bool = False

    def grid(self, height: int) -> tuple[int, int]:
        """Return the rows and columns of patches of a picture of ``height`` rows."""
        return height // self.patch, self.width // self.patch


def preprocess_jpeg(payload: bytes, picture_format: PictureFormat) -> np.ndarray:
    """Return the picture as (H, W, 3) uint8, resized by Pillow's bicubic filter.

    With the proportions kept: width to W (518 for VGGT), height to ``round(h W / w / patch) *
    patch``; rows in the middle are kept where that is more than W.

    Raises:
        DataError: the payload is no picture, is damaged, or is so flat that no patch fits in it.
    """
    try:
        # Not whatever Pillow knows: some formats start programs (EPS: Ghostscript).
        with Image.open(io.BytesIO(payload), formats=PICTURE_FORMATS) as picture:
            colour = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the colour picture cannot be decoded ({error})") from error
    width, patch = picture_format.width, picture_format.patch
    if picture_format.square:
        return np.asarray(colour.resize((width, width), Image.Resampling.BICUBIC))
    height = round(colour.height * width / colour.width / patch) * patch
    if height < patch:
        raise DataError(f"a {colour.width}x{colour.height} picture is too flat for a patch")
    resized = colour.resize((width, height), Image.Resampling.BICUBIC)
    if height > width:
        top = (height - width) // 2
        resized = resized.crop((0, top, width, top + width))
    return np.asarray(resized)
