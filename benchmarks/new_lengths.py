"""What a new length costs the attention of a training step, kernel by kernel (GPU).

cuDNN plans its kernels anew for each shape that it has not met. Each line runs one layer's forward
and backward pass at sizes of the 7B student, first with lengths that are new each time, then with
one that is known: milliseconds a pass (host and GPU), and what the process grew by a new length.
The last line is the attention of a pack of eight as training runs it, whose own tokens vary.

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

from threedrs.models.attention.packed import pack_mask
from threedrs.models.packing import Layout

HEADS, KEY_HEADS, HEAD_SIZE, PREFIX = 28, 4, 128, 6744
PACK = 8
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


def packed(own: int) -> None:
    """Run one layer's pass over a pack with ``own`` tokens after the prefix, as it is trained."""
    lengths = (own - (PACK - 1) * 64, *[64] * (PACK - 1))
    query, key, value = (
        torch.randn(
            (1, PREFIX + own, heads, HEAD_SIZE),
            device="cuda",
            dtype=torch.bfloat16,
            requires_grad=True,
        )
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    mask = pack_mask(Layout(prefix_length=PREFIX, lengths=lengths), "sdpa", query[0, :, 0])
    assert mask is not None
    tokens_second = (tensor.transpose(1, 2) for tensor in (query, key, value))
    mask.attend(*tokens_second, HEAD_SIZE**-0.5).sum().backward()
    torch.cuda.synchronize()


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
    runs = [
        (rows, name, first, passes(kernel, masked=masked))
        for masked, rows, first in (
            (False, "one sample, causal", 64),
            (True, "suffixes of a pack, masked", 512),
        )
        for name, kernel in KERNELS.items()
        if not (masked and kernel == SDPBackend.FLASH_ATTENTION)  # which takes no mask
    ]
    for rows, name, first, run in [*runs, ("a pack, as it is trained", "cuDNN", 513, packed)]:
        timed(run, [first] * 3)
        before = process.memory_info().rss
        new = timed(run, list(range(first + 1, first + 1 + count)))
        grown = (process.memory_info().rss - before) / count / 1e6
        known = timed(run, [first] * count)
        print(f"| {rows} | {name} | {new:.1f} | {known:.1f} | {grown:.1f} |", flush=True)


if __name__ == "__main__":
    main()
