"""A scene's pictures from its scene store, decoded by threads ahead of the model.

At most three scenes of pictures are in memory: the one in use and two ahead.
"""

import os
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.scenes.store import SceneStore
from threedrs.teachers.preprocess import PictureFormat, preprocess_jpeg
from threedrs.teachers.store import SceneOrigin

SCENES_AHEAD = 2
DECODING_THREADS = 8  # at most


def decoded_ahead(
    due: Mapping[Path, SceneOrigin], picture_format: PictureFormat
) -> Generator[tuple[SceneOrigin, np.ndarray], None, None]:
    """Yield each scene's pictures, (S, H, W, 3) uint8, while the next scenes are decoded.

    Args:
        due: origin of each scene store to read, in the order to yield them.
        picture_format: the size of the teacher's pictures.

    Raises:
        StoreError: a scene store is unreadable.
        DataError: a picture cannot be decoded, or differs in size from the scene's first.
    """
    threads = min(DECODING_THREADS, len(os.sched_getaffinity(0)))
    frame_pool = ThreadPoolExecutor(threads, thread_name_prefix="features-decode")
    scene_pool = ThreadPoolExecutor(1, thread_name_prefix="features-read")
    ahead: deque[tuple[SceneOrigin, Future[np.ndarray]]] = deque()
    try:
        for path, origin in due.items():
            ahead.append(
                (origin, scene_pool.submit(read_pictures, path, origin, picture_format, frame_pool))
            )
            if len(ahead) > SCENES_AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        scene_pool.shutdown(cancel_futures=True)
        frame_pool.shutdown(cancel_futures=True)


def read_pictures(
    path: Path, origin: SceneOrigin, picture_format: PictureFormat, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Return one scene's pictures, (S, H, W, 3) uint8, decoded by ``pool``'s threads.

    Raises:
        StoreError, DataError: as `decoded_ahead`.
    """
    futures = [
        pool.submit(preprocess_jpeg, payload, picture_format)
        for payload in SceneStore.open(path).jpegs()
    ]
    pictures: list[np.ndarray] = []
    for frame, future in zip(origin.frame_ids, futures, strict=True):
        try:
            pictures.append(future.result())
        except DataError as error:
            raise DataError(f"{path}: frame {frame}: {error}; replace the scan's file") from error
        if pictures[-1].shape != pictures[0].shape:
            raise DataError(
                f"{path}: frame {frame}: picture of another shape than the scene's first frame"
            )
    return np.stack(pictures)
