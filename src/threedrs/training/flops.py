"""Floating-point operations of a training step, for the utilisation of the GPU.

Only products that the model needs count, forward and backward (three times the forward pass,
6 operations a weight and token); recomputation of activations does not. Shared prefixes count once.
"""

from typing import Any

import torch

from threedrs.models.llava import Student
from threedrs.models.samples import COARSE, FINE, Pack

# Dense bfloat16 peak, operations a second, from the makers' data sheets; first match counts.
PEAK_OF_DEVICE = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
)


def device_peak(device: torch.device) -> float | None:
    """Return the device's dense bfloat16 peak in operations a second, None if not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_OF_DEVICE if part in name), None)


def _language_model(config: Any, pack: Pack, predictions: int) -> float:
    width = config.hidden_size
    head_width = getattr(config, "head_dim", None) or width // config.num_attention_heads
    attention_width = config.num_attention_heads * head_width
    projections = 2 * width * (attention_width + config.num_key_value_heads * head_width)
    weights = projections + 3 * width * config.intermediate_size
    own = [len(sample.input_ids) for sample in pack.samples]
    prefix = pack.tokens - sum(own)
    pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in own)
    layers = config.num_hidden_layers * (6 * weights * pack.tokens + 12 * attention_width * pairs)
    return layers + 6 * width * config.vocab_size * predictions


def _vision_tower(config: Any, frames: int) -> float:
    width, patches = config.hidden_size, frames * FINE**2
    layers = config.num_hidden_layers - 1  # the last layer is not run
    weights = 4 * width**2 + 2 * width * config.intermediate_size
    embedding = 6 * 3 * config.patch_size**2 * width * patches
    return embedding + layers * (6 * weights + 12 * width * FINE**2) * patches


def pack_flops(student: Student, pack: Pack, predictions: int) -> float:
    """Return the operations of a forward and backward pass over ``pack``, every part trained.

    Args:
        student: the model, for its two configurations and the teacher's channels.
        pack: of K samples.
        predictions: places at which the vocabulary head runs.
    """
    frames, width = len(pack.scene.rgb_VHWC), student.channels
    projector = (student.vision_config.hidden_size + width) * width * frames * FINE**2
    head = (2 * width**2 + 2 * width * student.teacher_channels) * frames * COARSE**2
    return (
        _language_model(student.text_config, pack, predictions)
        + _vision_tower(student.vision_config, frames)
        + 6 * (projector + (head if student.teacher_channels else 0))
    )
