"""One layer's attention within the frames of each vision tower, kernel by kernel (GPU).

32 frames at the sizes of the published towers in bfloat16, laid out as their layers hand them over
(heads behind patches). Milliseconds, the mean of 20 passes after three of warm-up. "torch's own
choice" is what the towers train with.

    python benchmarks/frame_attention.py
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

FRAMES = 32
TOWERS = {"SigLIP so400m": (729, 16, 72), "Qwen2-VL": (784, 16, 80)}  # patches, heads, channels
KERNELS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "cuDNN": lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
    "FlashAttention-2": lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    "efficient": lambda: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
    "**torch's own choice**": contextlib.nullcontext,
}


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Return the mean time of ``work``."""
    for number in range(repeats + 3):
        if number == 3:
            torch.cuda.synchronize()
            began = time.perf_counter()
        work()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / repeats


def main() -> None:
    """Print a Markdown table."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("| tower | kernel | forward, ms | forward and backward, ms |\n|---|---|---|---|")
    for tower, (patches, heads, channels) in TOWERS.items():
        query, key, value, gradient = (
            torch.randn(
                FRAMES, patches, heads, channels, device="cuda", dtype=torch.bfloat16
            ).transpose(1, 2)
            for _ in range(4)
        )
        inputs = [tensor.requires_grad_() for tensor in (query, key, value)]

        def forward(inputs: list[torch.Tensor] = inputs) -> torch.Tensor:
            return scaled_dot_product_attention(*inputs)

        def both(
            inputs: list[torch.Tensor] = inputs, gradient: torch.Tensor = gradient
        ) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(scaled_dot_product_attention(*inputs), inputs, gradient)

        for name, kernel in KERNELS.items():
            with kernel():
                with torch.no_grad():
                    alone = milliseconds(forward)
                print(f"| {tower} | {name} | {alone:.3f} | {milliseconds(both):.3f} |", flush=True)


if __name__ == "__main__":
    main()
