"""The interface of a backbone family: what differs between backbones, and nothing else.

The `Student` holds the parameters and does everything that is the same for all backbones. A family
builds the three pretrained parts and says how images become tokens, where tokens stand for the
rotary embedding, and how its checkpoints describe themselves. It is one class in a file of its own
and one row in the file `known_backbones`; docs/ADD_A_BACKBONE.md shows how to add one.

Neither torch nor transformers is imported here or at the head of a family's file: the configuration
is held against the families at each start of Snakemake, and loading both would take four seconds.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from threedrs.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class VisualGrid:
    """The visual tokens of a frame: ``fine`` a side as projected, ``coarse`` as the model reads.

    With ``newline`` each row of the coarse grid ends with a newline token.
    """

    fine: int
    coarse: int
    newline: bool

    @property
    def frame_tokens(self) -> int:
        """The tokens of a frame in the sequence, newline tokens included."""
        return self.coarse * (self.coarse + self.newline)


VISION_MARKS = ("<|vision_start|>", "<|vision_end|>")  # around the visual tokens, in Qwen2-VL
LLAVA_GRID = VisualGrid(fine=27, coarse=14, newline=True)  # also that of the scene stores


@dataclass(frozen=True, kw_only=True)
class HubCheckpoint:
    """Where the pretrained weights of a backbone are, their size in GB and their licence."""

    repository: str
    gigabytes: int
    licence: str


# What all families share: prefix in a published checkpoint, prefix in `Student`.
SHARED_NAMES = (
    ("model.proj_3d.", "proj_3d."),
    ("ground_head_obj.", "grounding_head.obj."),
    ("ground_head_query.", "grounding_head.query."),
    ("ground_head_zero_target", "grounding_head.zero_target"),
    ("model.embed_tokens.", "language_model.model.embed_tokens."),
    ("model.layers.", "language_model.model.layers."),
    ("model.norm.", "language_model.model.norm."),
    ("lm_head.", "language_model.lm_head."),
)
# Published 3DRS checkpoints hold heads that no loss uses, and older ones the rotary frequencies.
UNUSED_NAMES = re.compile(
    r"model\.(corres_linear|linear_dc|geometric_linear)\..+|.+\.rotary_(pos_)?emb\.inv_freq"
)


@dataclass(frozen=True, kw_only=True)
class TensorNames:
    """The tensor names of a family's published checkpoints."""

    # Prefixes, theirs with ours, beside `SHARED_NAMES`; the first that fits counts.
    pairs: tuple[tuple[str, str], ...]
    # The same of folders that transformers saves, which are read and never written.
    others: tuple[tuple[str, str], ...] = ()
    # Matches tensors that no loss and no output uses, beside `UNUSED_NAMES`.
    ignored: re.Pattern[str] | None = None
    # Matches the tensors of a vision layer, with its ``number``, where the last is not run.
    vision_layer: re.Pattern[str] | None = None

    def own_name(self, published: str) -> str | None:
        """Return the name in `Student` of a published tensor name, None if it is not known."""
        for theirs, ours in (*self.pairs, *SHARED_NAMES, *self.others):
            if published.startswith(theirs):
                return ours + published.removeprefix(theirs)
        return None

    def published_name(self, own: str) -> str:
        """Return the published name of one of `Student`'s tensors.

        Raises:
            ConfigError: no pair has it.
        """
        for theirs, ours in (*self.pairs, *SHARED_NAMES):
            if own.startswith(ours):
                return theirs + own.removeprefix(ours)
        raise ConfigError(
            f"{own}: no pair of the backbone's tensor_names says how a checkpoint calls it; "
            "docs/ADD_A_BACKBONE.md says which it needs"
        )

    def is_ignored(self, published: str, run_layers: int) -> bool:
        """Return whether a tensor is known and not used, such as those of a layer that is not run.

        ``run_layers`` is the number of layers of the vision tower that run.
        """
        if any(names and names.fullmatch(published) for names in (UNUSED_NAMES, self.ignored)):
            return True
        layer = self.vision_layer and self.vision_layer.fullmatch(published)
        return layer is not None and int(layer["number"]) == run_layers


# The sizes that every family can be built in. ``tiny`` (under a million parameters) is for tests,
# ``mini`` (8 million) is that of the demo's student, ``small`` (40 million) learns on one GPU in
# minutes. All three have real image and token grids, small widths, and need no download.
LAYERS = {"tiny": 3, "mini": 5, "small": 5, "7b": 28}  # of the language model
SIZES = tuple(LAYERS)
# Initial range 1 / sqrt(width): 0.02 would drown the words in 1,680 visual tokens.
TEXT = {
    # Width, MLP width, heads, heads of keys and values, and initial range of the language model.
    "tiny": (96, 256, 4, 2, 0.1),
    # Just so wide that its weights in 16 bits are 15 MB, which a repository can hold.
    "mini": (256, 768, 8, 4, 0.0625),
    "small": (640, 1792, 10, 5, 0.04),
}
# The 7B language model of all published backbones.
TEXT_7B: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": LAYERS["7b"],
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
}
# Width, MLP width, layers that run, and heads of the vision tower.
VISION = {"tiny": (48, 96, 2, 4), "mini": (192, 576, 5, 6), "small": (448, 1344, 5, 7)}
ROTARY = {"rope_type": "default", "rope_theta": 1_000_000.0}


