"""The table of teachers: adding one is a loader and a row here.

A teacher maps the frames of one scene, (1, S, 3, H, W) in [0, 1], to patch features
(1, S, P, C). Its weights are identified without loading them, so that a shard whose features are
all up to date costs no model load.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import ConfigError
from threedrs.files import sha256_of_file, sha256_of_json

if TYPE_CHECKING:
    from torch import nn

NO_TEACHER = "none"  # runs without supervision; no features are extracted

# the smallest DINOv2 encoder, two blocks deep; six aggregator heads of 64 channels as in VGGT-1B
TINY: dict[str, Any] = {
    "embed_dim": 384,
    "depth": 2,
    "num_heads": 6,
    "patch_embed": "dinov2_vits14_reg",
    "patch_embed_depth": 2,
}


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """One row of the table.

    ``identify(weights, seed)`` returns the SHA-256 that stands for the weights;
    ``load(weights, seed)`` returns the model on the CPU. Both raise CheckpointError.
    """

    description: str
    channels: int
    input_width: int  # pixels
    identify: Callable[[Path | None, int], str]
    load: Callable[[Path | None, int], "nn.Module"]


def _identify_vggt(weights: Path | None, seed: int) -> str:
    from threedrs.teachers.vggt_weights import require_weights

    return sha256_of_file(require_weights(weights))


def _load_vggt(weights: Path | None, seed: int) -> "nn.Module":
    from threedrs.teachers.vggt_weights import load_vggt, require_weights

    return load_vggt(require_weights(weights))


def _identify_tiny(weights: Path | None, seed: int) -> str:
    return sha256_of_json({"teacher": "vggt-tiny", "seed": seed, **TINY})


def _load_tiny(weights: Path | None, seed: int) -> "nn.Module":
    from threedrs.teachers.vggt import VGGTAggregator
    from threedrs.teachers.vggt_weights import fill_random

    model = VGGTAggregator(**TINY)
    fill_random(model, seed)
    return model


TEACHERS = {
    "vggt": Teacher(
        description="VGGT-1B, last layer of the aggregator",
        channels=2048,
        input_width=518,
        identify=_identify_vggt,
        load=_load_vggt,
    ),
    "vggt-tiny": Teacher(
        description="VGGT's architecture, small, seeded random weights (demo and tests)",
        channels=2 * TINY["embed_dim"],
        input_width=224,
        identify=_identify_tiny,
        load=_load_tiny,
    ),
}


def get_teacher(name: str) -> Teacher:
    """Return the table's row of ``name``.

    Raises:
        ConfigError: there is none; lists the valid names.
    """
    if name not in TEACHERS:
        raise ConfigError(
            f"teacher.name {name!r} has no features to extract; choose one of {', '.join(TEACHERS)}"
        )
    return TEACHERS[name]


def teacher_channels(name: str) -> int:
    """Return the channels C of the teacher's features; 0 for ``none``.

    Raises:
        ConfigError: an unknown name; lists the valid ones.
    """
    if name == NO_TEACHER:
        return 0
    if name not in TEACHERS:
        raise ConfigError(
            f"teacher.name {name!r} is unknown; choose one of {', '.join([*TEACHERS, NO_TEACHER])}"
        )
    return TEACHERS[name].channels
