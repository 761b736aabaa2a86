"""Image encoders of ``transformers`` as teachers: each frame by itself, last layer's patches.

All three give the patch tokens of the last layer after its final norm. A new encoder is a
`HubModel`, a function that opens it, and a row of `PUBLISHED`.

A model is a folder of the Hugging Face Hub's layout, a local one or one fetched into the Hub's
cache, with ``config.json`` and weights as safetensors or as PyTorch's file (read with
``weights_only``, so that it cannot run code). No code of a repository is ever fetched or run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import CheckpointError, one_line
from threedrs.io.files import sha256_of_files, sha256_of_json
from threedrs.teachers.teacher import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Colour,
    ImageFormat,
    Teacher,
    TeacherSettings,
    Weights,
    job_needs,
    model_files,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from threedrs.teachers.image_extractor import ImageExtractor

CONFIG = "config.json"
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_SQUARE = {**TINY, "intermediate_size": 128, "image_size": 112, "patch_size": 8}
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A published model."""

    teacher: str  # the teacher that needs it
    repository: str  # its id on the Hub
    size: str  # of the files to fetch, in words
    licence: str  # its name
    kind: str  # its class in ``transformers``
    model_types: tuple[str, ...]  # what ``model_type`` in ``config.json`` may be
    title: str  # for people
    channels: int
    mem_mb: int  # of a job
    tiny: Mapping[str, int]  # the configuration of the small model with random weights
    square: bool = True  # whether images are squeezed to a square; else they keep proportions
    special_tokens: int = 1  # before the patches
    mean: Colour = IMAGENET_MEAN  # see `PatchEncoder`
    std: Colour = IMAGENET_STD

    @property
    def what_to_fetch(self) -> str:
        """What a user who is offline has to do."""
        return (
            f"download config.json and the weights of {self.repository} ({self.size}, "
            f"{self.licence} licence) from the Hugging Face Hub into a folder and set "
            f"teacher.weights to it; for a try-out without it use teacher.name {self.teacher}-tiny"
        )


# Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023.
DINOV2 = HubModel(
    teacher="dinov2",
    repository="facebook/dinov2-large",
    size="about 1.2 GB",
    licence="Apache-2.0",
    kind="Dinov2Model",
    model_types=("dinov2",),
    title="DINOv2",
    channels=1024,
    mem_mb=24000,
    tiny={**TINY, "image_size": 224, "patch_size": 14},
    square=False,
)
# Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders", 2025. The checkpoints of a
# fixed size share SigLIP's architecture. The checkpoint's text tower is not loaded.
SIGLIP2 = HubModel(
    teacher="siglip2",
    repository="google/siglip2-so400m-patch14-384",
    size="about 4.5 GB",
    licence="Apache-2.0",
    kind="SiglipVisionModel",
    model_types=("siglip", "siglip_vision_model"),
    title="SigLIP 2's vision tower",
    channels=1152,
    mem_mb=32000,
    tiny=TINY_SQUARE,
    special_tokens=0,
    mean=HALF,
    std=HALF,
)
# He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. The checkpoint's decoder
# is not loaded.
MAE = HubModel(
    teacher="mae",
    repository="facebook/vit-mae-large",
    size="about 1.3 GB",
    licence="Apache-2.0",
    kind="ViTMAEModel",
    model_types=("vit_mae",),
    title="MAE's encoder",
    channels=1024,
    mem_mb=24000,
    tiny=TINY_SQUARE,
)


def open_dinov2(settings: TeacherSettings) -> "ImageExtractor":
    """Return DINOv2: images 518 pixels wide, as VGGT's, and 28x37 patches of a ScanNet frame."""
    return _open(settings, DINOV2)


def open_siglip2(settings: TeacherSettings) -> "ImageExtractor":
    """Return SigLIP 2's vision tower: images squeezed to 384x384, and 27x27 patches.

    27 patches of 14 pixels leave out the last six rows and columns.
    """
    return _open(settings, SIGLIP2)


