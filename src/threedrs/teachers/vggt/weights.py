"""Weights of VGGT's aggregator: from the public checkpoint, or seeded random ones.

A checkpoint is a state dict in PyTorch's file format or in safetensors, with the aggregator's
parameters below ``aggregator.`` and those of the prediction heads, which are not needed, beside
them. Loading is strict: anything else missing or left over is an error. A checkpoint is untrusted
input; a file that would run code when read is refused. Costs one read of the file (5 GB for
VGGT-1B); the tensors are mapped, not copied, until the model moves to its device.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from threedrs.errors import CheckpointError, one_line
from threedrs.teachers.vggt import WHAT_TO_FETCH
from threedrs.teachers.vggt.aggregator import VGGTAggregator

PREFIX = "aggregator."
IGNORED_PREFIXES = ("camera_head.", "point_head.", "depth_head.", "track_head.")
SHOWN = 5  # names listed in an error


def load_vggt(path: Path) -> VGGTAggregator:
    """Return VGGT-1B's aggregator with the checkpoint's weights, float32 on the CPU.

    Raises:
        CheckpointError: the file is unreadable or holds another model.
    """
    with torch.device("meta"):
        model = VGGTAggregator()
    load_aggregator(model, path)
    return model


def load_aggregator(model: nn.Module, path: Path) -> None:
    """Give ``model`` (on the meta device or not) the checkpoint's weights, as float32.

    Raises:
        CheckpointError: the file is unreadable, or a parameter is missing, left over, or of another
            shape than the model's.
    """
    stored = _read_checkpoint(path)
    found = {k: value for k, value in stored.items() if not str(k).startswith(IGNORED_PREFIXES)}
    expected = {f"{PREFIX}{name}": value for name, value in model.state_dict().items()}
    # Every name is compared before a value is taken: a checkpoint of another model that happened to
    # share names would give features that look right.
    problems = [f"{name} is missing" for name in expected if name not in found]
    for name, value in found.items():
        if name not in expected:
            problems.append(f"{name} is unexpected")
        elif not isinstance(value, Tensor) or not value.is_floating_point():
            problems.append(f"{name} is not a tensor of floating-point numbers")
        elif value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(expected[name].shape)}"
            problems.append(f"{name} has shape {shapes}")
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"{path}: is not the checkpoint of VGGT-1B: {'; '.join(problems[:SHOWN])}{more}; "
            f"{WHAT_TO_FETCH}"
        )
    parameters = {name.removeprefix(PREFIX): value.float() for name, value in found.items()}
    model.load_state_dict(parameters, assign=True)


def _read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return the file's state dict, or the one below ``model``, mapped into memory."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: is not a plain state dict. It holds code or objects other than tensors, or "
            "is damaged, and is not loaded, because reading it could run that code; "
            f"{WHAT_TO_FETCH}"
        ) from error
    except Exception as error:  # the two readers document no list of what damage raises
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({one_line(error)}); download it again"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return state


def fill_random(model: nn.Module, seed: int) -> None:
    """Overwrite all parameters of ``model`` with values that depend on ``seed`` alone.

    Linear maps keep the size of what passes through them, and the layer scales (0.5) let every
    block change its input, so that the features follow the images and views affect each other.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Sorted, so that the values do not depend on the order in which modules are built.
        for name, parameter in sorted(model.named_parameters()):
            kind = name.rsplit(".", 1)[-1]
            if kind in ("gamma", "lambda1"):  # layer scales, here and in transformers
                parameter.fill_(0.5)
            elif kind == "bias":
                parameter.zero_()
            elif kind == "weight" and parameter.ndim == 1:
                parameter.fill_(1.0)
            elif kind == "weight":
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
            else:  # tokens and position embedding
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
