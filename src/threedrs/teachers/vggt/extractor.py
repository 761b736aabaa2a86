"""Teacher ``vggt``: VGGT-1B's aggregator; and ``vggt-tiny``, its architecture made small.

Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025.
"""

from typing import Any

from torch import nn

from threedrs.io.files import sha256_of_file, sha256_of_json
from threedrs.teachers.picture_source import PictureSource
from threedrs.teachers.preprocess import PictureFormat
from threedrs.teachers.settings import TeacherSettings
from threedrs.teachers.vggt.aggregator import VGGTAggregator
from threedrs.teachers.vggt.vision_transformer import PATCH
from threedrs.teachers.vggt.weights import fill_random, load_vggt, require_weights

PICTURES = PictureFormat(width=518, patch=PATCH)
TINY_PICTURES = PictureFormat(width=224, patch=PATCH)
# the smallest DINOv2 encoder, two blocks deep; six aggregator heads of 64 channels as in VGGT-1B
TINY: dict[str, Any] = {
    "embed_dim": 384,
    "depth": 2,
    "num_heads": 6,
    "patch_embed": "dinov2_vits14_reg",
    "patch_embed_depth": 2,
}


def source(settings: TeacherSettings) -> PictureSource:
    """Return VGGT-1B. Raises CheckpointError where the checkpoint file is missing."""
    path = require_weights(settings.weights)
    return PictureSource(
        settings.name,
        PICTURES,
        identify=lambda: sha256_of_file(path),
        load=lambda: load_vggt(path),
        heavy=True,
    )


def tiny_model(seed: int) -> VGGTAggregator:
    """Return the small aggregator with weights that depend on ``seed`` alone."""
    model = VGGTAggregator(**TINY)
    fill_random(model, seed)
    return model


def tiny_source(settings: TeacherSettings) -> PictureSource:
    """Return the small teacher of the demo."""

    def load() -> nn.Module:
        return tiny_model(settings.seed)

    return PictureSource(
        settings.name,
        TINY_PICTURES,
        identify=lambda: sha256_of_json({"teacher": settings.name, "seed": settings.seed, **TINY}),
        load=load,
    )
