"""Students to train from scratch: real image and token grids, small widths, no download.

``tiny`` (under a million parameters) is for the demo and tests, ``small`` (40 million) learns on
one GPU in minutes.

Its tokenizer is a byte-level BPE in Qwen2's format, trained from a committed text in milliseconds;
the bytes come first, in Qwen2's order, so that the newline has the id 198 there as well.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen2VLTextConfig,
    SiglipVisionConfig,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

from threedrs.models.prompt import VISION_END, VISION_START
from threedrs.models.settings import LAYERS

CORPUS = Path(__file__).with_name("tiny_corpus.txt")
MERGES = 800
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Initial range 1 / sqrt(width): 0.02 would drown the words in 1,680 visual tokens.
TEXT: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": LAYERS["tiny"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
    },
    "small": {
        "hidden_size": 640,
        "intermediate_size": 1792,
        "num_hidden_layers": LAYERS["small"],
        "num_attention_heads": 10,
        "num_key_value_heads": 5,
        "initializer_range": 0.04,
    },
}
# Width, MLP width, layers and heads of the vision tower. SigLIP runs all layers but its last.
VISION = {"tiny": (48, 96, 2, 4), "small": (448, 1344, 5, 7)}
ROTARY_SECTIONS = {"tiny": [4, 4, 4], "small": [8, 12, 12]}  # of Qwen2-VL: time, height, width


def byte_alphabet() -> list[str]:
    """Return the 256 printable stand-ins of the bytes, in GPT-2's and Qwen2's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(shifted)]


@cache
def _merges() -> tuple[tuple[str, str], ...]:
    """Learn the merges from the corpus; the same on every machine."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=256 + MERGES,
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    learner.train([str(CORPUS)], trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return tuple((left, right) for left, right in merges)


def tiny_tokenizer(*, vision: bool = False) -> PreTrainedTokenizerBase:
    """Return the tiny tokenizer: bytes, merges, then Qwen2's three special tokens.

    With ``vision`` also the two tokens around pictures that Qwen2-VL's has.
    """
    merges = list(_merges())
    tokens = byte_alphabet() + ["".join(pair) for pair in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    special = [*SPECIAL_TOKENS[1:], *([VISION_START, VISION_END] if vision else [])]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def scratch_text_config(size: str, vocabulary: int) -> Qwen2Config:
    """Return a Qwen2 of ``size``: tiny or small."""
    return Qwen2Config(
        **TEXT[size],
        vocab_size=vocabulary,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )


def scratch_qwen2_vl_text_config(size: str, vocabulary: int) -> Qwen2VLTextConfig:
    """Return the text part of a Qwen2-VL of ``size``: multimodal rotary embedding."""
    rope = {"rope_type": "default", "rope_theta": 1_000_000.0}
    rope["mrope_section"] = ROTARY_SECTIONS[size]
    fields: dict[str, Any] = {"tie_word_embeddings": False, **TEXT[size]}
    return Qwen2VLTextConfig(
        **fields,
        vocab_size=vocabulary,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
    )


def scratch_qwen2_vl_vision_config(size: str) -> Qwen2VLVisionConfig:
    """Return the vision part of a Qwen2-VL of ``size``."""
    width, inner, layers, heads = VISION[size]
    return Qwen2VLVisionConfig(
        depth=layers,
        embed_dim=width,
        hidden_size=TEXT[size]["hidden_size"],
        mlp_ratio=inner // width,
        num_heads=heads,
    )


def scratch_vision_config(size: str) -> SiglipVisionConfig:
    """Return a SigLIP of ``size`` on the real 27x27 grid."""
    width, inner, layers, heads = VISION[size]
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers + 1,
        num_attention_heads=heads,
        image_size=384,
        patch_size=14,
    )


def shrink_branches(language_model: Any) -> None:
    """Divide the weights that end the 2 L branches of L layers by sqrt(2 L), as GPT-2 does.

    The hidden states then stay of the size of the tokens that they began as (Radford et al. 2019,
    section 2.3). Without it a student from scratch learns to look at its room much later.
    """
    layers = language_model.model.layers
    with torch.no_grad():
        for layer in layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.div_((2 * len(layers)) ** 0.5)
