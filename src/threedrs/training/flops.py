"""Floating-point operations of a training step, for the utilisation of the GPU.

Only matrix products that the model needs count. A forward pass has 2 operations a weight and token.
The backward pass has 2 more for the gradient of a product's input, if something in front of it is
trained, and 2 more for the gradient of its weights, if these are trained. Recomputation of
activations does not count. Shared prefixes count once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from threedrs.config.schema import TUNABLE
from threedrs.models.lora.layers import adapter_weights
from threedrs.models.packing import Pack
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


@dataclass(frozen=True)
class Operations:
    """The operations of the forward and the backward pass through a part of the model."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Operations of both passes."""
        return self.forward + self.backward

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(self.forward + other.forward, self.backward + other.backward)


def _product(forward: float, *, inputs: bool, weights: bool) -> Operations:
    """Return the operations of products whose inputs and weights need gradients, or not."""
    return Operations(forward, forward * (inputs + weights))


def _two_layers(first: float, last: float, *, inputs: bool, weights: bool) -> Operations:
    """Return the operations of two layers in a row, both trained or both not."""
    return _product(first, inputs=inputs, weights=weights) + _product(
        last, inputs=inputs or weights, weights=weights
    )


def attention_widths(text: Any) -> tuple[int, int]:
    """Return the width of all queries and that of all keys of a layer of the language model."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head, text.num_key_value_heads * head


class OperationCount:
    """Counts the operations of passes over one student from its sizes alone."""

    def __init__(self, student: Student, tunable: Sequence[str]) -> None:
        """Take the sizes of ``student``, of which the parts ``train.tunable`` are trained."""
        self._family = student.family
        self._text = student.text_config
        self._teacher_channels = student.teacher_channels
        self._adapters = adapter_weights(student)
        self._trained = {name: name in tunable for name in TUNABLE}

    def parts(
        self, *, frames: int, prefix: int, own: Sequence[int], predictions: int
    ) -> dict[str, Operations]:
        """Return the operations of a pack of V ``frames`` by part of the model.

        ``prefix`` counts the shared tokens, the visual ones included, and ``own`` those of each
        sample. At ``predictions`` of them the vocabulary head runs.
        """
        tower, *projector = (frames * each for each in self._family.vision_operations())
        width, tokens = self._text.hidden_size, frames * self._family.grid.coarse**2
        head = (4 * width**2 * tokens, 4 * width * self._teacher_channels * tokens)
        trained = self._trained
        seen = trained["vision_tower"]
        hidden = seen or trained["projector"] or trained["language_model"]
        return {
            # Its attention has no weights, but two inputs that need gradients: the same factor.
            "vision_tower": _product(tower, inputs=seen, weights=seen),
            "projector": _two_layers(*projector, inputs=seen, weights=trained["projector"]),
            "language_model": self._language_model(prefix, own, predictions, reached=hidden),
            "heads": _two_layers(*head, inputs=hidden, weights=trained["heads"])
            if self._teacher_channels
            else Operations(),
        }

    def _language_model(
        self, prefix: int, own: Sequence[int], predictions: int, *, reached: bool
    ) -> Operations:
        config, tokens = self._text, prefix + sum(own)
        width = config.hidden_size
        attention_width, key_width = attention_widths(config)
        projections = 2 * width * (attention_width + key_width)
        weights = projections + 3 * width * config.intermediate_size
        # A token sees itself and those before it, and a sample's own tokens the whole prefix too.
        pairs = prefix * (prefix + 1) / 2 + sum(n * prefix + n * (n + 1) / 2 for n in own)
        products = 2 * config.num_hidden_layers * weights * tokens
        products += 2 * width * config.vocab_size * predictions
        attention = 4 * config.num_hidden_layers * attention_width * pairs
        trained = self._trained["language_model"]
        return (
            _product(products, inputs=reached, weights=trained and not self._adapters)
            # No weights here, but two inputs: the second one's gradient stands where weights do.
            + _product(attention, inputs=reached, weights=reached)
            + _product(2 * self._adapters * tokens, inputs=reached, weights=trained)
        )

    def of(self, pack: Pack, predictions: int) -> float:
        """Return the operations of a forward and backward pass over ``pack``.

        ``predictions`` is the number of tokens at which the vocabulary head runs.
        """
        own = [len(sample.input_ids) for sample in pack.samples]
        parts = self.parts(
            frames=len(pack.scene.rgb_VHWC),
            prefix=pack.tokens - sum(own),
            own=own,
            predictions=predictions,
        )
        return sum(part.total for part in parts.values())
