"""What results take on disk, in bytes, from the shapes of what they hold."""

from collections.abc import Mapping
from typing import Any

from threedrs.teachers.known_teachers import get_teacher

GIGABYTE = 10**9
# Bytes of a frame in a scene store: rgb and depth, and about what its JPEG and its masks take.
FRAME_BYTES = 384 * 384 * (3 + 2) + 250_000 + 20_000
# Patches of a frame's features: averaged to 14 x 14, or all patches of a 518 x 392 image.
PATCHES = {14: 14 * 14, "full": 37 * 28}
# Parameters of a student by the groups of `train.tunable`, and of its adapters a unit of rank.
PARAMETERS = {
    "tiny": {"vision_tower": 1e5, "projector": 1.4e4, "language_model": 5.0e5, "heads": 4.5e5},
    "mini": {"vision_tower": 2.1e6, "projector": 1.15e5, "language_model": 4.5e6, "heads": 1.45e6},
    "small": {"vision_tower": 1.07e7, "projector": 7e5, "language_model": 2.47e7, "heads": 5.1e6},
    "7b": {"vision_tower": 3.977e8, "projector": 1.7e7, "language_model": 7.616e9, "heads": 9.2e7},
}
ADAPTER_PARAMETERS = {"tiny": 5.2e3, "mini": 2.43e4, "small": 5.9e4, "7b": 2.52e6}
EXPORTED_BYTES = {"tiny": 4, "mini": 4, "small": 4, "7b": 2}  # a parameter
CHECKPOINT_BYTES = 12  # a trained parameter: the weight and two moments, float32


def channels_of(teacher: str) -> int:
    """Return the number of channels of a teacher's features, VGGT's where the files decide."""
    return 0 if teacher == "none" else get_teacher(teacher).channels or 2048


def feature_bytes(teacher: Mapping[str, Any], channels: int) -> int:
    """Return the bytes of a frame's features, by the section ``teacher`` of the configuration."""
    return PATCHES[teacher["grid"]] * channels * 2


def _parameters(run: Mapping[str, Any]) -> tuple[float, float]:
    """Return how many parameters a resolved run trains, and how many its model has."""
    size, train = run["model"]["size"], run["train"]
    groups = PARAMETERS[size]
    trained = {name: groups[name] for name in train["tunable"]}
    if train["lora"] is not None and "language_model" in trained:
        trained["language_model"] = ADAPTER_PARAMETERS[size] * train["lora"]["rank"]
    return sum(trained.values()), sum(groups.values())


def checkpoint_bytes(run: Mapping[str, Any]) -> float:
    """Return the bytes of a training checkpoint of a resolved run."""
    return CHECKPOINT_BYTES * _parameters(run)[0]


def model_bytes(run: Mapping[str, Any]) -> float:
    """Return the bytes of a resolved run's exported model: an adapter's, or the whole one's."""
    trained, whole = _parameters(run)
    return EXPORTED_BYTES[run["model"]["size"]] * (
        whole if run["train"]["lora"] is None else trained
    )
