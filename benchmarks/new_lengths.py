"""What a new length costs the attention of a training step, kernel by kernel (GPU).

cuDNN plans its kernels anew for each shape that it has not met. Each line runs one layer's forward
and backward pass at sizes of the 7B student, first with lengths that are new each time, then with
one that is known: milliseconds a pass (host and GPU), and what the process grew by a new length.

    python benchmarks/new_lengths.py [--lengths 20]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

HEADS, HEAD_SIZE, PREFIX = 28, 128, 6744
KERNELS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "FlashAttention-2": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def passes(kernel: SDPBackend, *, masked: bool) -> Callable[[int], None]:
    """Return one layer's pass over the prefix and own tokens: all rows, or the masked own ones."""

    def run(own: int) -> None:
        tokens = PREFIX + own
        shape = (1, HEADS, tokens, HEAD_SIZE)
        query, key, value = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        with sdpa_kernel(kernel):
            if masked:
                mask = torch.ones(own, tokens, dtype=torch.bool, device="cuda").tril(PREFIX)
                rows = query[:, :, PREFIX:]
                result = scaled_dot_product_attention(rows, key, value, attn_mask=mask)
            else:
                result = scaled_dot_product_attention(query, key, value, is_causal=True)
        result.sum().backward()
        torch.cuda.synchronize()

    return run


def timed(run: Callable[[int], None], lengths: list[int]) -> float:
    """Return the median milliseconds of a pass over ``lengths``."""
    seconds = []
    for length in lengths:
        started = time.perf_counter()
        run(length)
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, default=20, help="new lengths of each line")
    count = parser.parse_args().lengths
    process = psutil.Process()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("| rows | kernel | new length, ms | known, ms | MB of host memory a new length |")
    print("|---|---|---|---|---|")
    for masked, rows, first in (
        (False, "one sample, causal", 64),
        (True, "suffixes of a pack, masked", 512),
    ):
        for name, kernel in KERNELS.items():
            if masked and kernel == SDPBackend.FLASH_ATTENTION:
                continue  # takes no mask
            run = passes(kernel, masked=masked)
            timed(run, [first] * 3)
            before = process.memory_info().rss
            new = timed(run, list(range(first + 1, first + 1 + count)))
            grown = (process.memory_info().rss - before) / count / 1e6
            known = timed(run, [first] * count)
            print(f"| {rows} | {name} | {new:.1f} | {known:.1f} | {grown:.1f} |", flush=True)


if __name__ == "__main__":
    main()
