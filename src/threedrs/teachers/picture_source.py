"""A teacher that sees pictures: decode ahead, one model pass a scene, results fetched behind.

On a GPU the next scene is queued before the last one's result is waited for, so the GPU never waits
for the CPU: pictures go up as bytes from pinned memory and are normalised there, features are
pooled there and come down as float16 into pinned memory. One wait a scene.

S frames, h w rows and columns of the stored grid, C channels.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from threedrs.errors import DataError, MachineError
from threedrs.teachers.base import SceneFeatures
from threedrs.teachers.forward import (
    choose_device,
    cpu_warning,
    patch_features,
    pool_features,
    prepare,
)
from threedrs.teachers.images import decoded_ahead
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.store import SceneOrigin
from threedrs.teachers.vggt.attention import kernel_name

SCENES_IN_FLIGHT = 2  # queued on the GPU at a time

logger = logging.getLogger(__name__)


class PictureSource:
    """A `Source` whose features are a model's patch tokens.

    Args:
        name: the teacher's.
        picture_format: the size of its pictures.
        identify: returns the weights' SHA-256 without loading them; called once.
        load: returns the model on the CPU, (1, S, 3, H, W) in [0, 1] to (1, S, P, C).
        heavy: whether to warn where there is no GPU.
    """

    def __init__(
        self,
        name: str,
        picture_format: PictureFormat,
        *,
        identify: Callable[[], str],
        load: Callable[[], nn.Module],
        heavy: bool = False,
    ) -> None:
        self.name = name
        self.picture_format = picture_format
        self.heavy = heavy
        self._identify = identify
        self._load = load

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The picture size."""
        shape = self.picture_format
        return {"width": shape.width, "patch": shape.patch, "square": shape.square}

    @cached_property
    def _weights_sha256(self) -> str:
        return self._identify()

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the weights, the same for every scene."""
        return self._weights_sha256

    def features(
        self, due: Mapping[Path, SceneOrigin], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `Source`.

        Raises:
            MachineError: the GPU's memory is too small.
            DataError: a picture cannot be decoded, or a feature is not finite.
        """
        device = choose_device()
        if device.type == "cpu" and self.heavy:
            logger.warning("%s", cpu_warning(self.name))
        model = prepare(self._load(), device)
        on_gpu = device.type == "cuda"
        where = torch.cuda.get_device_name() if on_gpu else "CPU"
        logger.info("teacher %s on %s, %s", self.name, where, kernel_name())
        in_flight: deque[_Result] = deque()
        with closing(decoded_ahead(due, self.picture_format)) as decoded:
            for origin, pictures_SHW3 in decoded:
                in_flight.append(self._start(model, origin, pictures_SHW3, device, grid))
                while len(in_flight) >= (SCENES_IN_FLIGHT if on_gpu else 1):
                    yield in_flight.popleft().wait()
        while in_flight:
            yield in_flight.popleft().wait()

    def _start(
        self,
        model: nn.Module,
        origin: SceneOrigin,
        pictures_SHW3: np.ndarray,
        device: torch.device,
        grid: int | str,
    ) -> "_Result":
        S, H, W, _ = pictures_SHW3.shape
        pictures = torch.from_numpy(pictures_SHW3)
        if device.type == "cuda":
            pictures = pictures.pin_memory()
        try:
            features_SPC = patch_features(model, pictures.to(device, non_blocking=True))
            patches = self.picture_format.grid(H)
            features_ShwC, finite_S = pool_features(features_SPC, patches, grid=grid)
            return _Result(origin, (H, W), features_ShwC, finite_S)
        except torch.cuda.OutOfMemoryError as error:
            total = torch.cuda.get_device_properties(device).total_memory / 1e9
            raise MachineError(
                f"{origin.scene}: teacher {self.name} needs more GPU memory for {S} frames of "
                f"{W}x{H} than this GPU has free (of {total:.0f} GB); stop what else runs on it, "
                "use a larger GPU, or lower frames.count"
            ) from error


class _Result:
    """Features on their way to the CPU."""

    def __init__(
        self,
        origin: SceneOrigin,
        input_size: tuple[int, int],
        features_ShwC: Tensor,
        finite_S: Tensor,
    ) -> None:
        self._origin = origin
        self._input_size = input_size
        self._event = torch.cuda.Event() if features_ShwC.is_cuda else None
        self._features_ShwC, self._finite_S = self._fetch(features_ShwC), self._fetch(finite_S)
        if self._event is not None:
            self._event.record()

    def _fetch(self, tensor: Tensor) -> Tensor:
        if not tensor.is_cuda:
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def wait(self) -> SceneFeatures:
        """Return the features once they are here. Raises DataError if one is not finite."""
        if self._event is not None:
            self._event.synchronize()
        if not self._finite_S.all():
            frame = self._origin.frame_ids[int((~self._finite_S).nonzero()[0])]
            raise DataError(
                f"{self._origin.scene}: the teacher's features of frame {frame} are not finite; "
                "check the checkpoint (teacher.weights)"
            )
        return SceneFeatures(
            origin=self._origin,
            features_ShwC=self._features_ShwC.numpy(),
            input_size=self._input_size,
        )
