"""Building a student without its weights, and filling in tensors: whole, or spread over ranks.

Without ZeRO-3 the parameters take up no memory until a tensor is assigned to each. Under ZeRO-3
each parameter is spread over the ranks as soon as its module is built, and no rank ever holds more
than one whole tensor beside its share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import initialization

ZeroConfig = Mapping[str, Any]


@contextmanager
def without_weights(zero_init: ZeroConfig | None) -> Iterator[None]:
    """Build the modules inside without values for their parameters."""
    if zero_init is None:
        with init_empty_weights(include_buffers=False):
            yield
        return
    # DeepSpeed spreads a module as soon as it is built, so drawing its values would be wasted.
    with spread_modules(zero_init), initialization.no_init_weights():
        yield


@contextmanager
def spread_modules(zero_init: ZeroConfig | None) -> Iterator[None]:
    """Spread the parameters of the modules built inside over the ranks, unless it is None."""
    if zero_init is None:
        yield
        return
    import deepspeed

    with deepspeed.zero.Init(config_dict_or_path=dict(zero_init)):
        yield


def is_spread(parameter: object) -> bool:
    """Return whether DeepSpeed has spread a parameter over the ranks."""
    return hasattr(parameter, "ds_id")


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of a whole parameter, spread or not."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def fill(module: nn.Module, names: Iterable[str], value: Callable[[str], Tensor]) -> None:
    """Take over the tensors of these ``names``; all ranks call this with the same names."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    rest = []
    for name in names:
        if not is_spread(parameters.get(name)):
            rest.append(name)
            continue
        import deepspeed

        with (
            deepspeed.zero.GatheredParameters([parameters[name]], modifier_rank=0),
            torch.no_grad(),
        ):
            # The first rank alone reads, when the tensor's turn comes, and hands out every share.
            if torch.distributed.get_rank() == 0:
                parameters[name].data.copy_(value(name))
    # Assigned, not copied: the module takes the tensor that was read, and no second one exists.
    module.load_state_dict({name: value(name) for name in rest}, strict=False, assign=True)


def fill_random(module: nn.Module, deviation: float = 0.02) -> None:
    """Draw the values of spread parameters: matrices normal, biases 0, weights of norms 1.

    The values depend on the number of ranks.
    """
    # Each rank draws its own share, so nothing is gathered.
    generators: dict[torch.device, torch.Generator] = {}
    for name, parameter in module.named_parameters():
        share: Tensor = parameter.ds_tensor  # type: ignore[attr-defined]
        if len(shape_of(parameter)) > 1 or not name.endswith((".weight", ".bias")):
            if share.device not in generators:
                seed = torch.initial_seed() + torch.distributed.get_rank()
                generators[share.device] = torch.Generator(share.device).manual_seed(seed)
            share.data.normal_(0, deviation, generator=generators[share.device])
        else:
            share.data.fill_(name.endswith(".weight"))


def whole_rows(matrix: nn.Parameter, rows: Sequence[int]) -> Tensor:
    """Return a copy of these rows of a matrix; if it is spread, all ranks call this."""
    if not is_spread(matrix):
        return matrix.detach()[list(rows)].clone()
    import deepspeed

    # A rank alone would wait here for the shares of the others for ever.
    with deepspeed.zero.GatheredParameters([matrix]):
        return matrix.detach()[list(rows)].clone()
