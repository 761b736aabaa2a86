"""The table of teachers: adding one is a file beside this one and a row here.

A row's ``source`` names a function ``(settings) -> Source`` (`threedrs.teachers.base`); its
module, and with it torch or transformers, is imported when features are computed, not when the
workflow reads its configuration.
"""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threedrs.errors import ConfigError

if TYPE_CHECKING:
    from threedrs.teachers.base import Source
    from threedrs.teachers.settings import TeacherSettings

NO_TEACHER = "none"  # runs without supervision; no features are extracted


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """One row of the table.

    Attributes:
        description: for people.
        source: module below ``threedrs.teachers`` and function.
        channels: C of the published checkpoint; None: the imported files'.
        weights: what ``teacher.weights`` must be: "file"; "folder" of one file a scene; "model", a
            folder in the Hub's layout, or nothing to take it from the Hub; None: not used.
        on_gpu: whether a GPU helps.
    """

    description: str
    source: str
    channels: int | None
    weights: str | None = None
    on_gpu: bool = True


TEACHERS = {
    "vggt": Teacher(
        description="VGGT-1B, last layer of the aggregator",
        source="vggt.extractor.source",
        channels=2048,
        weights="file",
    ),
    "dinov2": Teacher(
        description="DINOv2, patch tokens of the last layer, frame by frame",
        source="dinov2.source",
        channels=1024,
        weights="model",
    ),
    "siglip2": Teacher(
        description="SigLIP 2's vision tower, patch tokens of the last layer, frame by frame",
        source="siglip2.source",
        channels=1152,
        weights="model",
    ),
    "mae": Teacher(
        description="MAE's encoder, patch tokens of the last layer, frame by frame",
        source="mae.source",
        channels=1024,
        weights="model",
    ),
    "import": Teacher(
        description="features computed elsewhere, one npz a scene",
        source="precomputed.source",
        channels=None,
        weights="folder",
        on_gpu=False,
    ),
    "pointmap": Teacher(
        description="position, surface normal and depth spread of each patch; no weights",
        source="pointmap.source",
        channels=53,
        on_gpu=False,
    ),
    "vggt-tiny": Teacher(
        description="VGGT's architecture, small, seeded random weights (demo and tests)",
        source="vggt.extractor.tiny_source",
        channels=768,
    ),
    "dinov2-tiny": Teacher(
        description="DINOv2's architecture, small, seeded random weights (demo and tests)",
        source="dinov2.tiny_source",
        channels=64,
    ),
    "siglip2-tiny": Teacher(
        description="SigLIP 2's architecture, small, seeded random weights (demo and tests)",
        source="siglip2.tiny_source",
        channels=64,
    ),
    "mae-tiny": Teacher(
        description="MAE's architecture, small, seeded random weights (demo and tests)",
        source="mae.tiny_source",
        channels=64,
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


def source_module(name: str) -> str:
    """Return the module that computes the teacher's features, relative to the package."""
    return f"teachers.{get_teacher(name).source.rpartition('.')[0]}"


def open_source(settings: "TeacherSettings") -> "Source":
    """Return what computes the features; reads no weights yet.

    Raises:
        CheckpointError: the weights are missing; says what to fetch and where to put it.
    """
    module = importlib.import_module(f"threedrs.{source_module(settings.name)}")
    return getattr(module, get_teacher(settings.name).source.rpartition(".")[2])(settings)


def teacher_channels(name: str, stores: Iterable[Path] = ()) -> int:
    """Return the channels C of the teacher's features; 0 for ``none``.

    Args:
        name: the teacher.
        stores: finished feature stores of it. With any, C is read from them, since a model folder
            may hold another size than the published checkpoint, and imported files any.

    Raises:
        ConfigError: an unknown name, or an imported teacher without a store.
        StoreError: a store is unreadable, or they differ in channels.
    """
    if name == NO_TEACHER:
        return 0
    if name not in TEACHERS:
        raise ConfigError(
            f"teacher.name {name!r} is unknown; choose one of {', '.join([*TEACHERS, NO_TEACHER])}"
        )
    paths = sorted(set(stores))
    if paths:
        from threedrs.teachers.store import common_channels

        return common_channels(paths)
    channels = TEACHERS[name].channels
    if channels is None:
        raise ConfigError(f"teacher {name}: its channels are known once features are extracted")
    return channels


def weights_of(section: Mapping[str, Any], name: str) -> Path | None:
    """Return ``teacher.weights`` as far as teacher ``name`` is concerned.

    The config gives one path, or a mapping from teacher to path where runs use several teachers.
    """
    weights = section.get("weights")
    if isinstance(weights, Mapping):
        weights = weights.get(name)
    return None if weights is None or get_teacher(name).weights is None else Path(weights)


def weights_problem(section: Mapping[str, Any], name: str) -> str | None:
    """Return what is wrong with ``teacher.weights`` for teacher ``name``, in one line, or None."""
    if name not in TEACHERS or TEACHERS[name].weights is None:
        return None
    kind, weights = TEACHERS[name].weights, weights_of(section, name)
    if weights is None:
        if kind == "model":
            return None  # taken from the Hub, or from its cache
        what = {
            "file": "the path of VGGT-1B's model.pt or model.safetensors",
            "folder": "the folder of the npz files, one <scene>.npz each",
        }[str(kind)]
        return f"teacher {name} needs teacher.weights, {what} (docs/TEACHERS.md)"
    if kind == "file" and not weights.is_file():
        return f"teacher.weights: {weights} is not a file (docs/TEACHERS.md)"
    if kind != "file" and not weights.is_dir():
        return f"teacher.weights: {weights} is not a folder (docs/TEACHERS.md)"
    return None


def weight_files(section: Mapping[str, Any], name: str, scenes: Sequence[str]) -> list[Path]:
    """Return the files below ``teacher.weights`` that decide the features of ``scenes``."""
    weights = weights_of(section, name)
    if weights is None:
        return []
    kind = get_teacher(name).weights
    if kind == "file":
        return [weights]
    if kind == "folder":
        files = [weights / f"{scene}.npz" for scene in scenes]
        return [file for file in files if file.is_file()]
    patterns = ("config.json", "*.safetensors", "pytorch_model.bin")
    return sorted(file for pattern in patterns for file in weights.glob(pattern))
