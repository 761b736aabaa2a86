"""Teacher ``vggt``: VGGT-1B's aggregator; and ``vggt-tiny``, its architecture made small.

Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025.
"""

from typing import TYPE_CHECKING, Any

from threedrs.io.files import sha256_of_file, sha256_of_json
from threedrs.teachers.teacher import ImageFormat, Teacher, TeacherSettings, Weights, job_needs
from threedrs.teachers.vggt import WHAT_TO_FETCH

if TYPE_CHECKING:
    from threedrs.teachers.image_extractor import ImageExtractor
    from threedrs.teachers.vggt.aggregator import VGGTAggregator

IMAGES = ImageFormat(width=518, patch=14)
TINY_IMAGES = ImageFormat(width=224, patch=14)
# the smallest DINOv2 encoder, two blocks deep; six aggregator heads of 64 channels as in VGGT-1B
TINY: dict[str, Any] = {
    "embed_dim": 384,
    "depth": 2,
    "num_heads": 6,
    "patch_embed": "dinov2_vits14_reg",
    "patch_embed_depth": 2,
}


def open_vggt(settings: TeacherSettings) -> "ImageExtractor":
    """Return VGGT-1B."""
    from threedrs.teachers.image_extractor import ImageExtractor
    from threedrs.teachers.vggt.weights import load_vggt

    path = settings.weights
    assert path is not None  # `open_extractor` has looked
    return ImageExtractor(
        settings.name,
        IMAGES,
        identify=lambda: sha256_of_file(path),
        load=lambda: load_vggt(path),
        heavy=True,
    )


def open_tiny_vggt(settings: TeacherSettings) -> "ImageExtractor":
    """Return the small teacher of the demo."""
    from threedrs.teachers.image_extractor import ImageExtractor

    return ImageExtractor(
        settings.name,
        TINY_IMAGES,
        identify=lambda: sha256_of_json({"teacher": settings.name, "seed": settings.seed, **TINY}),
        load=lambda: tiny_model(settings.seed),
    )


def tiny_model(seed: int) -> "VGGTAggregator":
    """Return the small aggregator with weights that depend on ``seed`` alone."""
    from threedrs.teachers.vggt.aggregator import VGGTAggregator
    from threedrs.teachers.vggt.weights import fill_random

    model = VGGTAggregator(**TINY)
    fill_random(model, seed)
    return model


VGGT = Teacher(
    name="vggt",
    description="VGGT-1B, last layer of the aggregator",
    channels=2048,
    open=open_vggt,
    needs=job_needs(threads=8, mem_mb=48000, runtime=240),
    weights=Weights(
        kind="file",
        what="the path of VGGT-1B's model.pt or model.safetensors",
        remedy=WHAT_TO_FETCH,
    ),
)
VGGT_TINY = Teacher(
    name="vggt-tiny",
    description="VGGT's architecture, small, seeded random weights (demo and tests)",
    channels=768,
    open=open_tiny_vggt,
    needs=job_needs(mem_mb=3000, runtime=60),
)
