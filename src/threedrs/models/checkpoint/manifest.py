"""The small file beside a trained model that stands for it: ``model.json``, SHA-256 by file.

Later stages depend on it instead of the folder's date, so a model that is exported again alike
reruns nothing. Comparing a model with it costs one read of the weights (7 B: about 15 s).
"""

from collections.abc import Mapping
from pathlib import Path

from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import read_json, sha256_of_file, write_json

FORMAT_VERSION = 1
_SNAKEMAKES_OWN = ".snakemake_timestamp"


def manifest_path(model: Path) -> Path:
    """Return where the manifest of the model in folder ``model`` lies."""
    return model.with_name(f"{model.name}.json")


def hash_files(model: Path) -> dict[str, str]:
    """Return file (path below ``model``) -> SHA-256."""
    files = sorted(path for path in model.rglob("*") if path.is_file())
    return {
        path.relative_to(model).as_posix(): sha256_of_file(path)
        for path in files
        if path.name != _SNAKEMAKES_OWN
    }


def write_manifest(model: Path) -> None:
    """Write the manifest of the finished model in folder ``model``."""
    value = {"format_version": FORMAT_VERSION, "files": hash_files(model)}
    write_json(manifest_path(model), value)


def require_whole(model: Path, hashes: Mapping[str, str]) -> None:
    """Check the files of a model, hashed by `hash_files`, against its manifest, if it has one.

    Raises:
        CheckpointError: a file is missing, damaged or foreign, or the manifest is malformed.
    """
    path = manifest_path(model)
    if not path.is_file():
        return
    remedy = f"delete {path} and run `snakemake {path}`: it is written from the last checkpoint"
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
