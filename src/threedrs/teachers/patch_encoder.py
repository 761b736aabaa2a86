"""Picture encoders of ``transformers`` as teachers: each frame by itself, last layer's patches.

S frames, N pictures, P patches of a picture (row by row), C channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from threedrs.io.files import sha256_of_json
from threedrs.teachers.hub import HubModel, folder_sha256, load_model, model_folder, read_config
from threedrs.teachers.picture_source import PictureSource
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.settings import TeacherSettings
from threedrs.teachers.vggt.weights import fill_random


class PatchEncoder(nn.Module):
    """A vision model of ``transformers``, with its normalisation, without its special tokens.

    Args:
        model: takes ``pixel_values`` (N, 3, H, W), returns ``last_hidden_state``.
        mean: of each colour, subtracted from values in [0, 1]; then divided by ``std``.
        std: see ``mean``.
        special_tokens: tokens before the patches in ``last_hidden_state``.
        arguments: further arguments of the model, from the pictures.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        special_tokens: int,
        arguments: Callable[[Tensor], dict[str, Any]] = lambda pixels: {},
    ) -> None:
        super().__init__()
        self.model = model
        self.special_tokens = special_tokens
        self.arguments = arguments
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (1, S, P, C) of one scene's pictures, (1, S, 3, H, W) in [0, 1]."""
        pixels_N3HW = (images[0] - self.mean) / self.std
        output = self.model(pixel_values=pixels_N3HW, **self.arguments(pixels_N3HW))
        return output.last_hidden_state[None, :, self.special_tokens :]


def encoder_source(
    settings: TeacherSettings,
    hub_model: HubModel,
    *,
    kind: Any,
    picture_format: Callable[[dict[str, Any]], PictureFormat],
    wrap: Callable[[nn.Module], PatchEncoder],
) -> PictureSource:
    """Return the teacher of a published model.

    Args:
        settings: the teacher's.
        hub_model: what is published, and where.
        kind: the class in ``transformers``.
        picture_format: the pictures' size, from the (vision part of the) model's configuration.
        wrap: adds normalisation to the loaded model.

    Raises:
        CheckpointError: the model's folder is missing or of another kind.
    """
    folder = model_folder(hub_model, settings.weights)
    config = read_config(hub_model, folder)
    config = {**kind.config_class().to_dict(), **config.get("vision_config", config)}

    def load() -> nn.Module:
        return wrap(load_model(hub_model, folder, kind))

    return PictureSource(
        settings.name,
        picture_format(config),
        identify=lambda: folder_sha256(folder),
        load=load,
    )


def tiny_encoder_source(
    settings: TeacherSettings,
    *,
    kind: Any,
    config: dict[str, Any],
    picture_format: Callable[[dict[str, Any]], PictureFormat],
    wrap: Callable[[nn.Module], PatchEncoder],
) -> PictureSource:
    """Return the same architecture of the size in ``config``, with weights drawn from the seed."""

    def load() -> nn.Module:
        model = kind(kind.config_class(**config))
        fill_random(model, settings.seed)
        return wrap(model)

    def identify() -> str:
        return sha256_of_json({"teacher": settings.name, "seed": settings.seed, **config})

    return PictureSource(settings.name, picture_format(config), identify=identify, load=load)
