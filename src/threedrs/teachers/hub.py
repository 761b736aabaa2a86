"""Model folders of the Hugging Face Hub's layout: a local one, or fetched into the Hub's cache.

A folder holds ``config.json`` and the weights, as safetensors or as PyTorch's file (read with
``weights_only``, so that it cannot run code). No code of a repository is ever fetched or run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError, DataError, first_line
from threedrs.io.files import read_json, sha256_of_file, sha256_of_json

CONFIG = "config.json"
SAFETENSORS = ("*.safetensors", "model.safetensors.index.json")
PYTORCH = ("pytorch_model.bin",)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A published model."""

    teacher: str  # the teacher that needs it
    repository: str  # its id on the Hub
    size: str  # of the files to fetch, in words
    licence: str  # its name
    model_types: tuple[str, ...]  # what ``model_type`` in ``config.json`` may be
    tiny: Mapping[str, int]  # the configuration of the small model with random weights

    @property
    def what_to_fetch(self) -> str:
        """What a user who is offline has to do."""
        return (
            f"download config.json and the weights of {self.repository} ({self.size}, "
            f"{self.licence} licence) from the Hugging Face Hub into a folder and set "
            f"teacher.weights to it; for a try-out without it use teacher.name {self.teacher}-tiny"
        )


def model_folder(model: HubModel, weights: Path | None) -> Path:
    """Return the folder of ``model``: ``weights`` if given, else the Hub's, fetched if need be.

    Raises:
        CheckpointError: the folder is missing or incomplete, or the Hub cannot be reached and its
            cache does not hold the model; says what to fetch and where to put it.
    """
    if weights is None:
        folder = _fetched(model)
    elif weights.is_dir():
        folder = weights
    else:
        raise CheckpointError(f"{weights}: there is no such folder; {model.what_to_fetch}")
    if not (folder / CONFIG).is_file() or not _weight_files(folder):
        raise CheckpointError(f"{folder}: holds no {CONFIG} or no weights; {model.what_to_fetch}")
    return folder


def _fetched(model: HubModel) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # Safetensors first. Of a repository that has both, the other file would be of no use.
        patterns = [CONFIG, *SAFETENSORS]
        folder = Path(snapshot_download(model.repository, allow_patterns=patterns))
        if not _weight_files(folder):
            patterns = [CONFIG, *PYTORCH]
            folder = Path(snapshot_download(model.repository, allow_patterns=patterns))
    except Exception as error:  # no network, a proxy, a full disk: the client has many kinds
        raise CheckpointError(
            f"teacher {model.teacher}: teacher.weights is not set and {model.repository} cannot be "
            f"fetched ({first_line(error)}); {model.what_to_fetch}"
        ) from error
    return folder


def _weight_files(folder: Path) -> list[Path]:
    found = sorted(file for pattern in SAFETENSORS for file in folder.glob(pattern))
    return found or sorted(file for pattern in PYTORCH for file in folder.glob(pattern))


def read_config(model: HubModel, folder: Path) -> dict[str, Any]:
    """Return ``config.json``.

    Raises:
        CheckpointError: it is unreadable or of another kind of model.
    """
    try:
        config = read_json(folder / CONFIG)
    except DataError as error:
        raise CheckpointError(f"{error}; {model.what_to_fetch}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in model.model_types:
        raise CheckpointError(
            f"{folder / CONFIG}: model_type is {kind!r}, teacher {model.teacher} needs "
            f"{' or '.join(model.model_types)}; {model.what_to_fetch}"
        )
    return config


def folder_sha256(folder: Path) -> str:
    """Return a hash of the model's configuration and weights."""
    files = [folder / CONFIG, *_weight_files(folder)]
    return sha256_of_json({file.name: sha256_of_file(file) for file in files})


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
            f"({first_line(error)}); {model.what_to_fetch}"
        ) from error
    # transformers fills what is missing with random values and only warns.
    wrong = sorted(map(str, {*report["missing_keys"], *report["mismatched_keys"]}))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"{folder}: is not {model.repository}: {', '.join(wrong[:5])}{more} missing or of "
            f"another shape; {model.what_to_fetch}"
        )
    return loaded
