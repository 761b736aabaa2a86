"""Exact attention by the fastest kernel that the machine has.

On Hopper GPUs FlashAttention-3 where it can be imported (from its own package or from the
forward-only build ``fa3-fwd``), else torch's fused kernels, cuDNN's first. For the 33,312 tokens of
a scene of 32 frames, one layer on an H100: FlashAttention-3 8.4 ms, cuDNN 10.6 ms, FlashAttention-2
14.1 ms. On a CPU torch's own kernel.

N sequences, T tokens, M heads, E channels of a head.
"""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from threedrs.models.attention.kernels import fast_kernels

FLASH_3_MODULES = ("flash_attn_interface", "fa3_fwd_interface")
HOPPER = 9  # major compute capability


@cache
def flash_attention_3() -> Callable[..., Any] | None:
    """Return FlashAttention-3's function; None if it is not installed or the GPU is not a Hopper.

    A build that does not fit the installed torch fails on import and counts as not installed.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != HOPPER:
        return None
    for name in FLASH_3_MODULES:
        try:
            return importlib.import_module(name).flash_attn_func
        except (ImportError, OSError, AttributeError, RuntimeError):
            continue
    return None


def kernel_name() -> str:
    """Return in words what :func:`attend` uses on this machine, for the log."""
    if not torch.cuda.is_available():
        return "torch's attention"
    return "FlashAttention-3" if flash_attention_3() is not None else "torch's attention (cuDNN)"


def attend(q_NTME: Tensor, k_NTME: Tensor, v_NTME: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(E)) v for each head, (N, T, M, E)."""
    # FlashAttention-3 takes half precision only; a CPU run in float32 must not meet it.
    flash = flash_attention_3() if v_NTME.dtype == torch.bfloat16 and v_NTME.is_cuda else None
    if flash is not None:
        out = flash(q_NTME, k_NTME, v_NTME)
        return out[0] if isinstance(out, tuple) else out
    q, k, v = (x.transpose(1, 2) for x in (q_NTME, k_NTME, v_NTME))
    if not v.is_cuda:
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    with fast_kernels():
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
