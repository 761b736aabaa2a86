"""Functions compiled by torch, which run as they are where torch cannot compile them.

Compiling fails on a machine without a C compiler, say. Nothing but time is lost then, so one line
of the log names the reason and the work goes on. Backbones and teachers take theirs from here.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from threedrs.errors import one_line

logger = logging.getLogger(__name__)


def compiled(
    functions: Sequence[Callable[..., Any]], name: str, **options: Any
) -> list[Callable[..., Any]]:
    """Return the functions compiled, until one of them cannot be; then all run as they are.

    Args:
        name: what they are together, for the log.
        options: those of `torch.compile`.
    """
    # Here, as it takes half a second, which answering and a CPU need not wait.
    from torch._dynamo.exc import TorchDynamoException

    works = True

    def run(faster: Callable[..., Any], plain: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal works
        if works:
            try:
                return faster(*arguments)
            except TorchDynamoException as error:
                # torch can go on by itself, by a setting that counts for all of the process, and
                # says so in hundreds of lines of the log.
                logger.warning(
                    "%s: uncompiled, which is slower (%s); install a C compiler if there is none",
                    name,
                    one_line(error),
                )
                works = False
        return plain(*arguments)

    # What was compiled before on this machine comes from torch's cache.
    return [partial(run, torch.compile(one, **options), one) for one in functions]


@cache
def _compiled_once(function: Callable[..., Any]) -> Callable[..., Any]:
    return compiled([function], function.__name__.strip("_"), dynamic=True)[0]


def run_fused(function: Callable[..., Any], hidden: Tensor, *others: Tensor) -> Any:
    """Return ``function`` of the tensors, element-wise work, as one kernel where that pays."""
    # Compiling costs seconds, which only a training on a GPU gets back.
    training = hidden.is_cuda and torch.is_grad_enabled()
    return (_compiled_once(function) if training else function)(hidden, *others)
