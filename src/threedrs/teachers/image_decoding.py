"""A scene's images as the teachers take them, decoded by threads ahead of the model.

Decoding and resizing a 1296x968 image costs about 20 ms of one core; Pillow releases Python's
lock for both, so threads help. At most three scenes of images are in memory: the one in use and
two ahead.
"""

import os
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from threedrs.errors import DataError
from threedrs.io.images import decode_image
from threedrs.scenes.store import SceneStore
from threedrs.teachers.feature_store import SceneOrigin
from threedrs.teachers.teacher import ImageFormat

SCENES_AHEAD = 2
DECODING_THREADS = 8  # at most


def preprocess_image(payload: bytes, image_format: ImageFormat) -> np.ndarray:
    """Return a JPEG or PNG as (H, W, 3) uint8, resized by Pillow's bicubic filter.

    With the proportions kept: width to W (518 for VGGT), height to ``round(h (W / w) / patch) *
    patch``; rows in the middle are kept where that is more than W.

    Raises:
        DataError: the payload cannot be decoded, or is so flat that no patch fits in it.
    """
    # Not through an array of the captured size: those copies are a third of all the work.
    colour = decode_image(payload)
    width, patch = image_format.width, image_format.patch
    if image_format.square:
        return np.asarray(colour.resize((width, width), Image.Resampling.BICUBIC))
    # The quotient comes first, as published: it decides where a height lies between two patches
    # (432x1080: 92.5 of them become 93, not the even 92).
    height = round(colour.height * (width / colour.width) / patch) * patch
    if height < patch:
        raise DataError(f"is too flat for a patch ({colour.width}x{colour.height})")
    resized = colour.resize((width, height), Image.Resampling.BICUBIC)
    if height > width:  # the published preprocessing keeps at most a square
        top = (height - width) // 2
        resized = resized.crop((0, top, width, top + width))
    return np.asarray(resized)


def decoded_ahead(
    due: Mapping[Path, SceneOrigin], image_format: ImageFormat
) -> Generator[tuple[SceneOrigin, np.ndarray], None, None]:
    """Yield each scene's images, (S, H, W, 3) uint8, while the next scenes are decoded.

    ``due`` has the origin of each scene store to read, in this order.

    Raises:
        StoreError: a scene store is unreadable.
        DataError: an image cannot be decoded, or differs in size from the scene's first.
    """
    threads = min(DECODING_THREADS, len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="features-decode")
    ahead: deque[tuple[Path, SceneOrigin, list[Future[np.ndarray]]]] = deque()
    try:
        for path, origin in due.items():
            payloads = SceneStore.open(path).jpegs()
            decoding = [pool.submit(preprocess_image, jpeg, image_format) for jpeg in payloads]
            ahead.append((path, origin, decoding))
            if len(ahead) > SCENES_AHEAD:
                yield _decoded(*ahead.popleft())
        while ahead:
            yield _decoded(*ahead.popleft())
    finally:
        # Whoever stops early, on an error or a signal, must not wait for scenes that nobody reads.
        pool.shutdown(cancel_futures=True)


def _decoded(
    path: Path, origin: SceneOrigin, futures: list[Future[np.ndarray]]
) -> tuple[SceneOrigin, np.ndarray]:
    images: list[np.ndarray] = []
    for frame, future in zip(origin.frame_ids, futures, strict=True):
        try:
            images.append(future.result())
        except DataError as error:
            raise DataError(
                f"{path}: the image of frame {frame} {error}; replace the scan's file"
            ) from error
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{path}: the image of frame {frame} has another shape than that of the scene's "
                "first frame; replace the scan's file"
            )
    return origin, np.stack(images)
