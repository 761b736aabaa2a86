"""What all families share in reading and writing the config.json of a checkpoint.

Published folders describe the language model field by field. Folders that transformers saves hold
these fields in the section ``text_config``, and ``read_config`` puts them beside the others. Ours
also carry the section ``threedrs``: format version, the teacher's channels, and the vision tower's
sizes.

What becomes of the fields that are not read here is in `config_fields`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import threedrs
from threedrs.errors import CheckpointError

FORMAT_VERSION = 1
# Fields of the language model that decide a tensor's shape.
SHAPE_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
)
SAVED_FIELDS = (  # of the language model, in the config.json of a student
    *SHAPE_FIELDS,
    *("hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("tie_word_embeddings", "attention_dropout", "use_sliding_window"),
    *("bos_token_id", "eos_token_id"),
)
READ_FIELDS = (*SAVED_FIELDS, "rope_theta", "rope_scaling", "rope_parameters")
ROPE_TYPES = ("", "type", "rope_type")  # keys that name the kind, "" where the section itself does
# Far above any model: a larger number would only fill the memory with layers, before a tensor of
# the checkpoint is compared with it.
MOST_LAYERS = 1024
MOST_SIDE = 8192  # pixels
MOST = 2**21


def text_fields(
    config: Mapping[str, Any], path: Path, tokens: int, *, kind: str, rotary: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of the language model in the ``config`` that was read from ``path``.

    The vocabulary is that of the tokenizer, ``tokens``: published matrices have up to 418 rows
    more, which are cut. Messages call the checkpoint one of ``kind``. ``rotary`` are the types of
    rotary embedding that the family knows.

    Raises:
        CheckpointError: a size is missing, or positions or layers are of another kind.
    """
    if missing := [name for name in SHAPE_FIELDS if name not in config]:
        raise CheckpointError(f"{path}: lacks {', '.join(missing)}; is it a {kind} checkpoint?")
    check_sizes(config, SHAPE_FIELDS, path)
    if others := {*(config.get("layer_types") or ())} - {"full_attention"}:
        raise CheckpointError(
            f"{path}: layer_types holds {min(map(str, others))}, this version computes "
            "full_attention alone; choose a checkpoint without it"
        )
    _check_rotary(config, path, rotary)
    chosen = {name: config[name] for name in READ_FIELDS if name in config}
    return chosen | {"vocab_size": tokens}


def check_sizes(section: Mapping[str, Any], names: Iterable[str], path: Path) -> None:
    """Check the sizes of a model that a config.json gives.

    Raises:
        CheckpointError: one is not an integer, or absurd.
    """
    for name in names:
        most = MOST_LAYERS if name in ("num_hidden_layers", "depth") else MOST
        most = MOST_SIDE if name in ("image_size", "patch_size") else most
        value = section.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise CheckpointError(
                f"{path}: {name} is {value!r:.40}, expected an integer from 1 to {most}; "
                "fetch the checkpoint again"
            )


def _check_rotary(config: Mapping[str, Any], path: Path, known: Sequence[str]) -> None:
    """Check that the rotary embedding is of one of the ``known`` types."""
    # These are restored after a cast and saved again. With another type a student would train on
    # other positions than its export is read with.
    for section in ("rope_scaling", "rope_parameters"):
        rope = config.get(section)
        fields = rope if isinstance(rope, Mapping) else {} if rope is None else {"": rope}
        # The type first, as it says best what the other keys are there for.
        for key in sorted(fields, key=lambda key: key not in ROPE_TYPES):
            value = fields[key]
            if (value in known) if key in ROPE_TYPES else key in ("rope_theta", "mrope_section"):
                continue
            raise CheckpointError(
                f"{path}: {f'{section}.{key}'.rstrip('.')} is {value!r:.40}, this version knows "
                f"{' or '.join(known)}; choose a checkpoint whose positions are not scaled"
            )


def read_teacher_channels(config: Mapping[str, Any], path: Path) -> int | None:
    """Return the teacher's channels of a checkpoint of ours, None for one that is not ours.

    Raises:
        CheckpointError: the section is of another format version.
    """
    own = config.get("threedrs")
    if own is None:
        return None
    version = own.get("format_version") if isinstance(own, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: threedrs.format_version is {version}, this version reads {FORMAT_VERSION}"
        )
    channels = own.get("teacher_channels")
    if type(channels) is not int or not 0 <= channels <= MOST:
        raise CheckpointError(
            f"{path}: threedrs.teacher_channels is {channels!r:.40}, which is not a size"
        )
    return channels


def own_section(
    vision: Any, fields: tuple[str, ...], teacher_channels: int, **more: Any
) -> dict[str, Any]:
    """Return the section ``threedrs`` of a student's config.json."""
    return {
        "format_version": FORMAT_VERSION,
        "version": threedrs.__version__,
        "teacher_channels": teacher_channels,
        "vision_config": {name: getattr(vision, name) for name in fields},
        **more,
    }
