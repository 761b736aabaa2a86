"""Compiled functions give what plain ones give, and one that cannot be compiled is plain."""

from collections.abc import Iterator
from logging import WARNING
from typing import Any

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from threedrs.models.compiled import compiled

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def broken(graph: Any, inputs: Any) -> Any:
    """Fail as a machine without a C compiler does."""
    raise RuntimeError("no\ncompiler")


def double(number: torch.Tensor) -> torch.Tensor:
    return 2 * number


def half(number: torch.Tensor) -> torch.Tensor:
    return number / 2


@pytest.mark.parametrize("backend", ["aot_eager", broken])
def test_values_and_gradients_are_those_of_the_plain_function(backend: Any) -> None:
    (turn,) = compiled([apply_rotary_pos_emb], "rotation", dynamic=True, backend=backend)
    for tokens in (5, 9):
        query, key = (torch.randn(1, heads, tokens, 8, requires_grad=True) for heads in (4, 2))
        angle = torch.randn(1, tokens, 8)
        results = []
        for function in (apply_rotary_pos_emb, turn):
            turned = torch.cat(function(query, key, angle.cos(), angle.sin()), dim=1)
            gradients = torch.autograd.grad(turned.square().sum() + turned.sum(), (query, key))
            results.append((turned, *gradients))
        torch.testing.assert_close(results[1], results[0])


def test_all_run_as_they_are_from_the_first_that_cannot_be_compiled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[Any] = []

    def broken_too(graph: Any, inputs: Any) -> Any:
        tried.append(graph)
        return broken(graph, inputs)

    pair = compiled([double, half], "two functions", backend=broken_too)
    for _ in range(2):
        assert [one(torch.tensor(3.0)).item() for one in pair] == [6.0, 1.5]
    assert len(tried) == 1
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= WARNING]
    assert said.startswith("two functions: uncompiled, which is slower (")
    assert "no compiler" in said
    assert said.endswith("); install a C compiler if there is none")


def test_an_error_of_the_function_itself_is_raised() -> None:
    (one,) = compiled([double], "doubling", backend="eager")
    with pytest.raises(TypeError):
        one(None)
