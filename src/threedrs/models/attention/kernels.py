"""The attention kernels of this machine: torch's in order of speed, and those of flash-attn.

All are exact. The student's language model and the teacher's transformer take torch's from here.
"""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from threedrs.errors import MachineError

# Measured on Hopper. Each computes exactly the same attention, and the last runs anywhere.
FASTEST_FIRST: list[SDPBackend] = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def fast_kernels() -> AbstractContextManager[None]:
    """Prefer cuDNN's attention, the fastest on Hopper; other kernels serve where it cannot."""
    return sdpa_kernel(FASTEST_FIRST, set_priority=True)


class FlashAttnKernels:
    """The kernels of flash-attn (2.7 or later), which also return their log-sum-exp."""

    def __init__(self, interface: Any) -> None:
        self.interface = interface

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the result (B,N,Q,d) and the log-sum-exp (B,N,Q) float32."""
        result, total, *_ = self.interface._flash_attn_forward(
            *map(_swapped, (query, key, value)),
            **_options(scale, causal),
            return_softmax=False,
        )
        return result.transpose(1, 2), total[..., : query.shape[2]]

    def backward(
        self,
        gradient: Tensor,
        inputs: tuple[Tensor, Tensor, Tensor],
        result: Tensor,
        total: Tensor,
        scale: float,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value, given those of the result."""
        # The package writes into tensors that it is given, in its own order of tokens and heads.
        swapped = [_swapped(tensor) for tensor in inputs]
        gradients = [torch.empty_like(tensor) for tensor in swapped]
        self.interface._flash_attn_backward(
            _swapped(gradient),
            *swapped,
            _swapped(result),
            total.contiguous(),
            *gradients,
            **_options(scale, causal),
            deterministic=False,
        )
        of_query, of_key, of_value = (tensor.transpose(1, 2) for tensor in gradients)
        return of_query, of_key, of_value


def _swapped(tensor: Tensor) -> Tensor:
    """Return the tensor with tokens before heads."""
    return tensor.transpose(1, 2).contiguous()


def _options(scale: float, causal: bool) -> dict[str, Any]:
    return {
        "dropout_p": 0.0,
        "softmax_scale": scale,
        "causal": causal,
        "window_size_left": -1,
        "window_size_right": 0 if causal else -1,
        "softcap": 0.0,
        "alibi_slopes": None,
    }


@cache
def flash_kernels() -> FlashAttnKernels:
    """Return flash-attn's kernels.

    Raises:
        MachineError: it is not installed.
    """
    try:
        from flash_attn import flash_attn_interface
    except ImportError as error:
        raise MachineError(
            "model.attention: flash needs the package flash-attn (README.md: GPU machines); "
            "choose auto or sdpa without it"
        ) from error
    return FlashAttnKernels(flash_attn_interface)
