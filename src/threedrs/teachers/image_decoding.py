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
from threedrs.io.images import decode_rgb
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
    colour = Image.fromarray(decode_rgb(payload))
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

    Args:
        due: origin of each scene store to read, in the order to yield them.
        image_format: the size of the teacher's images.

    Raises:
        StoreError: a scene store is unreadable.
        DataError: a image cannot be decoded, or differs in size from the scene's first.
    """
    threads = min(DECODING_THREADS, len(os.sched_getaffinity(0)))
    frame_pool = ThreadPoolExecutor(threads, thread_name_prefix="features-decode")
    # A pool of its own: whoever reads a scene waits for its frames, and in the frames' pool such
    # waiting could take all threads.
    scene_pool = ThreadPoolExecutor(1, thread_name_prefix="features-read")
    ahead: deque[tuple[SceneOrigin, Future[np.ndarray]]] = deque()
    try:
        for path, origin in due.items():
            ahead.append(
                (origin, scene_pool.submit(read_images, path, origin, image_format, frame_pool))
            )
            if len(ahead) > SCENES_AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        # Whoever stops early, on an error or a signal, must not wait for scenes that nobody reads.
        scene_pool.shutdown(cancel_futures=True)
        frame_pool.shutdown(cancel_futures=True)


def read_images(
    path: Path, origin: SceneOrigin, image_format: ImageFormat, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Return one scene's images, (S, H, W, 3) uint8, decoded by ``pool``'s threads.

    Raises:
        StoreError, DataError: as `decoded_ahead`.
    """
    futures = [
        pool.submit(preprocess_image, payload, image_format)
        for payload in SceneStore.open(path).jpegs()
    ]
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
    return np.stack(images)
