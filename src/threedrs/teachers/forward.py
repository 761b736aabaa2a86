"""One scene through a teacher, on the device there is.

On a GPU the linear layers run in bfloat16 and everything between them in float32; on a CPU all is
float32 and the result depends on the input alone.

S frames, P patches, h w rows and columns of the stored grid, C channels.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from threedrs.teachers.preprocess import PATCH

GRID = 14  # rows and columns of the pooled grid
# fastest first; all are exact
ATTENTION_KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model ready to run; on a GPU its linear maps hold bfloat16.

    Under autocast these run in bfloat16 anyway; storing them so saves the conversion of all weights
    in every scene and changes no value.
    """
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cuda":
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)
    return model


@torch.inference_mode()
def scene_features(model: nn.Module, images_S3HW: Tensor, *, grid: int | str) -> Tensor:
    """Return the teacher's features of one scene, (S, h, w, C) float16 on the CPU.

    Args:
        model: (1, S, 3, H, W) in [0, 1] to (1, S, P, C).
        images_S3HW: the scene's pictures, float32, sides multiples of 14.
        grid: 14: averaged to 14x14 in float32 (adaptive_avg_pool2d); "full": as they are.
    """
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    kernels = sdpa_kernel(ATTENTION_KERNELS, set_priority=True) if on_gpu else nullcontext()
    with kernels, torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        features_SPC = model(images_S3HW.to(device)[None])[0]
    rows, columns = images_S3HW.shape[2] // PATCH, images_S3HW.shape[3] // PATCH
    features_SCRc = features_SPC.float().transpose(1, 2).unflatten(2, (rows, columns))
    if grid == GRID:
        features_SCRc = functional.adaptive_avg_pool2d(features_SCRc, GRID)
    return features_SCRc.permute(0, 2, 3, 1).to(torch.float16).contiguous().cpu()
