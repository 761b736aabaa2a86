"""The attention kernels of this machine: torch's in order of speed, and those of two packages.

All are exact. The student's language model and the teacher's transformer take theirs from here.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from threedrs.errors import MachineError

# Measured on Hopper. Each computes exactly the same attention, and the last runs anywhere.
FASTEST_FIRST: list[SDPBackend] = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
# FlashAttention-3's own package, and the forward-only build ``fa3-fwd``.
FLASH_3_MODULES = ("flash_attn_interface", "fa3_fwd_interface")
HOPPER = 9  # major compute capability


def fast_kernels() -> AbstractContextManager[None]:
    """Prefer cuDNN's attention, the fastest on Hopper; other kernels serve where it cannot."""
    return sdpa_kernel(FASTEST_FIRST, set_priority=True)


@cache
def flash_attention() -> Callable[..., Any]:
    """Return flash-attn's function of queries, keys and values, each (B,T,heads,d).

    Raises:
        MachineError: it is not installed.
    """
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise MachineError(
            "model.attention: flash needs the package flash-attn (README.md: GPU machines); "
            "choose auto or sdpa without it"
        ) from error
    return flash_attn_func


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
