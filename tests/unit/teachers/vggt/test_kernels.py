"""The fused GPU kernels against the plain torch that they stand for, and the block they make up.

They run where there is a GPU, and under Triton's interpreter (TRITON_INTERPRET=1) where Triton is
installed without one.
"""

import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.teachers.vggt.rope import grid_positions, rotate, rotation_tables
from threedrs.teachers.vggt.transformer import Block

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds")
pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="needs a GPU or Triton's interpreter"
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def assert_near(found: Tensor, exact: Tensor, bound: float = 5e-3) -> None:
    """One rounding to bfloat16 is a relative difference of about 2e-3."""
    assert found.shape == exact.shape
    assert found.isfinite().all()
    difference = (found.float() - exact.float()).norm() / exact.float().norm()
    assert difference < bound


@pytest.mark.parametrize("channels", [64, 96, 1024])
def test_norm_and_scaled_sums(channels: int) -> None:
    from threedrs.teachers.vggt import kernels

    x = 2 * random(2, 5, channels) + 1
    branch = random(2, 5, channels, seed=1, dtype=torch.bfloat16)
    gamma, weight, bias = (random(channels, seed=s) for s in (2, 3, 4))
    total = x + gamma * branch.float()
    assert_near(
        kernels.norm(x, weight, bias, 1e-5), functional.layer_norm(x, (channels,), weight, bias)
    )
    torch.testing.assert_close(kernels.scaled_sum(x, branch, gamma), total)
    found_sum, found_norm = kernels.scaled_sum_norm(x, branch, gamma, weight, bias, 1e-6)
    torch.testing.assert_close(found_sum, total)
    assert_near(found_norm, functional.layer_norm(total, (channels,), weight, bias, 1e-6))
    assert found_norm.dtype == torch.bfloat16


def test_gelu() -> None:
    from threedrs.teachers.vggt import kernels

    x = 3 * random(3, 1500, dtype=torch.bfloat16)
    assert_near(kernels.gelu(x), functional.gelu(x.float()))


@pytest.mark.parametrize("heads", [6, 16])
def test_query_key_norm_and_rotation(heads: int) -> None:
    from threedrs.teachers.vggt import kernels

    qkv = random(2, 17, 3, heads, 64, dtype=torch.bfloat16)
    norms = [nn.LayerNorm(64).to(DEVICE) for _ in range(2)]
    for seed, norm in enumerate(norms):
        norm.weight.data, norm.bias.data = random(64, seed=seed), random(64, seed=seed + 5)
    tables = rotation_tables(grid_positions(3, 4, 5).to(DEVICE), 64, 100.0)
    with torch.no_grad():
        found = kernels.norm_rotate(qkv, norms[0], norms[1], tables)
        for index, norm in enumerate(norms):
            assert_near(found[index], rotate(norm(qkv[:, :, index].float()), *tables))


@pytest.mark.skipif(DEVICE == "cpu", reason="the block takes the kernels on a GPU only")
@pytest.mark.parametrize("with_rotation", [True, False])
def test_block_with_kernels_matches_float32(with_rotation: bool) -> None:
    from threedrs.teachers.image_extractor import prepare

    block = Block(384, 6, norm_epsilon=1e-5, layer_scale=0.5, query_key_norm=with_rotation).to(
        DEVICE
    )
    positions = grid_positions(8, 8, 5).to(DEVICE)
    tables = rotation_tables(positions, 64, 100.0) if with_rotation else None
    x = random(3, 69, 384)
    with torch.inference_mode():
        exact = block(x, tables)
        rough = prepare(block, torch.device(DEVICE))(x, tables)
    assert rough.dtype == torch.float32
    assert_near(rough, exact, bound=1e-2)
