"""Products of the language model in float8, on a GPU that multiplies it twice as fast as bfloat16.

Weights, activations and gradients stay in the run's precision. Before each product both factors are
scaled, each by one number for the whole tensor, and rounded to 8 bits (torchao's tensorwise
scaling; 3 bits of mantissa, 2 for gradients). Casts and products are compiled together, as a cast
by itself would cost what the product saves. Vocabulary head and vision tower stay as they are: the
head runs at few tokens, and the tower's products are small.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from threedrs.errors import ConfigError, MachineError
from threedrs.models.backbones.fused_layers import run_fused
from threedrs.models.student import Student

CAPABILITY = (8, 9)  # of the first GPUs with float8 products: Ada, then Hopper
MULTIPLE = 16  # of which the sides of a weight must be
GRAPHS = 32  # one for each shape of weight, with and without bias; torch's own limit is 8


def use_float8(student: Student) -> None:
    """Let the linear layers of the student's language model multiply in float8 while it trains.

    Raises:
        MachineError: torchao is not installed, or the GPU has no such products.
        ConfigError: a side of a weight is not a multiple of ``MULTIPLE``.
    """
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < CAPABILITY:
        raise MachineError(
            f"train.float8: {torch.cuda.get_device_name()} has no float8 products; take an H100 or "
            "newer, or set train.float8: false"
        )
    _products()
    torch._dynamo.config.recompile_limit = GRAPHS
    for name, module in student.language_model.model.layers.named_modules():
        if isinstance(module, nn.Linear):
            if module.in_features % MULTIPLE or module.out_features % MULTIPLE:
                raise ConfigError(
                    f"train.float8: layer {name} is {module.out_features} x {module.in_features}, "
                    f"no multiples of {MULTIPLE}; set train.float8: false"
                )
            module.forward = partial(_linear, module)  # type: ignore[method-assign]
    for layer in student.language_model.model.layers:
        layer.mlp.forward = partial(_mlp, layer.mlp, layer.mlp.forward)


# An evaluation on the way is to score the model that is exported, which answers without float8.
def _linear(module: nn.Linear, hidden: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return nn.functional.linear(hidden, module.weight, module.bias)
    return run_fused(_products()[0], hidden, module.weight, module.bias)


def _mlp(mlp: Any, forward: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(hidden)
    weights = (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)
    return run_fused(_products()[1], hidden, *weights)


@cache
def _products() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Return a linear layer as a function of its input, weight and bias (or None), and an MLP.

    The MLP is a function of its input and its three weights.

    Raises:
        MachineError: torchao is not installed.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
        from torchao.float8.float8_linear import matmul_with_hp_or_float8_args
    except ImportError as error:
        raise MachineError(
            "train.float8: true needs the package torchao; install it with `pip install "
            "'torchao==0.18.*'`, or set train.float8: false"
        ) from error
    # The gradient of a weight is a sum over the tokens, whose number is then padded.
    config = Float8LinearConfig(pad_inner_dim=True)
    # A conversion also mends how torch compiles a cast to 8 bits (torchao.float8._inductor_patch).
    converted: Any = convert_to_float8_training(nn.Linear(MULTIPLE, MULTIPLE), config=config)
    products = converted.linear_mm_config

    def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        result = matmul_with_hp_or_float8_args.apply(hidden, weight.t(), products, config)
        return result if bias is None else result + bias

    # In one function two products share the cast of what they take in, and what the third takes in
    # is cast as it is computed.
    def mlp(hidden: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return linear(nn.functional.silu(linear(hidden, gate)) * linear(hidden, up), down)

    return linear, mlp
