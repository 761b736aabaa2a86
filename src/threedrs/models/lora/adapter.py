"""A LoRA run's model on disk: what was trained, and where the rest comes from.

The folder holds:

- ``adapter_config.json`` and ``adapter_model.safetensors`` in peft's own format, under the names of
  the published language model, the rows of ``<ground>`` and ``<coord>`` among its tensors
- ``trained_in_full.safetensors`` with both heads and what else was trained, under published names
- the tokenizer
- a config.json whose section ``threedrs.base`` names the base model, with a hash of it
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from threedrs.config.schema import LORA_TARGETS, TUNABLE, LoraSettings, Tunable
from threedrs.errors import CheckpointError, ThreedrsError
from threedrs.io.files import write_json
from threedrs.models.backbones.config_json import read_teacher_channels
from threedrs.models.checkpoint.folder import (
    ADAPTER_FILE,
    copy_file_mode,
    read_config,
    weights_hash,
)
from threedrs.models.lora.layers import ADAPTER, LANGUAGE_MODEL, add_lora, is_added, lora_config
from threedrs.models.model_settings import ModelSettings
from threedrs.models.prompt import token_id
from threedrs.models.student import GROUPS, Student
from threedrs.models.tokenizer import save_tokenizer
from threedrs.tasks.record import COORD, GROUND

WEIGHTS = "adapter_model.safetensors"
IN_FULL = "trained_in_full.safetensors"
# peft's names: of a whole model, and of trained rows.
ROOT = "base_model.model."
ROWS = "token_adapter.trainable_tokens_delta"
MOST_RANK = 4096
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Of the settings that the training had, those that decide what the base model is. How it runs, such
# as its attention, is up to whoever uses the adapter.
BASE_FIELDS = ("name", "size", "grid", "seed", "random_weights")


class SavedBase(ModelSettings):
    """The section ``threedrs.base`` of an adapter's config.json."""

    place = "threedrs.base"
    content: str  # hash of the base model
    trained_in_full: Annotated[tuple[Tunable, ...], Field(strict=False)]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What of a run's model is saved: adapters and rows, and the groups trained in full."""

    lora: LoraSettings
    groups: tuple[Tunable, ...]

    def is_in_full(self, name: str) -> bool:
        """Return whether one of the student's tensors is saved whole, as the heads always are."""
        modules = [module for group in {*self.groups, "heads"} for module in GROUPS.get(group, ())]
        return name.split(".")[0] in modules

    def is_saved(self, name: str) -> bool:
        """Return whether one of the student's tensors is saved at all."""
        return is_added(name) or self.is_in_full(name)


