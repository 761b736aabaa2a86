"""Model folders of the Hugging Face Hub's layout: a local one, or fetched into the Hub's cache.

A folder holds ``config.json`` and the weights, as safetensors or as PyTorch's file (read with
``weights_only``, so that it cannot run code). No code of a repository is ever fetched or run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import CheckpointError, first_line
from threedrs.io.files import sha256_of_file, sha256_of_json
from threedrs.teachers.teacher import weight_files

CONFIG = "config.json"


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
        CheckpointError: the folder is incomplete, or the Hub cannot be reached and its cache does
            not hold the model; says what to fetch and where to put it.
    """
    from huggingface_hub import snapshot_download

    folder = weights
    try:
        # Safetensors first. Of a repository that has both, the other file would be of no use.
        for names in ("*.safetensors*", "pytorch_model.bin"):
            if weights is None and (folder is None or not weight_files(folder)):
                folder = Path(snapshot_download(model.repository, allow_patterns=[CONFIG, names]))
    except Exception as error:  # no network, a proxy, a full disk: the client has many kinds
        raise CheckpointError(
            f"teacher {model.teacher}: teacher.weights is not set and {model.repository} cannot be "
            f"fetched ({first_line(error)}); {model.what_to_fetch}"
        ) from error
    assert folder is not None
    if not (folder / CONFIG).is_file() or not weight_files(folder):
        raise CheckpointError(f"{folder}: holds no {CONFIG} or no weights; {model.what_to_fetch}")
    return folder


def vision_config(model: HubModel, folder: Path) -> Any:
    """Return the configuration of the vision part of the model in ``folder``.

    Raises:
        CheckpointError: ``config.json`` is unreadable or of another kind of model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers documents no list of what a damaged file raises
        raise CheckpointError(
            f"{folder / CONFIG}: cannot be read ({first_line(error)}); {model.what_to_fetch}"
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
    files = [folder / CONFIG, *weight_files(folder)]
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
