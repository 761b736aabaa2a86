"""Colour pictures as VGGT takes them: JPEG bytes to an array of fixed width.

Decoding and resizing a 1296x968 picture costs about 20 ms of one core; Pillow releases Python's
lock for both, so threads help. Everything is done by Pillow and numpy: no GPU, no torchvision.
"""

import io

import numpy as np
from PIL import Image

from threedrs.errors import DataError

PATCH = 14  # pixels: the sides of a preprocessed picture are multiples of it


def preprocess_jpeg(payload: bytes, *, width: int) -> np.ndarray:
    """Return the picture as (3, H, ``width``) float32 in [0, 1].

    Width to ``width`` (518 for VGGT), height to ``round(h * width / w / 14) * 14``, by Pillow's
    bicubic filter; rows in the middle are kept where that is taller than ``width``.

    Raises:
        DataError: the payload is no picture, is damaged, or is so flat that no patch fits in it.
    """
    try:
        with Image.open(io.BytesIO(payload)) as picture:
            colour = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the colour picture cannot be decoded ({error})") from error
    height = round(colour.height * width / colour.width / PATCH) * PATCH
    if height < PATCH:
        raise DataError(f"a {colour.width}x{colour.height} picture is too flat for a patch")
    resized = colour.resize((width, height), Image.Resampling.BICUBIC)
    if height > width:
        top = (height - width) // 2
        resized = resized.crop((0, top, width, top + width))
    pixels_HW3 = np.asarray(resized, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1))