def new_text_fields(size: str, tokens: int) -> dict[str, Any]:
    """Return the fields of the language model of ``model.size``; see `Family.new`."""
    if size == "7b":
        return {"tie_word_embeddings": False, **TEXT_7B}
    width, mlp_width, heads, key_value_heads, initial_range = TEXT[size]
    return {
        "tie_word_embeddings": False,
        "hidden_size": width,
        "intermediate_size": mlp_width,
        "num_hidden_layers": LAYERS[size],
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "initializer_range": initial_range,
        "vocab_size": tokens,
        "rope_parameters": {**ROTARY},
    }


def _deciding_fields(config: Any) -> dict[str, Any]:
    """Return the fields of a configuration of transformers, each under its one name of today."""
    fields: dict[str, Any] = config.to_dict()
    rope = fields.get("rope_parameters")
    if isinstance(rope, Mapping):  # ``type`` is an old name of ``rope_type``, kept where it is read
        fields["rope_parameters"] = {key: rope[key] for key in rope if key != "type"}
    return fields


class Family(ABC):
    """A backbone family with the sizes of one model."""

    # The names of ``model.name`` that mean this family, with the published weights of each.
    checkpoints: ClassVar[Mapping[str, HubCheckpoint]]
    model_type: ClassVar[str]  # what config.json of its checkpoints says under this key
    grids: ClassVar[tuple[int, ...]] = (14,)  # choices of ``model.grid``, the default first
    # Tokens around the visual tokens that its tokenizer has and that of Qwen2 has not.
    vision_marks: ClassVar[tuple[str, ...]] = ()
    tensor_names: ClassVar[TensorNames]  # of its published checkpoints

    def __init__(self, text_config: Any, vision_config: Any, grid: VisualGrid) -> None:
        self.text_config = text_config  # its vocabulary covers ``<ground>`` and ``<coord>``
        self.vision_config = vision_config  # of the whole vision tower, as published
        self.grid = grid

    @classmethod
    def describes(cls, config: Mapping[str, Any]) -> bool:
        """Return whether a config.json is one of this family's checkpoints."""
        return config.get("model_type") == cls.model_type

    @classmethod
    @abstractmethod
    def visual_grid(cls, side: int) -> VisualGrid:
        """Return the visual tokens of a frame for one of `grids`."""

    @classmethod
    @abstractmethod
    def new(cls, size: str, tokens: int, grid: int) -> Family:
        """Return the family in ``model.size``.

        ``tokens`` is the vocabulary of the tiny tokenizer, ``<ground>`` and ``<coord>`` included;
        size 7b has its own. ``grid`` is one of `grids`.
        """

    @classmethod
    @abstractmethod
    def read(cls, config: Mapping[str, Any], path: Path, tokens: int, grid: int) -> Family:
        """Return the family that the config.json of a checkpoint describes, perhaps a stranger's.

        ``tokens`` is the size of the vocabulary, ``grid`` one of `grids`, ``path`` for messages.

        Raises:
            CheckpointError: a field is missing or absurd, or means other numbers.
        """

    @abstractmethod
    def config_json(self, teacher_channels: int, dtype: str) -> dict[str, Any]:
        """Return the config.json of a student: the published fields, and `own_section`."""

    def check_config_json(self, teacher_channels: int) -> None:
        """Check that `read` makes the same model of what `config_json` writes.

        Raises:
            ConfigError: a field of the language model or the vision tower is lost or changed.
        """
        side = next(side for side in self.grids if self.visual_grid(side) == self.grid)
        written = self.config_json(teacher_channels, "float32")
        again = self.read(written, Path("config.json"), self.text_config.vocab_size, side)
        for part in ("text_config", "vision_config"):
            fields, found = (_deciding_fields(getattr(one, part)) for one in (self, again))
            if lost := [name for name in fields if fields[name] != found.get(name)]:
                raise ConfigError(
                    f"model.name {' or '.join(self.checkpoints)}: what config_json writes is read "
                    f"again with another {', '.join(lost)} of the {part}, so a trained model would "
                    "compute other numbers; see docs/ADD_A_BACKBONE.md"
                )

    @property
    @abstractmethod
    def run_layers(self) -> int:
        """The layers of the vision tower that run."""

    @abstractmethod
    def language_model(self) -> PreTrainedModel:
        """Build the language model: ``model`` (decoder) and ``lm_head``."""

    @abstractmethod
    def vision_tower(self) -> PreTrainedModel:
        """Build the vision tower, without what is not run."""

    @abstractmethod
    def projector(self) -> nn.Module:
        """Build what takes the tower's features to the language model's width."""

    @abstractmethod
    def fine_tokens(self, tower: nn.Module, projector: nn.Module, rgb_VHWC: Tensor) -> Tensor:
        """Return the projected tokens (V,F,F,D) of frames (V,384,384,3) uint8."""

    @abstractmethod
    def coarse_tokens(self, fine_VFFD: Tensor) -> Tensor:
        """Return the tokens (V,G,G,D) that the language model reads."""

    def position_ids(self, index: Tensor, before: int, frames: int) -> Tensor:
        """Return what the rotary embedding counts for tokens at ``index`` (B,T) of a sample.

        ``before`` is the number of tokens in front of the visual ones, ``frames`` is V.
        """
        return index

    @abstractmethod
    def vision_sizes(self) -> tuple[int, int, int]:
        """Return the tower's patches a frame, width, and MLP width."""

    @abstractmethod
    def vision_operations(self) -> tuple[float, float, float]:
        """Return the forward operations of one frame: tower, projector's first and last layer."""
