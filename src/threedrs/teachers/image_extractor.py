"""A teacher that is a model of images: one pass a scene, on the device there is.

On a GPU the linear layers run in bfloat16 and everything between them in float32; on a CPU all is
float32 and the result depends on the input alone.

On a GPU the next scene is queued before the last one's result is waited for, so the GPU never waits
for the CPU: images go up as bytes from pinned memory and are normalised there, features are
pooled there and come down as float16 into pinned memory. One wait a scene.

S frames, P patches, h w rows and columns of the stored grid, C channels.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.errors import DataError, MachineError
from threedrs.teachers.feature_store import SceneOrigin
from threedrs.teachers.image_decoding import decoded_ahead
from threedrs.teachers.teacher import GRID, LAST, Colour, ImageFormat, SceneFeatures
from threedrs.teachers.vggt.attention import kernel_name
from threedrs.teachers.vggt.transformer import compile_blocks

SCENES_IN_FLIGHT = 2  # queued on the GPU at a time

logger = logging.getLogger(__name__)


def prepare(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model ready to run; on a GPU with compiled blocks and bfloat16 linear maps."""
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cuda":
        # Under autocast they run in bfloat16 anyway. Storing them so saves the conversion of all
        # weights in every scene and changes no value. Norms, layer scales and embeddings keep
        # float32, where half precision costs accuracy.
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)
        compile_blocks(model)
    return model


@torch.inference_mode()
def patch_features(model: nn.Module, images_SHW3: Tensor) -> Tensor:
    """Return the features, (S, P, C), of a scene's uint8 images, on their device.

    ``model`` takes (1, S, 3, H, W) in [0, 1] to (1, S, P, C).
    """
    images_S3HW = images_SHW3.permute(0, 3, 1, 2).float().div(255)
    with torch.autocast(images_SHW3.device.type, torch.bfloat16, enabled=images_SHW3.is_cuda):
        return model(images_S3HW[None])[0]


@torch.inference_mode()
def pool_features(
    features_SPC: Tensor, patches: tuple[int, int], *, grid: int | str
) -> tuple[Tensor, Tensor]:
    """Return the features on the stored grid, (S, h, w, C) float16, and which frames are finite.

    ``patches`` are rows and columns of patches, which come row by row. With ``grid`` 14 they are
    averaged to 14x14 in float32 (adaptive_avg_pool2d), with "full" they stay as they are.
    """
    # The mean of a cell's patches is rounded once, when it is stored.
    features_SCRc = features_SPC.float().transpose(1, 2).unflatten(2, patches)
    if grid == GRID:
        features_SCRc = functional.adaptive_avg_pool2d(features_SCRc, GRID)
    features_ShwC = features_SCRc.permute(0, 2, 3, 1).to(torch.float16).contiguous()
    return features_ShwC, features_ShwC.isfinite().flatten(1).all(dim=1)


class PatchEncoder(nn.Module):
    """A vision model of ``transformers``, with its normalisation, without its special tokens.

    Colours in [0, 1] less ``mean``, over ``std``, are the model's ``pixel_values`` (N, 3, H, W).
    In its ``last_hidden_state`` the ``special_tokens`` stand before the patches. ``arguments``
    makes further arguments of the model and the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Colour,
        std: Colour,
        special_tokens: int,
        arguments: Callable[[Any, Tensor], dict[str, Tensor]],
    ) -> None:
        super().__init__()
        self.model = model
        self.special_tokens = special_tokens
        self.arguments = arguments
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (1, S, P, C) of the images of one scene, (1, S, 3, H, W) in [0, 1]."""
        images_N3HW = (images[0] - self.mean) / self.std
        output = self.model(pixel_values=images_N3HW, **self.arguments(self.model, images_N3HW))
        return output.last_hidden_state[None, :, self.special_tokens :]


