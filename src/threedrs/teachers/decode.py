"""A scene's pictures from its scene store, decoded by threads ahead of the model.

At most three scenes of pictures are in memory: the one in use and two ahead.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from threedrs.errors import DataError
from threedrs.scenes.store import SceneStore
from threedrs.teachers.preprocess import preprocess_jpeg
from threedrs.teachers.store import SceneOrigin

SCENES_AHEAD = 2
DECODING_THREADS = 8  # at most


def decoded_ahead(
    due: Mapping[Path, SceneOrigin], width: int
) -> Iterator[tuple[SceneOrigin, np.ndarray]]:
    """Yield each scene's pictures, (S, 3, H, W) float32, while the next scenes are decoded.

    Args:
        due: origin of each scene store to read, in the order to yield them.
        width: pixels that the teacher's pictures are wide.

    Raises:
        StoreError: a scene store is unreadable.
        DataError: a picture cannot be decoded, or differs in size from the scene's first.
    """
    threads = min(DECODING_THREADS, os.cpu_count() or 1)
    frame_pool = ThreadPoolExecutor(threads, thread_name_prefix="features-decode")
    scene_pool = ThreadPoolExecutor(1, thread_name_prefix="features-read")
    ahead: deque[tuple[SceneOrigin, Future[np.ndarray]]] = deque()
    try:
        for path, origin in due.items():
            ahead.append((origin, scene_pool.submit(_read_scene, path, origin, width, frame_pool)))
            if len(ahead) > SCENES_AHEAD:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        scene_pool.shutdown(cancel_futures=True)
        frame_pool.shutdown(cancel_futures=True)


def _read_scene(
    path: Path, origin: SceneOrigin, width: int, pool: ThreadPoolExecutor
) -> np.ndarray:
    futures = [
        pool.submit(preprocess_jpeg, payload, width=width)
        for payload in SceneStore.open(path).jpegs()
    ]
    images: list[np.ndarray] = []
    for frame, future in zip(origin.frame_ids, futures, strict=True):
        try:
            images.append(future.result())
        except DataError as error:
            raise DataError(f"{path}: frame {frame}: {error}; replace the scan's file") from error
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{path}: frame {frame}: picture of another shape than the scene's first frame"
            )
    return np.stack(images)
