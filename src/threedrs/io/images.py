"""Images from outside, opened in one place under one policy, and images of ours, written whole.

Pillow guesses a format from the first bytes, and some formats start programs (EPS starts
Ghostscript), so only JPEG and PNG are opened. Pillow documents no closed set of exceptions for
damaged input, so any exception is taken for damage and becomes one `ImageError`.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError, ThreedrsError, one_line
from threedrs.io.files import atomic_file

FORMATS = ("JPEG", "PNG")
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I")  # Pillow's modes of a 16-bit grey PNG


class ImageError(DataError):
    """An image cannot be decoded: one clause, to which the caller adds the file."""


@contextmanager
def open_image(source: Path | bytes, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Yield an image of a file or of its bytes; its pixels are decoded when they are asked for.

    Raises:
        ImageError: it is not of ``formats``, or it turns out to be damaged within the block. Its
            cause is what Pillow raised.
    """
    kind = formats[0] if len(formats) == 1 else "image"
    try:
        # A named pipe would wait for its writer.
        if isinstance(source, Path) and not source.is_file():
            raise OSError("not a regular file")
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream, formats=formats) as image:
            yield image
    except ThreedrsError:
        raise
    except Exception as error:
        raise ImageError(f"is not a readable {kind} ({one_line(error)})") from error


def image_size(source: Path | bytes, formats: tuple[str, ...] = FORMATS) -> tuple[int, int]:
    """Return an image's (width, height) from its first bytes. Raises ImageError."""
    with open_image(source, formats) as image:
        return image.size


def decode_image(source: Path | bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return an image, decoded, in mode RGB. Raises ImageError."""
    _compare_checksums(source, formats)
    with open_image(source, formats) as image:
        return image.convert("RGB")


def decode_rgb(source: Path | bytes, formats: tuple[str, ...] = FORMATS) -> NDArray[np.uint8]:
    """Return an image's pixels, (H, W, 3) uint8, writable. Raises ImageError."""
    return np.array(decode_image(source, formats))


def decode_depth_png(payload: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Return the values of a 16-bit grey PNG of ``size`` (width, height): (H, W) uint16, writable.

    Raises:
        ImageError: the image is damaged, of another mode or of another size.
    """
    _compare_checksums(payload, ("PNG",))
    with open_image(payload, ("PNG",)) as image:
        if image.mode not in SIXTEEN_BIT_MODES:
            raise ImageError(f"is not a 16-bit grey PNG (Pillow mode {image.mode})")
        if image.size != size:
            width, height = image.size
            raise ImageError(
                f"is {width}x{height} pixels, the scan's depth images {size[0]}x{size[1]}"
            )
        return np.array(image).astype(np.uint16)


def save_image(image: Image.Image, out: Path) -> None:
    """Write an image as JPEG where ``out`` is a .jpg or .jpeg, else as PNG; whole or not at all."""
    kind = "JPEG" if out.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with atomic_file(out) as temporary:
        image.save(temporary, format=kind, quality=85)


def encode_image(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file of ``kind``, JPEG or PNG."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _compare_checksums(source: Path | bytes, formats: tuple[str, ...]) -> None:
    """Compare the checksums of a PNG's chunks, which Pillow's decoder skips."""
    # On an image of its own, because Pillow cannot decode an image that it has verified.
    with open_image(source, formats) as image:
        if image.format == "PNG":
            image.verify()
