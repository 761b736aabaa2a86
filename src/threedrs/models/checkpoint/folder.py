"""A checkpoint folder on disk: its files, the tensors in them, and the manifest that stands for it.

Nothing here imports torch: the configuration is held against the folder before anything runs.
"""

import hashlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import (
    read_json,
    sha256_of_file,
    sha256_of_files,
    sha256_of_json,
    write_json,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_FILE = "adapter_config.json"
ENDS = 2**20  # bytes of each end of a file that the hash of a checkpoint's weights covers
FORMAT_VERSION = 1  # of the manifest
GROUNDING_OUTPUT = "ground_head_obj.3.weight"
_SNAKEMAKES_OWN = ".snakemake_timestamp"


def read_config(path: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json, the fields of its language model beside the others.

    Raises:
        CheckpointError: it is missing, or not a JSON object.
    """
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: is not a JSON object; copy the folder again")
    # Folders that transformers saves hold these fields in a section. Where both hold one, such as
    # tie_word_embeddings, the whole model's counts, as it does in transformers.
    text = config.get("text_config")
    return {**text, **config} if isinstance(text, dict) else config


def is_adapter(folder: Path) -> bool:
    """Return whether a model folder holds an adapter instead of a whole model."""
    return (folder / ADAPTER_FILE).is_file()


def copy_file_mode(folder: Path) -> None:
    """Give a folder's weights the file mode of its config.json."""
    # safetensors makes its files private, whatever the user's mask is.
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


def reference_name(run: str) -> str:
    """Return a name for a run's model folder by which the published code finds the loader."""
    # It looks for llava and qwen in the name, and for other kinds of model before.
    others = ("lora", "moe", "llama", "yi")
    return "llava-qwen" if any(word in run.lower() for word in others) else f"llava-qwen-{run}"


def tensor_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder.

    Raises:
        CheckpointError: there are none, or the index names one that is missing or outside.
    """
    index = folder / INDEX
    if index.is_file():
        weight_map = read_config(index).get("weight_map", {})
        names = [*weight_map.values()] if isinstance(weight_map, dict) else [weight_map]
        for name in names:
            plain = isinstance(name, str) and Path(name).name == name
            if not plain or not name.endswith(".safetensors"):
                raise CheckpointError(
                    f"{index}: weight_map names {name!r:.80}, expected names of files beside it; "
                    "fetch the checkpoint again"
                )
        files = [folder / name for name in sorted(set(names))]
    else:
        files = [folder / SINGLE]
    missing = [file.name for file in files if not file.is_file()] if files else [SINGLE]
    if missing:
        # Parts without their index are the download that lacks it, not a model of one file.
        lacks_index = missing == [SINGLE] and any(folder.glob("model-*-of-*.safetensors"))
        raise CheckpointError(
            f"{folder}: {INDEX if lacks_index else missing[0]} is missing; "
            "fetch the whole checkpoint, in safetensors"
        )
    return files


def check_folder(folder: Path) -> None:
    """Check that a folder has the settings and weights of a model, or is an adapter.

    Raises:
        CheckpointError: something is missing; names the checkpoints within the folder, if any.
    """
    try:
        read_config(folder / "config.json")
        if not is_adapter(folder):  # a LoRA run's, whose base has the weights
            tensor_files(folder)
    except CheckpointError as error:
        # A run's folder, an unpacked archive, or the Hub's cache with its snapshots.
        inner = [
            found.parent
            for depth in ("*", "*/*")
            for found in sorted(folder.glob(f"{depth}/config.json"))
            if any((found.parent / name).is_file() for name in (INDEX, SINGLE, ADAPTER_FILE))
        ]
        if not inner:
            raise
        named = " or ".join(map(str, inner[:3]))
        told = f"{folder}: is not a checkpoint but holds one; give {named}"
        raise CheckpointError(told) from error


def check_merge(folder: Path, out: Path) -> None:
    """Check that ``folder`` is an adapter, and that ``out`` is free for adapter and base together.

    Raises:
        CheckpointError: one of both is not so.
    """
    if not is_adapter(folder):
        raise CheckpointError(
            f"{folder}: holds no adapter ({ADAPTER_FILE} is missing); only a model of train.lora "
            "is merged"
        )
    if out.exists():
        raise CheckpointError(f"{out}: is there already; choose another place")


def weights_hash(folder: Path) -> str:
    """Return a hash of a checkpoint's weights: of names, sizes and both ends of its files.

    Raises:
        CheckpointError: see `tensor_files`.
    """
    # Not the whole files: 16 GB would take a start of every run a quarter of a minute.
    facts = []
    for file in tensor_files(folder):
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest = hashlib.sha256(stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            digest.update(stream.read(ENDS))
        facts.append([file.name, size, digest.hexdigest()])
    return sha256_of_json(facts)


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor of a checkpoint is, and its shape."""

    file: Path
    name: str
    shape: tuple[int, ...]


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Return every tensor of a checkpoint by its published name, from the files' headers.

    Raises:
        CheckpointError: a file is damaged.
    """
    tensors = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118 (not a dictionary)
                    shape = tuple(stream.get_slice(name).get_shape())
                    tensors[name] = StoredTensor(file=file, name=name, shape=shape)
        except SafetensorError as error:
            raise CheckpointError(f"{file}: is damaged ({error}); fetch it again") from error
    return tensors


def model_hash(model: Path) -> str:
    """Return the hash of what answers: a model folder, or a run's config.json.

    Raises:
        DataError: there is neither.
        CheckpointError: the folder does not fit the manifest beside it.
    """
    if model.is_file():
        return sha256_of_file(model)
    if not model.is_dir():
        raise DataError(
            f"{model}: is not a folder with a trained model; run `snakemake --cores all models`"
        )
    hashes = hash_files(model)
    require_whole(model, hashes)
    return sha256_of_json(hashes)


def lacks_grounding_head(folder: Path) -> bool:
    """Return whether the model of a folder cannot ground, as base models without heads.

    Raises:
        CheckpointError: a file is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    # An adapter is of ours, so its model has the head; of a folder without weights loading tells.
    if not files or is_adapter(folder):
        return False
    return GROUNDING_OUTPUT not in stored_tensors(files)


def manifest_path(model: Path) -> Path:
    """Return where the manifest of a model folder lies, which stands for it in later stages."""
    return model.with_name(f"{model.name}.json")


def hash_files(model: Path) -> dict[str, str]:
    """Return file (name in ``model``) -> SHA-256."""
    # No folders: published training leaves its optimizer's state in one beside the model, some
    # 100 GB which no answer depends on.
    files = sorted(f for f in model.iterdir() if f.is_file() and f.name != _SNAKEMAKES_OWN)
    return dict(zip((path.name for path in files), sha256_of_files(files), strict=True))


def write_manifest(model: Path) -> None:
    """Write the manifest of the finished model in folder ``model``."""
    write_json(manifest_path(model), {"format_version": FORMAT_VERSION, "files": hash_files(model)})


def not_trained(run: str) -> str:
    """Return that a run has no model yet, how far its training is, and what goes on with it."""
    steps = sorted(Path("results/train", run).glob(f"checkpoints/step-{'[0-9]' * 8}"))
    if not steps:
        return f"{run}: this run is not trained yet; run `snakemake --cores all models`"
    step = int(steps[-1].name.removeprefix("step-"))
    return (
        f"{run}: this run is trained up to step {step} so far; run `snakemake --cores all models`, "
        "with the run's own --configfile if it has one, which goes on from there"
    )


def require_whole(model: Path, hashes: Mapping[str, str]) -> None:
    """Check the files of a model, hashed by `hash_files`, against its manifest, if it has one.

    Raises:
        CheckpointError: a file is missing, damaged or foreign, or the manifest is malformed.
    """
    path = manifest_path(model)
    if not path.is_file():
        return  # a folder from elsewhere, which nothing vouches for
    remedy = (
        f"delete {path} and run `{shlex.join(['snakemake', '--cores', 'all', str(path)])}`, which "
        "writes it from the last checkpoint"
    )
    try:
        value = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{error}; {remedy}") from error
    recorded = value.get("files") if isinstance(value, dict) else None
    if not isinstance(recorded, dict) or value.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: is not the manifest of a trained model; {remedy}")
    for name in sorted(recorded.keys() | hashes.keys()):
        if recorded.get(name) != hashes.get(name):
            raise CheckpointError(f"{model / name}: does not fit its hash in {path}; {remedy}")
