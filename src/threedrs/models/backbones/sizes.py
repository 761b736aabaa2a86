"""The sizes that every family can be built in: tiny, small and 7b.

``tiny`` (under a million parameters) is for the demo and tests, ``small`` (40 million) learns on
one GPU in minutes. Both have real image and token grids, small widths, and need no download.
"""

from typing import Any

LAYERS = {"tiny": 3, "small": 5, "7b": 28}  # of the language model
SIZES = tuple(LAYERS)
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
VISION = {"tiny": (48, 96, 2, 4), "small": (448, 1344, 5, 7)}
ROTARY = {"rope_type": "default", "rope_theta": 1_000_000.0}
