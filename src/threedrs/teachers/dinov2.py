"""Teacher ``dinov2``: patch tokens of DINOv2's last layer, after the final norm, frame by frame.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023. Pictures are as
VGGT's, 518 pixels wide with their proportions kept: 28x37 patches of a ScanNet frame.
"""

from typing import Any

from torch import nn
from transformers import Dinov2Model

from threedrs.teachers.hub import HubModel
from threedrs.teachers.patch_encoder import PatchEncoder, encoder_source, tiny_encoder_source
from threedrs.teachers.picture_source import PictureSource
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.settings import TeacherSettings
from threedrs.teachers.vggt.aggregator import IMAGE_MEAN, IMAGE_STD

PUBLISHED = HubModel(
    teacher="dinov2",
    repository="facebook/dinov2-large",
    size="about 1.2 GB",
    licence="Apache-2.0",
    model_types=("dinov2",),
)
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 14,
}


def _picture_format(config: dict[str, Any]) -> PictureFormat:
    return PictureFormat(width=config["image_size"], patch=config["patch_size"])


def _wrap(model: nn.Module) -> PatchEncoder:
    # one special token: the class token
    return PatchEncoder(model, mean=IMAGE_MEAN, std=IMAGE_STD, special_tokens=1)


def source(settings: TeacherSettings) -> PictureSource:
    """Return DINOv2. Raises CheckpointError where the model is missing."""
    return encoder_source(
        settings,
        PUBLISHED,
        kind=Dinov2Model,
        picture_format=_picture_format,
        wrap=_wrap,
    )


def tiny_source(settings: TeacherSettings) -> PictureSource:
    """Return the small teacher of the demo."""
    return tiny_encoder_source(
        settings, kind=Dinov2Model, config=TINY, picture_format=_picture_format, wrap=_wrap
    )
