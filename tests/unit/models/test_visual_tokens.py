import math

import pytest
import torch

from threedrs.models.backbones.family import LLAVA_GRID
from threedrs.models.visual_tokens import (
    NewlineTokens,
    discretise,
    position_embedding,
    sine_embedding,
    token_grid,
)


def test_voxels_by_hand() -> None:
    points = torch.tensor(
        [
            [-15.0, -15.0, -5.0],
            [15.0, 15.0, 5.0],
            [-99.0, 99.0, 7.0],  # clamped
            [0.0, 0.12, -4.75],  # 150, 151.2, 2.5 to even
            [-14.25, -13.75, -4.25],  # 7.5 and 12.5 to even
        ]
    )
    expected = [[0, 0, 0], [300, 300, 100], [0, 300, 100], [150, 151, 2], [8, 12, 8]]
    assert discretise(points, torch.float32).tolist() == expected


def test_half_precision_arithmetic_moves_voxels() -> None:
    # 3.07 + 15 is 18.0625 in bfloat16's steps before the sum and 18.0 after it.
    point = torch.tensor([[3.07, 0.0, 0.0]])
    assert discretise(point, torch.float32)[0, 0] == 181
    assert discretise(point, torch.bfloat16)[0, 0] == 180


@pytest.mark.parametrize("channels", [32, 33, 34, 96, 3584])
def test_embedding_equals_loops(channels: int) -> None:
    voxels = [3, 171, 52]
    third = channels // 3
    expected = [0.0] * channels
    for axis in range(3):
        for channel in range(third):
            angle = voxels[axis] * 10000 ** (-2 * math.floor(channel / 2) / third)
            value = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            expected[axis * third + channel] = value
    result = sine_embedding(torch.tensor(voxels), channels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor(expected), atol=1e-6, rtol=0)


def test_odd_thirds_drop_the_last_cosine_and_remaining_channels_are_zero() -> None:
    code = sine_embedding(torch.tensor([1, 1, 1]), 17)  # five channels an axis, two left over
    assert code[4] == pytest.approx(math.sin(10000 ** (-4 / 5)), abs=1e-7)
    assert code[15:].tolist() == [0, 0]


def test_shape_follows_the_points() -> None:
    points = torch.rand(2, 14, 14, 3)
    code = position_embedding(points, 20)
    assert code.shape == (2, 14, 14, 20)
    assert torch.equal(code[1, 2, 3], position_embedding(points[1, 2, 3], 20))


def test_newlines_close_rows_and_can_be_dropped() -> None:
    grid = torch.rand(2, 14, 14, 3)
    module = NewlineTokens(3)
    tokens = module(grid)
    assert tokens.shape == (2 * 210, 3)
    assert torch.equal(tokens[14], module.image_newline)
    assert torch.equal(tokens[210 + 15], grid[1, 1, 0])
    assert torch.equal(token_grid(tokens, LLAVA_GRID), grid)
