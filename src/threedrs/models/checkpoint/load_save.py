"""Loading and saving students: the published layout in, the published layout out.

A checkpoint is a folder with config.json, the tokenizer, and safetensors, sharded or not. Loading
builds the model without memory for its weights and takes the tensors over file by file, so the peak
is the model itself.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from threedrs.errors import CheckpointError, ThreedrsError, one_line
from threedrs.io.files import atomic_folder, read_text, write_json, write_text
from threedrs.models.attention.kernels import flash_attention
from threedrs.models.backbones.config_json import read_teacher_channels
from threedrs.models.backbones.known_backbones import read_family
from threedrs.models.checkpoint.decoding import NAME, published_generation, read_generation
from threedrs.models.checkpoint.folder import (
    GROUNDING_OUTPUT,
    StoredTensor,
    check_merge,
    copy_file_mode,
    is_adapter,
    read_config,
    stored_tensors,
    tensor_files,
)
from threedrs.models.checkpoint.matching import (
    EMBEDDINGS,
    FEWER_ROWS,
    match_tensors,
    vocabulary_rows,
)
from threedrs.models.lora.adapter import apply_adapter, read_adapter
from threedrs.models.lora.layers import merge_lora
from threedrs.models.model_settings import ModelSettings
from threedrs.models.new_student import bare_student, random_student
from threedrs.models.prompt import token_id
from threedrs.models.student import Student
from threedrs.models.tokenizer import add_tokens, load_tokenizer, save_tokenizer
from threedrs.models.zero3 import ZeroConfig, fill, spread_modules, without_weights
from threedrs.tasks.record import COORD, GROUND

logger = logging.getLogger(__name__)

PROJECTION_OUTPUT = "model.proj_3d.2.weight"


def load_student(
    settings: ModelSettings,
    *,
    teacher_channels: int | None = None,
    zero_init: ZeroConfig | None = None,
) -> tuple[Student, PreTrainedTokenizerBase]:
    """Return the student, in evaluation mode, and its tokenizer.

    Without ``settings.path``: random weights from ``settings.seed``, the 7B student in bfloat16,
    the others in float32, with the tiny tokenizer. With it: the checkpoint, in the
    precision of its embedding matrix, or the base model of an adapter with the adapter on it. Heads
    that a checkpoint was trained without are random from that seed.

    Args:
        teacher_channels: output size of the projection head, 0 for none; None: what the checkpoint
            holds (for evaluation, the only use of an adapter).
        zero_init: the DeepSpeed configuration of a ZeRO-3 run, whose ranks all call this: the
            parameters are spread over them from the start, in the run's precision.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is unknown, missing or of another
            shape, or the checkpoint was trained with another teacher's channels.
        MachineError: flash-attn is asked for and not installed.
    """
    if settings.attention == "flash":
        flash_attention()
    if settings.path is not None and is_adapter(settings.path):
        if teacher_channels is not None or zero_init is not None:
            raise CheckpointError(
                f"{settings.path}: is an adapter, which cannot be trained on; make a whole model "
                f"of it first: threedrs model merge {settings.path} OUT"
            )
        # An adapter changes its base alone, so whatever it was trained on is loaded first.
        saved = read_adapter(settings.path, settings)
        student, tokenizer = load_student(saved.base, teacher_channels=saved.teacher_channels)
        return apply_adapter(student, tokenizer, saved).eval(), tokenizer
    # What is drawn depends on the seed alone, and the caller's own random numbers go on as before.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(settings.seed)
        if settings.path is None:
            student, tokenizer = random_student(settings, teacher_channels or 0, zero_init)
        else:
            student, tokenizer = _load(settings, settings.path, teacher_channels, zero_init)
    return student.eval(), tokenizer


def check_settings(folder: Path) -> None:
    """Read config.json and tokenizer of a checkpoint as loading does, before anything waits for it.

    What its weights lack, and whether it fits the section `model`, is left to others.

    Raises:
        CheckpointError: the folder could not be loaded.
    """
    path, tokenizer = folder / "config.json", load_tokenizer(folder)
    read_family(read_config(path), path, len(tokenizer))
    read_generation(folder, tokenizer)


def _load(
    settings: ModelSettings,
    folder: Path,
    teacher_channels: int | None,
    zero_init: ZeroConfig | None,
) -> tuple[Student, PreTrainedTokenizerBase]:
    # Headers first: whatever does not fit is said before a model is built or a tensor read.
    config_path = folder / "config.json"
    config = read_config(config_path)
    stored = stored_tensors(tensor_files(folder))
    tokenizer = load_tokenizer(folder)
    tokens = len(tokenizer)
    first_new = tokens if add_tokens(tokenizer) else None
    rows = config.get("vocab_size", tokens)
    if type(rows) is int and rows < tokens:
        raise CheckpointError(
            f"{folder}: config.json has {rows} tokens, the tokenizer {tokens}; {FEWER_ROWS}"
        )
    if first_new is not None and GROUNDING_OUTPUT in stored:
        # Its trained rows would be overwritten with the mean of the others.
        raise CheckpointError(f"{folder}: has a grounding head but its tokenizer lacks {GROUND}")
    trained = read_teacher_channels(config, config_path)
    channels = _projected_channels(stored, folder, teacher_channels)
    try:
        family = read_family(
            config, config_path, len(tokenizer), name=settings.name, grid=settings.grid
        )
        with without_weights(zero_init):
            student = bare_student(family, settings, channels)
    except ThreedrsError:
        raise
    except Exception as error:  # transformers and torch document no list of what bad values raise
        raise CheckpointError(f"{config_path}: describes no model ({one_line(error)})") from error
    if zero_init is not None:
        # Modules that are built spread come with a vocabulary head of their own. It is replaced
        # before values are read: no tensor of the folder would fill it.
        student.language_model.tie_weights()
    student.generation = read_generation(folder, tokenizer)
    # Here all headers are known and no value is read: a folder that does not fit costs no time.
    names = match_tensors(student, stored, folder, first_new, trained)
    # The heads are random where the folder has none, and it is here that they draw their numbers:
    # modules that are built without weights draw none.
    with spread_modules(zero_init):
        student.reset_heads()
    # File by file, and in a spread student tensor by tensor, so that nothing but the student
    # itself stays in memory.
    for file in sorted({tensor.file for tensor in names.values()}):
        with safe_open(file, framework="pt") as stream:
            value = partial(
                _value, stream=stream, names=names, rows=len(tokenizer), first_new=first_new
            )
            fill(student, [own for own, tensor in names.items() if tensor.file == file], value)
    if zero_init is not None:
        student.restore_rotary()
        return student, tokenizer
    # Taking over the embedding matrix has made it a parameter of its own.
    student.language_model.tie_weights()
    # One precision throughout: published folders keep single tensors in another one.
    return student.to(student.get_parameter(EMBEDDINGS[0]).dtype), tokenizer


def _projected_channels(
    stored: Mapping[str, StoredTensor], folder: Path, wanted: int | None
) -> int:
    """Return the output size of the projection head, 0 for none; ``wanted`` None: as stored."""
    # A student may go on with the teacher that it was trained with, drop it, or begin with one,
    # but a head for another number of channels has learnt nothing that this run could use.
    held = stored[PROJECTION_OUTPUT].shape[0] if PROJECTION_OUTPUT in stored else 0
    if held and wanted not in (None, 0, held):
        raise CheckpointError(
            f"{folder}: its projection head is for a teacher of {held} channels, the teacher of "
            f"this run has {wanted}; choose another teacher or another checkpoint"
        )
    return held if wanted is None else wanted


def _value(
    own: str, *, stream: Any, names: Mapping[str, StoredTensor], rows: int, first_new: int | None
) -> Tensor:
    """Read the tensor of one of the student's names from its open file."""
    value = stream.get_tensor(names[own].name)
    if own in EMBEDDINGS and (first_new is not None or len(value) != rows):
        return vocabulary_rows(value, rows, first_new)
    return value


