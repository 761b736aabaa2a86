"""A training run that a GPU has no memory for: one line that says for what, and what helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from threedrs.errors import MachineError

# What helps with what a run always holds, and with what a step takes.
SPREAD = (
    "stop what else runs on it, take more GPUs with config/deepspeed/zero3.json, or use "
    "config/deepspeed/zero3_offload.json"
)
SMALLER = (
    "lower train.pack, set train.gradient_checkpointing, or use config/deepspeed/zero3_offload.json"
)


@contextmanager
def fits_gpu(what: str, remedy: str) -> Iterator[None]:
    """Raise MachineError where a GPU is out of memory for ``what``."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(f"{what}: the GPU is out of memory; {remedy}") from error
