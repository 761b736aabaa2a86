"""The published layouts of checkpoints on disk: tensor names, files, shapes."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from threedrs.errors import CheckpointError, DataError
from threedrs.io.files import read_json, sha256_of_json

# What all families share: prefix in a published checkpoint, prefix in `Student`.
HEADS = (
    ("model.proj_3d.", "proj_3d."),
    ("ground_head_obj.", "grounding_head.obj."),
    ("ground_head_query.", "grounding_head.query."),
    ("ground_head_zero_target", "grounding_head.zero_target"),
)
LANGUAGE = (
    ("model.embed_tokens.", "language_model.model.embed_tokens."),
    ("model.layers.", "language_model.model.layers."),
    ("model.norm.", "language_model.model.norm."),
    ("lm_head.", "language_model.lm_head."),
)
ENDS = 2**20  # bytes of each end of a file that the hash of a checkpoint's weights covers
UNUSED_HEADS = r"model\.(corres_linear|linear_dc|geometric_linear)\..+"
ROTARY = r".+\.rotary_(pos_)?emb\.inv_freq"


@dataclass(frozen=True, kw_only=True)
class PublishedLayout:
    """The tensor names of a family's published checkpoints.

    ``names`` pairs prefixes, theirs with ours; the first that fits counts. ``ignored`` matches
    tensors that no loss and no output uses; ``vision_layer`` the number of a vision layer, where
    the last ones are not run.
    """

    names: tuple[tuple[str, str], ...]
    ignored: re.Pattern[str]
    vision_layer: re.Pattern[str] | None = None

    def own_name(self, published: str) -> str | None:
        """Return the name in `Student` of a published tensor name, None if it is not known."""
        for theirs, ours in self.names:
            if published.startswith(theirs):
                return ours + published.removeprefix(theirs)
        return None

    def published_name(self, own: str) -> str:
        """Return the published name of one of `Student`'s tensors."""
        for theirs, ours in self.names:
            if own.startswith(ours):
                return theirs + own.removeprefix(ours)
        raise AssertionError(f"{own} has no published name")

    def is_ignored(self, published: str, run_layers: int) -> bool:
        """Whether a tensor is known and not used, that of a vision layer that does not run too."""
        if self.ignored.fullmatch(published) is not None:
            return True
        layer = self.vision_layer and self.vision_layer.fullmatch(published)
        return layer is not None and int(layer.group(1)) == run_layers


LLAVA_LAYOUT = PublishedLayout(
    names=(
        ("model.vision_tower.vision_tower.vision_model.", "vision_tower."),
        ("model.mm_projector.", "projector."),
        ("model.image_newline", "newline_tokens.image_newline"),
        *HEADS,
        *LANGUAGE,
    ),
    ignored=re.compile(
        rf"{UNUSED_HEADS}|{ROTARY}|.+\.embeddings\.position_ids"
        r"|model\.vision_tower\.vision_tower\.vision_model\.(post_layernorm|head)\..+"
    ),
    vision_layer=re.compile(
        r"model\.vision_tower\.vision_tower\.vision_model\.encoder\.layers\.(\d+)\..+"
    ),
)
QWEN2_VL_LAYOUT = PublishedLayout(
    names=(("visual.merger.", "projector."), ("visual.", "vision_tower."), *HEADS, *LANGUAGE),
    ignored=re.compile(rf"{UNUSED_HEADS}|{ROTARY}"),
)
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def read_config(path: Path) -> dict[str, Any]:
    """Return a checkpoint's config.json.

    Raises:
        CheckpointError: it is missing, or not a JSON object.
    """
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{error}; model.path must name a checkpoint folder") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return config


def share_weights(folder: Path) -> None:
    """Give a folder's weights the file mode of its config.json; safetensors makes them private."""
    mode = (folder / "config.json").stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)


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
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise CheckpointError(
            f"{folder}: {missing[0].name if missing else SINGLE} is missing; "
            "fetch the whole checkpoint, in safetensors"
        )
    return files


def weights_hash(folder: Path) -> str:
    """Return a hash of a checkpoint's weights: of names, sizes and both ends of its files.

    Raises:
        CheckpointError: see `tensor_files`.
    """
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
    """Return every tensor of a checkpoint by its published name; reads the headers only.

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