def merge_adapter(folder: Path, out: Path) -> None:
    """Write the whole model of an adapter folder to ``out``, in the published layout.

    Raises:
        CheckpointError: ``out`` exists, or the adapter or its base cannot be used.
    """
    check_merge(folder, out)
    student, tokenizer = load_student(ModelSettings(path=folder))
    merge_lora(student)
    save_student(student, tokenizer, out)
    card = folder / "README.md"
    if card.is_file():
        write_text(out / card.name, f"{read_text(card)}\nThis folder: adapter and base merged.\n")


def save_student(
    student: Student,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the student as a checkpoint folder in the published layout, whole or not at all.

    ``state`` has the tensors under `Student`'s names, for a student whose own are spread over
    ranks.
    """
    published_name = student.family.tensor_names.published_name
    tensors = {
        published_name(name): tensor.detach()
        for name, tensor in (student.state_dict() if state is None else state).items()
    }
    # Under one name only, as published; a reader ties them again.
    if student.text_config.tie_word_embeddings:
        tensors.pop(published_name(EMBEDDINGS[1]))
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config = student.family.config_json(student.teacher_channels, dtype)
    # By these the published code finds the tokens in a prompt; without one it reads no `<coord>`.
    marks = {"ground_token_ids": GROUND, "coord_token_ids": COORD}
    config |= {key: [token_id(tokenizer, token)] for key, token in marks.items()}
    # Whole or not at all: a folder with half of its shards would load as far as they go.
    with atomic_folder(folder) as temporary:
        save_torch_state_dict(tensors, temporary, metadata={"format": "pt"})
        write_json(temporary / "config.json", config)
        write_json(temporary / NAME, student.generation or published_generation(tokenizer))
        copy_file_mode(temporary)
        save_tokenizer(tokenizer, temporary)