def open_mae(settings: TeacherSettings) -> "ImageExtractor":
    """Return MAE's encoder with nothing masked: images squeezed to 224x224, and 14x14 patches."""
    import torch

    def rising_noise(model: Any, images_N3HW: "Tensor") -> dict[str, "Tensor"]:
        # The model sorts the patches by this noise also when it masks none of them. Rising noise
        # leaves them in their order.
        model.config.mask_ratio = 0.0
        patches = (model.config.image_size // model.config.patch_size) ** 2
        noise_NP = torch.arange(patches, device=images_N3HW.device, dtype=torch.float32)
        return {"noise": noise_NP.expand(len(images_N3HW), -1)}

    return _open(settings, MAE, rising_noise)


def _open(
    settings: TeacherSettings,
    published: HubModel,
    arguments: "Callable[[Any, Tensor], dict[str, Tensor]]" = lambda model, images: {},
) -> "ImageExtractor":
    """Return the extractor of a model, published or small with random weights.

    Raises:
        CheckpointError: the model's folder is incomplete or of another kind.
    """
    import transformers

    from threedrs.teachers.image_extractor import ImageExtractor, PatchEncoder
    from threedrs.teachers.vggt.weights import fill_random

    model_class = getattr(transformers, published.kind)
    is_tiny = settings.name.endswith("-tiny")
    if is_tiny:
        config = model_class.config_class(**published.tiny)
        recipe = {"teacher": settings.name, "seed": settings.seed, **published.tiny}
    else:
        folder = model_folder(published, settings.weights)
        config = vision_config(published, folder)

    def load() -> "nn.Module":
        if is_tiny:
            model = model_class(config)
            fill_random(model, settings.seed)
        else:
            model = load_model(published, folder, model_class)
        form = published.mean, published.std, published.special_tokens
        return PatchEncoder(model, *form, arguments)

    size, patch = config.image_size, config.patch_size
    return ImageExtractor(
        settings.name,
        ImageFormat(width=size, patch=patch, square=published.square),
        identify=lambda: sha256_of_json(recipe) if is_tiny else folder_sha256(folder),
        load=load,
    )


def model_folder(model: HubModel, weights: Path | None) -> Path:
    """Return the folder of ``model``: ``weights`` if given, else the Hub's, fetched if need be.

    Raises:
        CheckpointError: the folder is incomplete, or the Hub cannot be reached and its cache does
            not hold the model; says what to fetch and where to put it.
    """
    from huggingface_hub import snapshot_download

    folder = weights
    try:
        # Safetensors first. Of a repository that has both, the other file would be of no use.
        for names in ("*.safetensors*", "pytorch_model.bin"):
            if weights is None and (folder is None or not model_files(folder)):
                folder = Path(snapshot_download(model.repository, allow_patterns=[CONFIG, names]))
    except Exception as error:  # no network, a proxy, a full disk: the client has many kinds
        raise CheckpointError(
            f"teacher {model.teacher}: teacher.weights is not set and {model.repository} cannot be "
            f"fetched ({one_line(error)}); {model.what_to_fetch}"
        ) from error
    assert folder is not None
    if not (folder / CONFIG).is_file() or not model_files(folder):
        raise CheckpointError(f"{folder}: holds no {CONFIG} or no weights; {model.what_to_fetch}")
    return folder


def vision_config(model: HubModel, folder: Path) -> Any:
    """Return the configuration of the vision part of the model in ``folder``.

    Raises:
        CheckpointError: ``config.json`` is unreadable or of another kind of model.
    """
    from transformers import AutoConfig

    try:
        # Otherwise transformers would ask on the terminal whether to run code of the folder.
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers documents no list of what a damaged file raises
        raise CheckpointError(
            f"{folder / CONFIG}: cannot be read ({one_line(error)}); {model.what_to_fetch}"
        ) from error
    if config.model_type not in model.model_types:
        raise CheckpointError(
            f"{folder / CONFIG}: model_type is {config.model_type!r}, teacher {model.teacher} "
            f"needs {' or '.join(model.model_types)}; {model.what_to_fetch}"
        )
    # A checkpoint with a text tower has the vision part one level down.
    return getattr(config, "vision_config", config)


def folder_sha256(folder: Path) -> str:
    """Return a hash of the model's configuration and weights."""
    files = [folder / CONFIG, *model_files(folder)]
    names = (file.name for file in files)
    return sha256_of_json(dict(zip(names, sha256_of_files(files), strict=True)))


def load_model(model: HubModel, folder: Path, kind: Any) -> Any:
    """Return the ``transformers`` model of class ``kind`` in ``folder``, float32 on the CPU.

    Raises:
        CheckpointError: the weights are unreadable, or one is missing or of another shape.
    """
    import torch

    try:
        loaded, report = kind.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # the readers document no list of what damage raises
        raise CheckpointError(
            f"{folder}: cannot be read as {model.repository} "
            f"({one_line(error)}); {model.what_to_fetch}"
        ) from error
    # transformers fills what is missing with random values and only warns.
    if wrong := sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]})):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"{folder}: is not {model.repository}: {', '.join(wrong[:5])}{more} missing or of "
            f"another shape; {model.what_to_fetch}"
        )
    return loaded


PUBLISHED = tuple(
    Teacher(
        name=model.teacher,
        description=f"{model.title}, patch tokens of the last layer, frame by frame",
        channels=model.channels,
        open=open_teacher,
        needs=job_needs(threads=8, mem_mb=model.mem_mb, runtime=120),
        weights=Weights(kind="model", remedy=model.what_to_fetch),
    )
    for model, open_teacher in ((DINOV2, open_dinov2), (SIGLIP2, open_siglip2), (MAE, open_mae))
)
SMALL = tuple(
    Teacher(
        name=f"{teacher.name}-tiny",
        description=f"the architecture of {teacher.name}, small, seeded random weights (demo)",
        channels=TINY["hidden_size"],
        open=teacher.open,
        needs=job_needs(mem_mb=3000, runtime=60),
    )
    for teacher in PUBLISHED
)