class ImageExtractor:
    """A `FeatureExtractor` whose features are a model's patch tokens.

    ``identify`` returns the weights' SHA-256 without loading them, ``load`` the model on the CPU,
    (1, S, 3, H, W) in [0, 1] to (1, S, P, C). A ``heavy`` one warns where there is no GPU.
    """

    def __init__(
        self,
        name: str,
        image_format: ImageFormat,
        *,
        identify: Callable[[], str],
        load: Callable[[], nn.Module],
        heavy: bool = False,
    ) -> None:
        self.name = name
        self.image_format = image_format
        self.heavy = heavy
        self._identify = cache(identify)  # a hash of gigabytes, asked for by every scene
        self._load = load

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The image size."""
        return asdict(self.image_format)

    def identify(self, scene: str) -> str:
        """Return the SHA-256 of the weights, the same for every scene."""
        return self._identify()

    def features(
        self, due: Mapping[Path, SceneOrigin], *, grid: int | str
    ) -> Generator[SceneFeatures, None, None]:
        """Yield the features of each scene; see `FeatureExtractor`.

        Raises:
            MachineError: the GPU's memory is too small.
            DataError: an image cannot be decoded, or a feature is not finite.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu" and self.heavy:
            # 32 frames take 176 TFLOP; a core does about 0.05 TFLOP a second in float32.
            minutes = 176 / (0.05 * len(os.sched_getaffinity(0))) / 60
            logger.warning(
                "there is no GPU: teacher %s takes about %.0f minutes for a scene of 32 frames on "
                "this machine, under half a second on an H100",
                self.name,
                minutes,
            )
        model = prepare(self._load(), device)
        on_gpu = device.type == "cuda"
        where = torch.cuda.get_device_name() if on_gpu else "CPU"
        logger.info("teacher %s on %s, %s", self.name, where, kernel_name())
        in_flight: deque[Callable[[], SceneFeatures]] = deque()
        # The next scene is queued before the last one's result is waited for: the GPU never idles.
        with closing(decoded_ahead(due, self.image_format)) as decoded:
            for origin, images_SHW3 in decoded:
                in_flight.append(self._start(model, origin, images_SHW3, device, grid))
                while len(in_flight) >= (SCENES_IN_FLIGHT if on_gpu else 1):
                    yield in_flight.popleft()()
        while in_flight:
            yield in_flight.popleft()()

    def _start(
        self,
        model: nn.Module,
        origin: SceneOrigin,
        images_SHW3: np.ndarray,
        device: torch.device,
        grid: int | str,
    ) -> Callable[[], SceneFeatures]:
        """Queue a scene on the device; return the function that waits for its features."""
        S, H, W, _ = images_SHW3.shape
        images = torch.from_numpy(images_SHW3)
        if device.type == "cuda":
            images = images.pin_memory()
        try:
            features_SPC = patch_features(model, images.to(device, non_blocking=True))
            patches = self.image_format.grid(H)
            features_ShwC, finite_S = map(_fetch, pool_features(features_SPC, patches, grid=grid))
        except torch.cuda.OutOfMemoryError as error:
            total = torch.cuda.get_device_properties(device).total_memory / 1e9
            raise MachineError(
                f"{origin.scene}: teacher {self.name} needs more GPU memory for {S} frames of "
                f"{W}x{H} than this GPU has free (of {total:.0f} GB); stop what else runs on it, "
                "use a larger GPU, or lower frames.count"
            ) from error
        event = torch.cuda.Event() if device.type == "cuda" else None
        if event is not None:
            event.record()

        def wait() -> SceneFeatures:
            if event is not None:
                event.synchronize()
            # Asked only here: a look at the values on the GPU would wait for its queue.
            if not finite_S.all():
                frame = origin.frame_ids[int((~finite_S).nonzero()[0])]
                raise DataError(
                    f"{origin.scene}: the teacher's features of frame {frame} are not finite; "
                    "check the checkpoint (teacher.weights)"
                )
            taps = {LAST: features_ShwC.numpy()}
            return SceneFeatures(origin=origin, taps=taps, input_size=(H, W))

        return wait


def _fetch(tensor: Tensor) -> Tensor:
    """Return the tensor on the CPU; what was on a GPU is there when the GPU's queue is done."""
    if not tensor.is_cuda:
        return tensor
    # Only a copy to page-locked memory leaves the CPU free to go on.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
