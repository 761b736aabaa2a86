"""Colour and depth payloads of a ``.sens`` frame: bytes to arrays and back.

Decoding never allocates more than the image that the header announces: an image's own size is
compared with the header's before its pixels are decoded, and zlib stops one byte past the expected
end. PNG and zlib carry checksums, which are verified. JPEG carries none: damage that still decodes
to a full image of the right size cannot be told from a picture.
"""

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from threedrs.errors import DataError
from threedrs.scannet.sens_format import SensHeader, largest_payload

ZLIB_LEVEL = 6
_PILLOW_FORMATS = {"jpeg": "JPEG", "png": "PNG"}
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")


class PayloadError(DataError):
    """A payload is not what the header says; one clause, to which the caller adds the place."""


def decode_color(payload: bytes, header: SensHeader) -> NDArray[np.uint8]:
    """Decode a colour payload.

    Returns:
        (H, W, 3) uint8, RGB, writable.

    Raises:
        PayloadError: not of the header's compression or size, truncated or damaged.
    """
    shape = (header.color_height, header.color_width, 3)
    if header.color_compression == "raw":
        check_color(payload, header)
        return np.frombuffer(payload, dtype=np.uint8).reshape(shape).copy()
    check_color(payload, header)
    try:
        if header.color_compression == "png":
            with Image.open(io.BytesIO(payload), formats=["PNG"]) as image:
                image.verify()  # checksums of all chunks; Pillow's decoder skips them
        with _open(payload, header) as image:
            color = np.array(image.convert("RGB"))
    except Exception as error:  # Pillow documents no closed set of exceptions for damaged input
        raise PayloadError(_damaged("colour", header.color_compression, error)) from error
    if color.shape != shape:
        raise PayloadError(f"colour payload decodes to shape {color.shape}, not {shape}")
    return color


def check_color(payload: bytes, header: SensHeader) -> None:
    """Check format and size of a colour payload from its first bytes, without decoding it.

    Raises:
        PayloadError: not of the header's compression or size.
    """
    if header.color_compression == "raw":
        if len(payload) != header.color_bytes:
            raise PayloadError(
                f"raw colour payload has {len(payload)} bytes, not {header.color_bytes}"
            )
        return
    try:
        with _open(payload, header) as image:
            size, mode = image.size, image.mode
    except Exception as error:  # Pillow documents no closed set of exceptions for damaged input
        raise PayloadError(_damaged("colour", header.color_compression, error)) from error
    if size != (header.color_width, header.color_height):
        raise PayloadError(
            f"colour image is {size[0]}x{size[1]} pixels, "
            f"not {header.color_width}x{header.color_height}"
        )
    if mode not in _EIGHT_BIT_MODES:
        raise PayloadError(f"colour image has mode {mode}, not 8 bits a channel")


def decode_depth(payload: bytes, header: SensHeader) -> NDArray[np.uint16]:
    """Decode a depth payload.

    Returns:
        (H, W) uint16 in the header's depth units (0: no measurement), writable.

    Raises:
        PayloadError: truncated, damaged, or of another size than the header says.
    """
    expected = header.depth_bytes
    if header.depth_compression == "zlib":
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(payload, expected + 1)
        except zlib.error as error:
            raise PayloadError(_damaged("depth", "zlib", error)) from error
        if len(data) == expected and not decoder.eof:
            raise PayloadError("zlib depth payload is truncated")
        if decoder.unused_data:
            raise PayloadError(f"{len(decoder.unused_data)} bytes follow the zlib depth payload")
    else:
        data = payload
    if len(data) != expected:
        relation = "more than" if len(data) > expected else "only"
        count = expected if len(data) > expected else len(data)
        raise PayloadError(
            f"depth payload holds {relation} {count} bytes, a "
            f"{header.depth_width}x{header.depth_height} image needs {expected}"
        )
    depth = np.frombuffer(data, dtype="<u2").astype(np.uint16)
    return depth.reshape(header.depth_height, header.depth_width)


def encode_depth(depth: NDArray[np.uint16], header: SensHeader) -> bytes:
    """Return the depth payload of (H, W) uint16; the same array gives the same bytes.

    Raises:
        PayloadError: the array has another shape or dtype than the header says.
    """
    shape = (header.depth_height, header.depth_width)
    if depth.shape != shape or depth.dtype != np.uint16:
        raise PayloadError(
            f"depth is {depth.dtype} of shape {depth.shape}, not uint16 of shape {shape}"
        )
    data = depth.astype("<u2").tobytes()
    return zlib.compress(data, ZLIB_LEVEL) if header.depth_compression == "zlib" else data


def check_payload_sizes(color_bytes: int, depth_bytes: int, header: SensHeader) -> None:
    """Check payload sizes against what the header's images can need.

    Raises:
        PayloadError: a raw payload of the wrong size, or a compressed one of an absurd size.
    """
    for kind, size, compression, decoded in (
        ("colour", color_bytes, header.color_compression, header.color_bytes),
        ("depth", depth_bytes, header.depth_compression, header.depth_bytes),
    ):
        if compression == "raw" and size != decoded:
            raise PayloadError(f"raw {kind} payload of {size} bytes, the image has {decoded}")
        if size == 0 or size > largest_payload(decoded):
            raise PayloadError(
                f"{compression} {kind} payload of {size} bytes is absurd for an image of {decoded}"
            )


def _open(payload: bytes, header: SensHeader) -> Image.Image:
    return Image.open(io.BytesIO(payload), formats=[_PILLOW_FORMATS[header.color_compression]])


def _damaged(kind: str, compression: str, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{kind} payload is not a {compression} image"
    return f"{compression} {kind} payload is damaged ({error})"