def save_adapter(
    student: Student,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    state: Mapping[str, Tensor],
    base: ModelSettings,
    trained: Trained,
) -> None:
    """Write a LoRA run's model into the folder, which exists.

    ``state`` has the student's tensors by name, whole: all of them where the ``base`` that the
    training started from has random weights, otherwise those that are saved.
    """
    added = {name: tensor for name, tensor in state.items() if is_added(name)}
    if student.text_config.tie_word_embeddings:  # one row serves both matrices
        added.pop(f"{LANGUAGE_MODEL}.lm_head.rows")
    save_file(
        {_peft_name(name): tensor.contiguous() for name, tensor in added.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    tensor_names = student.family.tensor_names
    in_full = {
        tensor_names.published_name(name): tensor.contiguous()
        for name, tensor in state.items()
        if trained.is_in_full(name)
    }
    save_file(in_full, folder / IN_FULL, metadata={"format": "pt"})

    # What follows is peft's own format, so that peft can load the folder without this package.
    config = lora_config(trained.lora)
    config.target_modules = sorted(trained.lora.targets)
    config.inference_mode = True
    tokens = [token_id(tokenizer, token) for token in (GROUND, COORD)]
    matrices = sorted({name.split(".")[-2] for name in added if name.endswith(".rows")})
    config.trainable_token_indices = dict.fromkeys(matrices, tokens)
    if base.path is not None:
        config.base_model_name_or_path = str(base.path.resolve())
    config.save_pretrained(str(folder))

    dtype = str(next(iter(added.values())).dtype).removeprefix("torch.")
    described = student.family.config_json(student.teacher_channels, dtype)
    described["threedrs"]["base"] = SavedBase(
        **dict(base.replace(grid=student.family.grid.coarse)),
        content=_content(base.path, state, trained),
        trained_in_full=tuple(name for name in TUNABLE if name in trained.groups),
    ).to_json()
    write_json(folder / "config.json", described)
    copy_file_mode(folder)
    save_tokenizer(tokenizer, folder)


def _peft_name(own: str) -> str:
    name = own.removeprefix(f"{LANGUAGE_MODEL}.").replace(f".{ADAPTER}.", ".")
    if name.endswith(".rows"):
        name = name.removesuffix("rows") + ROWS
    return ROOT + name


def _own_name(name: str) -> str:
    name = name.removeprefix(ROOT)
    if name.endswith(ROWS):
        return f"{LANGUAGE_MODEL}.{name.removesuffix(ROWS)}rows"
    head, _, tail = name.rpartition(".")
    return f"{LANGUAGE_MODEL}.{head}.{ADAPTER}.{tail}"


def _content(path: Path | None, state: Mapping[str, Tensor], trained: Trained) -> str:
    """Return a hash of a base: of both ends of its files, or of all frozen random weights."""
    if path is not None:
        return weights_hash(path)
    # Random weights are drawn again from their seed; another version of torch may draw others.
    digest = hashlib.sha256()
    for name in sorted(state, key=lambda name: name.replace(".base_layer.", ".")):
        if not trained.is_saved(name):
            values = state[name].detach().cpu().contiguous().view(torch.uint8)
            digest.update(values.numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """A folder's description of itself."""

    folder: Path  # that holds the adapter
    trained: Trained  # what its files hold
    base: ModelSettings  # the model that it changes
    content: str  # hash of that model
    dtype: torch.dtype  # precision of the trained student
    teacher_channels: int  # output size of the projection head, 0 for none


def read_adapter(folder: Path, settings: ModelSettings) -> SavedAdapter:
    """Return what an adapter folder says of itself, to be run with ``settings``.

    Raises:
        CheckpointError: a file is missing or malformed, or the base model is not where it was.
    """
    path = folder / "config.json"
    config = read_config(path)
    channels = read_teacher_channels(config, path)
    dtype = DTYPES.get(str(config.get("torch_dtype")))
    try:
        base = SavedBase(**config["threedrs"]["base"])
    except (ThreedrsError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: threedrs.base does not name the base model of the adapter beside it "
            f"({'; '.join(str(error).splitlines())})"
        ) from error
    from peft import LoraConfig

    try:
        adapter = LoraConfig.from_pretrained(str(folder))
        if adapter.r > MOST_RANK:
            raise ValueError(f"rank {adapter.r}, at most {MOST_RANK} is read")
        lora = LoraSettings(
            rank=adapter.r,
            alpha=adapter.lora_alpha,
            dropout=adapter.lora_dropout,
            targets=tuple(t for t in LORA_TARGETS if t in (adapter.target_modules or ())),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / ADAPTER_FILE}: is not a LoRA adapter of ours ({error})"
        ) from error
    if channels is None or dtype is None:
        raise CheckpointError(f"{path}: torch_dtype or the section threedrs is malformed")
    kept = {field: getattr(base, field) for field in BASE_FIELDS}
    if settings.name is not None:
        del kept["name"]
    places = (adapter.base_model_name_or_path, base.path)
    return SavedAdapter(
        folder=folder,
        trained=Trained(lora=lora, groups=base.trained_in_full),
        base=settings.replace(**kept, path=_base_path(folder, *filter(None, places))),
        content=base.content,
        dtype=dtype,
        teacher_channels=channels,
    )


def _base_path(folder: Path, *recorded: str | Path) -> Path | None:
    found = [Path(place) for place in recorded if Path(place).is_dir()]
    if recorded and not found:
        raise CheckpointError(
            f"{folder}: its base model, {recorded[0]}, is not there; write the folder that holds "
            f"it to base_model_name_or_path in {folder / ADAPTER_FILE}"
        )
    return found[0] if found else None


def apply_adapter(
    student: Student, tokenizer: PreTrainedTokenizerBase, saved: SavedAdapter
) -> Student:
    """Return the base ``student`` with what was trained, in the precision of the training.

    Raises:
        CheckpointError: the base model is another one than that of the training, or a file is
            missing, damaged, or does not fit the model.
    """
    # Before anything is added: the hash is that of the base alone.
    student = student.to(saved.dtype)
    if _content(saved.base.path, student.state_dict(), saved.trained) != saved.content:
        what = saved.base.path or f"the random weights of seed {saved.base.seed}"
        raise CheckpointError(
            f"{saved.folder}: the base model, {what}, is not the one of its training; give it that"
        )
    tokens = [token_id(tokenizer, token) for token in (GROUND, COORD)]
    add_lora(student, saved.trained.lora, tokens, seed=0)
    state = {_own_name(n): t for n, t in _tensors(saved.folder / WEIGHTS).items()}
    if student.text_config.tie_word_embeddings:
        state[f"{LANGUAGE_MODEL}.lm_head.rows"] = state[f"{LANGUAGE_MODEL}.model.embed_tokens.rows"]
    own_name = student.family.tensor_names.own_name
    state |= {own_name(n) or n: t for n, t in _tensors(saved.folder / IN_FULL).items()}
    expected = {n: t.shape for n, t in student.state_dict().items() if saved.trained.is_saved(n)}
    found = {name: tensor.shape for name, tensor in state.items()}
    if wrong := sorted({name for name, _ in expected.items() ^ found.items()}):
        raise CheckpointError(
            f"{saved.folder}: {len(wrong)} tensors do not fit the model, e.g. {wrong[0]}; "
            "copy the whole folder of the trained model again"
        )
    # Not strict, as the frozen weights are the base's; what is trained was compared above.
    student.load_state_dict(state, strict=False)
    return student


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{file}: is missing; copy the whole folder of the trained model"
        ) from error
    except SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged ({error}); copy it again") from error
