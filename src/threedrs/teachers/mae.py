"""Teacher ``mae``: patch tokens of MAE's encoder, after its final norm, with nothing masked.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. Pictures are squeezed to
the square that the model was trained on: 14x14 patches of 16 pixels at 224. The decoder of the
checkpoint is left out.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import ViTMAEModel

from threedrs.teachers.hub import HubModel
from threedrs.teachers.patch_encoder import PatchEncoder, encoder_source, tiny_encoder_source
from threedrs.teachers.picture_source import PictureSource
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.settings import TeacherSettings
from threedrs.teachers.vggt.aggregator import IMAGE_MEAN, IMAGE_STD

PUBLISHED = HubModel(
    teacher="mae",
    repository="facebook/vit-mae-large",
    size="about 1.3 GB",
    licence="Apache-2.0",
    model_types=("vit_mae",),
)
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "patch_size": 8,
}


def _picture_format(config: dict[str, Any]) -> PictureFormat:
    return PictureFormat(width=config["image_size"], patch=config["patch_size"], square=True)


def _wrap(model: Any) -> PatchEncoder:
    model.config.mask_ratio = 0.0
    patches = (model.config.image_size // model.config.patch_size) ** 2

    def keep_order(pixels_N3HW: Tensor) -> dict[str, Any]:
        # the model sorts patches by this noise, also when it masks none; rising noise leaves them
        noise_NP = torch.arange(patches, device=pixels_N3HW.device, dtype=torch.float32)
        return {"noise": noise_NP.expand(len(pixels_N3HW), -1)}

    # one special token: the class token
    return PatchEncoder(
        model, mean=IMAGE_MEAN, std=IMAGE_STD, special_tokens=1, arguments=keep_order
    )


def source(settings: TeacherSettings) -> PictureSource:
    """Return MAE's encoder. Raises CheckpointError where the model is missing."""
    return encoder_source(
        settings,
        PUBLISHED,
        kind=ViTMAEModel,
        picture_format=_picture_format,
        wrap=_wrap,
    )


def tiny_source(settings: TeacherSettings) -> PictureSource:
    """Return the small teacher of the demo."""
    return tiny_encoder_source(
        settings, kind=ViTMAEModel, config=TINY, picture_format=_picture_format, wrap=_wrap
    )
