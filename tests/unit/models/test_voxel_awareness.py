"""The measure of 3D awareness against double loops over tokens, and cases worked out by hand."""

import math
from collections import defaultdict

import pytest
import torch

from threedrs.models.voxel_awareness import SceneAwareness, scene_awareness


def slow_awareness(
    hidden: torch.Tensor, points: torch.Tensor, frames: torch.Tensor
) -> tuple[float, float, int, int]:
    """Both means as the paper and its code define them, token by token."""
    voxels = []
    for point in points.tolist():
        limits = zip(point, (-15, -15, -5), (15, 15, 5), strict=True)
        clamped = [min(max(x, low), high) - low for x, low, high in limits]
        voxels.append(tuple(round(x / 0.1) for x in clamped))
    by_voxel, across = defaultdict(list), []
    for i in range(len(hidden)):
        for j in range(i + 1, len(hidden)):
            if voxels[i] == voxels[j]:
                a, b = hidden[i].double(), hidden[j].double()
                cosine = (a @ b / a.norm() / b.norm()).item()
                by_voxel[voxels[i]].append(cosine)
                if frames[i] != frames[j]:
                    across.append(cosine)
    means = [sum(each) / len(each) for each in by_voxel.values()]
    pairs = sum(map(len, by_voxel.values()))
    return (
        sum(means) / len(means) if means else 0.0,
        sum(across) / len(across) if across else 0.0,
        pairs,
        len(across),
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_equals_double_loops(seed: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(90, 16, generator=random).to(dtype) + 0.3
    # a room of 0.4 m: some 60 voxels for 90 tokens, none at a border between two
    points = torch.randint(0, 4, (90, 3), generator=random) * 0.1 + 0.02
    frames = torch.randint(0, 5, (90,), generator=random)
    found = scene_awareness(hidden, points, frames)
    all_pairs, across_frames, pairs, pairs_across = slow_awareness(hidden, points, frames)
    assert found.all_pairs == pytest.approx(all_pairs, abs=1e-9)
    assert found.across_frames == pytest.approx(across_frames, abs=1e-9)
    assert (found.pairs, found.pairs_across_frames) == (pairs, pairs_across)
    apart = [
        torch.cosine_similarity(hidden[i].double(), hidden[j].double(), dim=0).item()
        for i in range(90)
        for j in range(i)
        if frames[i] != frames[j]
    ]
    assert found.all_tokens == pytest.approx(sum(apart) / len(apart), abs=1e-9)


def test_a_case_by_hand() -> None:
    # voxel A: three tokens of the frames 0, 0, 1; voxel B: two tokens of one frame
    hidden = torch.tensor([[1.0, 0], [0, 2], [3, 3], [1, 0], [5, 0]])
    points = torch.tensor([[0.0, 0, 0]] * 3 + [[1.0, 0, 0]] * 2)
    frames = torch.tensor([0, 0, 1, 2, 2])
    half = math.sqrt(0.5)
    found = scene_awareness(hidden, points, frames)
    assert found.all_pairs == pytest.approx(((0 + half + half) / 3 + 1) / 2)
    assert found.across_frames == pytest.approx(half)
    assert (found.pairs, found.pairs_across_frames) == (4, 2)


def test_without_a_pair_the_score_is_zero() -> None:
    points = torch.arange(3.0)[:, None].expand(3, 3)
    found = scene_awareness(torch.ones(3, 4), points, torch.arange(3))
    assert found.all_tokens == pytest.approx(1)
    assert found == SceneAwareness(
        all_pairs=0.0,
        across_frames=0.0,
        all_tokens=found.all_tokens,
        pairs=0,
        pairs_across_frames=0,
    )


def test_voxels_far_from_the_corner_are_not_merged() -> None:
    # indices above 2,048 would be one number in half precision: 300 * 300 * 100 voxels are many
    points = torch.tensor([[14.0, 14.0, 4.0], [14.1, 14.0, 4.0]])
    assert scene_awareness(torch.ones(2, 4), points, torch.tensor([0, 1])).pairs == 0


def test_all_tokens_of_a_scene_of_the_paper_fit() -> None:
    tokens, channels = 6272, 256
    points = torch.rand(tokens, 3, generator=torch.Generator().manual_seed(0)) * 3
    hidden = torch.ones(tokens, channels, dtype=torch.bfloat16)
    found = scene_awareness(hidden, points, torch.arange(32).repeat_interleave(196))
    assert found.all_pairs == pytest.approx(1.0)
    assert found.across_frames == pytest.approx(1.0)
