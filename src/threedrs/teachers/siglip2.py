"""Teacher ``siglip2``: patch tokens of SigLIP 2's vision tower, after its final norm.

Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", 2025. The checkpoints of a
fixed size share SigLIP's architecture. Pictures are squeezed to the square that the model was
trained on: 27x27 patches of 14 pixels at 384 (the last six rows and columns are in no patch). The
text tower of the checkpoint is left out.
"""

from typing import Any

from torch import nn
from transformers import SiglipVisionModel

from threedrs.teachers.hub import HubModel
from threedrs.teachers.patch_encoder import PatchEncoder, encoder_source, tiny_encoder_source
from threedrs.teachers.picture_source import PictureSource
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.settings import TeacherSettings

PUBLISHED = HubModel(
    teacher="siglip2",
    repository="google/siglip2-so400m-patch14-384",
    size="about 4.5 GB",
    licence="Apache-2.0",
    model_types=("siglip", "siglip_vision_model"),
)
HALF = (0.5, 0.5, 0.5)
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


def _wrap(model: nn.Module) -> PatchEncoder:
    return PatchEncoder(model, mean=HALF, std=HALF, special_tokens=0)


def source(settings: TeacherSettings) -> PictureSource:
    """Return SigLIP 2. Raises CheckpointError where the model is missing."""
    return encoder_source(
        settings,
        PUBLISHED,
        kind=SiglipVisionModel,
        picture_format=_picture_format,
        wrap=_wrap,
    )


def tiny_source(settings: TeacherSettings) -> PictureSource:
    """Return the small teacher of the demo."""
    return tiny_encoder_source(
        settings, kind=SiglipVisionModel, config=TINY, picture_format=_picture_format, wrap=_wrap
    )
