"""Compiled blocks give what the blocks give, and blocks that cannot be compiled run as they are."""

from collections.abc import Iterator
from logging import WARNING
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


def working(graph: Any, inputs: Any, **options: Any) -> Any:
    return graph.forward


def broken(graph: Any, inputs: Any, **options: Any) -> Any:
    """Fail as a machine without a C compiler does."""
    raise RuntimeError("no compiler")


def test_a_block_is_compiled_as_what_stands_before_its_attention_and_what_behind() -> None:
    products: list[list[str]] = []

    def count_products(graph: Any, inputs: Any, **options: Any) -> Any:
        nodes = [node for node in graph.graph.nodes if "linear" in str(node.target)]
        products.append([str(node.target) for node in nodes])
        return graph.forward

    model = tiny_model(0).eval()
    compile_blocks(model, count_products)
    with torch.inference_mode():
        model(torch.rand(1, 2, 3, 28, 28))
    # Blocks of the encoder, within frames and over the scene: one product before, three behind.
    assert sorted(map(len, products)) == [1, 1, 1, 3, 3, 3]


def test_many_image_sizes_are_compiled_each() -> None:
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any, **options: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = tiny_model(0).eval()
    compile_blocks(model, count)
    with torch.inference_mode():
        for rows in (2, 3, 4, 5):
            model(torch.rand(1, 2, 3, 14 * rows, 28))
    # Six graphs a size, as above; torch by itself would end at eight of each of two functions.
    assert len(graphs) == 6 * 4


@pytest.mark.parametrize(("backend", "lines"), [(working, 0), (broken, 1)])
def test_compiled_blocks(backend: Any, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(1, 2, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    model = tiny_model(0).eval()
    settings = torch._dynamo.config.get_config_copy()
    with torch.inference_mode():
        plain = model(images)
        compile_blocks(model, backend)
        torch.testing.assert_close(model(images), plain)
    assert torch._dynamo.config.get_config_copy() == settings  # they count for all of the process
    said = [one.getMessage() for one in caplog.records if one.levelno >= WARNING]
    assert len(said) == lines
    assert all(
        line.startswith("transformer blocks: uncompiled, which is slower (") for line in said
    )
