"""The 3D position embedding: world coordinates to a sine code of the hidden size; no parameters.

A point is clamped to a fixed volume, counted in voxels of 0.1 m from the volume's lower corner,
and each axis is written as sines and cosines into a third of the channels (3DRS, section 3.1, after
Video-3D LLM).
"""

import torch
from torch import Tensor

LOWER_CORNER = (-15.0, -15.0, -5.0)  # metres, world frame
UPPER_CORNER = (15.0, 15.0, 5.0)
VOXEL = 0.1  # metres


def discretise(points: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the voxel indices of ``points`` (..., 3) in metres, as int64 (..., 3).

    The arithmetic runs in ``dtype``: float32, or a half precision to reproduce what a trainer that
    casts every input computes. Halves round to even.
    """
    points = points.to(dtype)
    lower = torch.tensor(LOWER_CORNER, dtype=dtype, device=points.device)
    upper = torch.tensor(UPPER_CORNER, dtype=dtype, device=points.device)
    voxels = (torch.minimum(torch.maximum(points, lower), upper) - lower) / VOXEL
    return torch.round(voxels).long()


def sine_embedding(voxels: Tensor, channels: int) -> Tensor:
    """Return the embedding (..., channels) float32 of voxel indices (..., 3).

    Each axis gets ``f = channels // 3`` channels; channel j of them has the frequency
    10000^(-2 floor(j/2) / f), even channels the sine and odd ones the cosine. The channels that
    are left over stay zero.
    """
    third = channels // 3
    channel = torch.arange(third, device=voxels.device)
    frequency = 10000.0 ** (-2.0 * (channel // 2).double() / third)
    # Angles reach 300 radians: float64 keeps them exact before the result becomes float32.
    angle = voxels[..., None].double() * frequency
    code = torch.where(channel % 2 == 0, angle.sin(), angle.cos()).flatten(-2)
    return torch.nn.functional.pad(code, (0, channels - 3 * third)).float()


def position_embedding(points: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the position embedding (..., channels) float32 of ``points`` (..., 3) in metres.

    ``dtype`` is that of the coordinate arithmetic (see `discretise`).
    """
    return sine_embedding(discretise(points, dtype), channels)
