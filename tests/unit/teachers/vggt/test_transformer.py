"""Compiled blocks give what the blocks give, and blocks that cannot be compiled run as they are."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from threedrs.teachers.vggt.extractor import tiny_model
from threedrs.teachers.vggt.transformer import compile_blocks

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors = False


def broken(graph: Any, inputs: Any) -> Any:
    """Fail as a machine without a C compiler does."""
    raise RuntimeError("no compiler")


@pytest.mark.parametrize("backend", ["eager", broken])
def test_compiled_blocks(backend: Any) -> None:
    images = torch.rand(1, 2, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    model = tiny_model(0).eval()
    with torch.inference_mode():
        plain = model(images)
        compile_blocks(model, backend)
        torch.testing.assert_close(model(images), plain)
