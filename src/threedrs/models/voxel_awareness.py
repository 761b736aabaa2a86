"""How 3D-aware a model is, by the measure of the 3DRS paper (section 2.1.2).

Visual tokens of different frames that show the same place should have like features. A scene's
score is the mean cosine of the last hidden states (after the final norm) of pairs of visual tokens
whose patches lie in the same voxel of 0.1 m. Two means are in use, and both are given:

- ``all_pairs``, of the published code: over the pairs of a voxel, those within a frame included,
  then over the voxels that hold a pair;
- ``across_frames``, of the paper's text: over all pairs of different frames at once.

T tokens, D channels, V voxels, C cells (the tokens of a voxel and frame).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from threedrs.models.visual_tokens import discretise


@dataclass(frozen=True, kw_only=True)
class SceneAwareness:
    """A scene's scores, cosines of -1 to 1, and the pairs that each is a mean over.

    ``all_tokens`` is the mean over all pairs of tokens of different frames, wherever they lie.
    A score without a pair is 0, as in the published code.
    """

    all_pairs: float
    across_frames: float
    all_tokens: float
    pairs: int
    pairs_across_frames: int


def scene_awareness(hidden_TD: Tensor, points_T3: Tensor, frame_T: Tensor) -> SceneAwareness:
    """Return the scores of a scene's visual tokens, given their last hidden states.

    Newline tokens are dropped. ``points_T3`` is the mean coordinate of each token's patch, metres,
    world frame, and ``frame_T`` (int64) the frame that it is of.
    """
    # In float64: a voxel's sum is hundreds of tokens long, and two large squares are subtracted.
    unit_TD = torch.nn.functional.normalize(hidden_TD.double(), dim=-1)
    # The published code joins the three indices of a voxel in half precision, which merges voxels.
    # Here they stay integers.
    voxel_T = torch.unique(discretise(points_T3, torch.float32), dim=0, return_inverse=True)[1]
    # A voxel's tokens of one frame: what the pairs of different frames leave out.
    cell_T = torch.unique(torch.stack([voxel_T, frame_T], dim=1), dim=0, return_inverse=True)[1]
    cosines_V, pairs_V = _pair_sums(unit_TD, voxel_T)
    within_C, pairs_within_C = _pair_sums(unit_TD, cell_T)
    # Tokens that are nearly all alike score near 1 in any voxel. So a score is read beside the mean
    # over the pairs of different frames wherever they lie.
    whole, pairs_whole = _pair_sums(unit_TD, torch.zeros_like(frame_T))
    frame, pairs_frame = _pair_sums(unit_TD, torch.unique(frame_T, return_inverse=True)[1])
    apart = int(pairs_whole.sum() - pairs_frame.sum())
    held_V = pairs_V > 0
    mean_V = cosines_V[held_V] / pairs_V[held_V]
    pairs = int(pairs_V.sum())
    across = pairs - int(pairs_within_C.sum())
    return SceneAwareness(
        all_pairs=mean_V.mean().item() if len(mean_V) else 0.0,
        across_frames=(cosines_V.sum() - within_C.sum()).item() / across if across else 0.0,
        all_tokens=(whole.sum() - frame.sum()).item() / apart if apart else 0.0,
        pairs=pairs,
        pairs_across_frames=across,
    )


def _pair_sums(unit_TD: Tensor, group_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return per group the sum of the cosines of its pairs, and how many pairs it has."""
    count_G = torch.bincount(group_T)
    sum_GD = unit_TD.new_zeros(len(count_G), unit_TD.shape[1]).index_add_(0, group_T, unit_TD)
    # |sum|^2 holds each pair twice, and each vector with itself once. So a scene costs two sums
    # over its T tokens and not T^2 products.
    squares_G = unit_TD.new_zeros(len(count_G)).index_add_(0, group_T, unit_TD.square().sum(-1))
    cosines_G = (sum_GD.square().sum(-1) - squares_G) / 2
    return cosines_G, count_G * (count_G - 1) // 2
