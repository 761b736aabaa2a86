"""Image encoders of ``transformers`` as teachers: each frame by itself, last layer's patches.

All three give the patch tokens of the last layer after its final norm. A new encoder is a
`HubModel`, a function that opens it, and a row of `PUBLISHED`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from threedrs.io.files import sha256_of_json
from threedrs.teachers.hub import HubModel, folder_sha256, load_model, model_folder, vision_config
from threedrs.teachers.teacher import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TINY_NEEDS,
    Colour,
    ImageFormat,
    Teacher,
    TeacherSettings,
    Weights,
    job_needs,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from threedrs.teachers.image_extractor import ImageExtractor

TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_SQUARE = {**TINY, "intermediate_size": 128, "image_size": 112, "patch_size": 8}
HALF = (0.5, 0.5, 0.5)

# Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023.
DINOV2 = HubModel(
    teacher="dinov2",
    repository="facebook/dinov2-large",
    size="about 1.2 GB",
    licence="Apache-2.0",
    model_types=("dinov2",),
    tiny={**TINY, "image_size": 224, "patch_size": 14},
)
# Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", 2025. The checkpoints of a
# fixed size share SigLIP's architecture. The checkpoint's text tower is not loaded.
SIGLIP2 = HubModel(
    teacher="siglip2",
    repository="google/siglip2-so400m-patch14-384",
    size="about 4.5 GB",
    licence="Apache-2.0",
    model_types=("siglip", "siglip_vision_model"),
    tiny=TINY_SQUARE,
)
# He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. The checkpoint's decoder
# is not loaded.
MAE = HubModel(
    teacher="mae",
    repository="facebook/vit-mae-large",
    size="about 1.3 GB",
    licence="Apache-2.0",
    model_types=("vit_mae",),
    tiny=TINY_SQUARE,
)


def open_dinov2(settings: TeacherSettings) -> "ImageExtractor":
    """Return DINOv2: images 518 pixels wide, as VGGT's, and 28x37 patches of a ScanNet frame."""
    from transformers import Dinov2Model

    # The special token is the class token.
    return _open(settings, DINOV2, Dinov2Model, square=False, special_tokens=1)


def open_siglip2(settings: TeacherSettings) -> "ImageExtractor":
    """Return SigLIP 2's vision tower: images squeezed to 384x384, and 27x27 patches.

    27 patches of 14 pixels leave out the last six rows and columns.
    """
    from transformers import SiglipVisionModel

    return _open(
        settings, SIGLIP2, SiglipVisionModel, square=True, special_tokens=0, mean=HALF, std=HALF
    )


def open_mae(settings: TeacherSettings) -> "ImageExtractor":
    """Return MAE's encoder with nothing masked: images squeezed to 224x224, and 14x14 patches."""
    import torch
    from transformers import ViTMAEModel

    def rising_noise(model: Any, images_N3HW: "Tensor") -> dict[str, "Tensor"]:
        # The model sorts the patches by this noise also when it masks none of them. Rising noise
        # leaves them in their order.
        model.config.mask_ratio = 0.0
        patches = (model.config.image_size // model.config.patch_size) ** 2
        noise_NP = torch.arange(patches, device=images_N3HW.device, dtype=torch.float32)
        return {"noise": noise_NP.expand(len(images_N3HW), -1)}

    return _open(settings, MAE, ViTMAEModel, square=True, special_tokens=1, arguments=rising_noise)


def _open(
    settings: TeacherSettings,
    published: HubModel,
    model_class: Any,
    *,
    square: bool,
    special_tokens: int,
    mean: Colour = IMAGENET_MEAN,
    std: Colour = IMAGENET_STD,
    arguments: "Callable[[Any, Tensor], dict[str, Tensor]]" = lambda model, images: {},
) -> "ImageExtractor":
    """Return the extractor of a published model, or of a small random one of the same kind.

    Args:
        settings: the teacher's; a name that ends in ``-tiny`` asks for the small one.
        published: what is published, and where.
        model_class: the class in ``transformers``.
        square: whether images are squeezed to a square; else they keep their proportions.
        special_tokens: as the rest, see `PatchEncoder`.

    Raises:
        CheckpointError: the model's folder is incomplete or of another kind.
    """
    from threedrs.teachers.image_extractor import ImageExtractor, PatchEncoder
    from threedrs.teachers.vggt.weights import fill_random

    if settings.is_tiny:
        config = model_class.config_class(**published.tiny)
        recipe = {"teacher": settings.name, "seed": settings.seed, **published.tiny}
    else:
        folder = model_folder(published, settings.weights)
        config = vision_config(published, folder)

    def load() -> "nn.Module":
        if settings.is_tiny:
            model = model_class(config)
            fill_random(model, settings.seed)
        else:
            model = load_model(published, folder, model_class)
        return PatchEncoder(model, mean, std, special_tokens, arguments)

    return ImageExtractor(
        settings.name,
        ImageFormat(width=config.image_size, patch=config.patch_size, square=square),
        identify=lambda: sha256_of_json(recipe) if settings.is_tiny else folder_sha256(folder),
        load=load,
    )


PUBLISHED = tuple(
    Teacher(
        name=model.teacher,
        description=f"{title}, patch tokens of the last layer, frame by frame",
        channels=channels,
        open=open_teacher,
        needs=job_needs(threads=8, mem_mb=memory, runtime=120),
        weights=Weights(kind="model", remedy=model.what_to_fetch),
    )
    for model, title, channels, memory, open_teacher in (
        (DINOV2, "DINOv2", 1024, 24000, open_dinov2),
        (SIGLIP2, "SigLIP 2's vision tower", 1152, 32000, open_siglip2),
        (MAE, "MAE's encoder", 1024, 24000, open_mae),
    )
)
SMALL = tuple(
    Teacher(
        name=f"{teacher.name}-tiny",
        description=f"the architecture of {teacher.name}, small, seeded random weights (demo)",
        channels=TINY["hidden_size"],
        open=teacher.open,
        needs=TINY_NEEDS,
    )
    for teacher in PUBLISHED
)
