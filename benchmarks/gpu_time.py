"""Where a GPU's time goes: its kernels by kind, the time without any, what communication hides."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# First match counts; names of cuBLAS, CUTLASS, cuDNN, FlashAttention and NCCL kernels.
KINDS = (
    ("communication", re.compile("nccl", re.IGNORECASE)),
    ("attention", re.compile("flash|fmha|sdpa|attention|cudnn_generated_fort", re.IGNORECASE)),
    ("matrix products", re.compile("gemm|nvjet|cutlass|cublas|xmma|splitK", re.IGNORECASE)),
    ("optimizer", re.compile("adam|multi_tensor", re.IGNORECASE)),
)
REST = "everything else"


@dataclass(frozen=True)
class Kernel:
    """One kernel or copy on the GPU: its name, begin and end in microseconds."""

    name: str
    begin: float
    end: float

    @property
    def kind(self) -> str:
        """The kind that its name says."""
        return next((kind for kind, pattern in KINDS if pattern.search(self.name)), REST)


def covered(kernels: Iterable[Kernel]) -> float:
    """Return the microseconds in which at least one of ``kernels`` runs."""
    total, reached = 0.0, float("-inf")
    for kernel in sorted(kernels, key=lambda one: one.begin):
        total += max(0.0, kernel.end - max(kernel.begin, reached))
        reached = max(reached, kernel.end)
    return total


def kernels_of(work: Callable[[], Any]) -> list[Kernel]:
    """Run ``work`` under torch's profiler; return what the GPU did for it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return [
        Kernel(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]


def time_shares(kernels: Sequence[Kernel]) -> dict[str, float]:
    """Return each kind's share of the span from the first kernel to the last.

    Kinds may overlap on several streams. ``idle``: nothing runs; ``communication alone``: only
    NCCL's kernels run, so the rest waits for them. ``seconds`` is the span itself.
    """
    span = max(kernel.end for kernel in kernels) - min(kernel.begin for kernel in kernels)
    kinds = [*(kind for kind, _ in KINDS), REST]
    of_kind = {kind: [one for one in kernels if one.kind == kind] for kind in kinds}
    busy = covered(kernels)
    computing = covered(one for one in kernels if one.kind != "communication")
    shares = {kind: covered(found) / span for kind, found in of_kind.items()}
    shares |= {"communication alone": (busy - computing) / span, "idle": 1 - busy / span}
    return {kind: round(share, 4) for kind, share in shares.items()} | {
        "seconds": round(span / 1e6, 4)
    }
