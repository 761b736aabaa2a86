"""One scene through a picture model, on the device there is.

On a GPU the linear layers run in bfloat16 and everything between them in float32; on a CPU all is
float32 and the result depends on the input alone.

S frames, P patches, h w rows and columns of the stored grid, C channels.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn import functional

from threedrs.teachers.settings import GRID


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_warning(teacher: str) -> str:
    """Return one line on how slow VGGT-1B is without a GPU.

    32 frames take 176 TFLOP; a core does about 0.05 TFLOP a second in float32.
    """
    minutes = 176 / (0.05 * len(os.sched_getaffinity(0))) / 60
    return (
        f"there is no GPU: teacher {teacher} takes about {minutes:.0f} minutes for a scene of 32 "
        "frames on this machine, under half a second on an H100"
    )


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
def patch_features(model: nn.Module, pictures_SHW3: Tensor) -> Tensor:
    """Return the model's features of one scene, (S, P, C), on the device of ``pictures_SHW3``.

    Args:
        model: (1, S, 3, H, W) in [0, 1] to (1, S, P, C).
        pictures_SHW3: the scene's pictures, uint8.
    """
    images_S3HW = pictures_SHW3.permute(0, 3, 1, 2).float().div(255)
    on_gpu = pictures_SHW3.is_cuda
    with torch.autocast(pictures_SHW3.device.type, torch.bfloat16, enabled=on_gpu):
        return model(images_S3HW[None])[0]


@torch.inference_mode()
def pool_features(
    features_SPC: Tensor, patches: tuple[int, int], *, grid: int | str
) -> tuple[Tensor, Tensor]:
    """Return the features on the stored grid, (S, h, w, C) float16, and which frames are finite.

    Args:
        features_SPC: patches row by row.
        patches: rows and columns of patches.
        grid: 14: averaged to 14x14 in float32 (adaptive_avg_pool2d); "full": as they are.
    """
    features_SCRc = features_SPC.float().transpose(1, 2).unflatten(2, patches)
    if grid == GRID:
        features_SCRc = functional.adaptive_avg_pool2d(features_SCRc, GRID)
    features_ShwC = features_SCRc.permute(0, 2, 3, 1).to(torch.float16).contiguous()
    return features_ShwC, features_ShwC.isfinite().flatten(1).all(dim=1)
