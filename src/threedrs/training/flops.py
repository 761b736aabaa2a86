"""Floating-point operations of a training step, for the utilisation of the GPU.

Only products that the model needs count, forward and backward (three times the forward pass,
6 operations a weight and token); recomputation of activations does not. Shared prefixes count once.
"""

from collections.abc import Sequence
from typing import Any

import torch

from threedrs.models.samples import Pack
from threedrs.models.student import Student

# Dense bfloat16 peak, operations a second, from the makers' data sheets; first match counts.
PEAK_OF_DEVICE = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("A100", 312e12),
)


def device_peak(device: torch.device) -> float | None:
    """Return the device's dense bfloat16 peak in operations a second, None if not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_OF_DEVICE if part in name), None)


def _language_model(config: Any, prefix: int, own: Sequence[int], predictions: int) -> float:
    width = config.hidden_size
    head_width = getattr(config, "head_dim", None) or width // config.num_attention_heads
    attention_width = config.num_attention_heads * head_width
    projections = 2 * width * (attention_width + config.num_key_value_heads * head_width)
    weights = projections + 3 * width * config.intermediate_size
    pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in own)
    tokens = prefix + sum(own)
    layers = config.num_hidden_layers * (6 * weights * tokens + 12 * attention_width * pairs)
    return layers + 6 * width * config.vocab_size * predictions


def sequence_flops(
    student: Student, *, frames: int, prefix: int, own: Sequence[int], predictions: int
) -> dict[str, float]:
    """Return the operations of a forward and backward pass over a pack, every part trained.

    Args:
        student: the model, for its sizes; its parameters are not read.
        frames: V.
        prefix: shared tokens, the visual ones included.
        own: the own tokens of each sample.
        predictions: places at which the vocabulary head runs.
    """
    family, width = student.family, student.channels
    head = (2 * width**2 + 2 * width * student.teacher_channels) * frames * family.grid.coarse**2
    return {
        "vision": 3 * frames * family.vision_operations(),
        "language": _language_model(student.text_config, prefix, own, predictions),
        "heads": 6.0 * head if student.teacher_channels else 0.0,
    }


def pack_flops(student: Student, pack: Pack, predictions: int) -> float:
    """Return the operations of a forward and backward pass over ``pack``, every part trained.

    Args:
        student: the model, for its sizes.
        pack: of K samples.
        predictions: places at which the vocabulary head runs.
    """
    own = [len(sample.input_ids) for sample in pack.samples]
    parts = sequence_flops(
        student,
        frames=len(pack.scene.rgb_VHWC),
        prefix=pack.tokens - sum(own),
        own=own,
        predictions=predictions,
    )
    return sum(parts.values())
