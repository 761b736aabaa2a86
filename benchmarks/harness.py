"""What the benchmarks share: timing, and VGGT-1B with random weights."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from machine import machine
from threedrs.teachers.vggt.aggregator import VGGTAggregator


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Return the name of the GPU, or of the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine()


def wait_for_gpu() -> None:
    """Wait until the GPU, where there is one, has done what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], repeats: int = 3, warm_up: int = 1) -> float:
    """Return the median seconds of ``work``, waiting for the GPU before and after."""
    taken = []
    for number in range(warm_up + repeats):
        wait_for_gpu()
        start = time.perf_counter()
        work()
        wait_for_gpu()
        if number >= warm_up:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def random_vggt(sizes: dict[str, Any], device: torch.device) -> VGGTAggregator:
    """Return the aggregator of ``sizes`` with random float32 weights, drawn on ``device``.

    Drawing 1.2 billion weights on the CPU would take longer than most measurements.
    """
    torch.manual_seed(0)
    with torch.device("meta"):
        model = VGGTAggregator(**sizes)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model = model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind == "gamma":
            parameter.data.fill_(0.3)
        elif kind == "weight" and parameter.ndim == 1:
            parameter.data.fill_(1.0)
        elif kind == "weight":
            parameter.data.normal_(0, parameter[0].numel() ** -0.5)
        else:
            parameter.data.normal_(0, 0.02)
    return model.eval().requires_grad_(False)
