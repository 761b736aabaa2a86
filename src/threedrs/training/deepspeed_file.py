"""What a DeepSpeed file (`execution.deepspeed`) may hold.

The configuration is checked before anything runs, so this module imports neither torch nor
DeepSpeed. The values within ``zero_optimization`` are checked by DeepSpeed when training starts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError
from threedrs.io.files import read_json

# Keys that the recipe sets and a DeepSpeed file must leave out.
RECIPE_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
    "optimizer",
    "scheduler",
)
# Keys that a DeepSpeed file may hold. None of them changes a gradient, because a run may go on with
# another file, and none writes files or sends numbers elsewhere, as others do (tensorboard, wandb,
# flops_profiler, autotuning, ...).
DEEPSPEED_KEYS = (
    "zero_optimization",
    "zero_allow_untested_optimizer",
    "wall_clock_breakdown",
    "memory_breakdown",
)


def read_deepspeed(path: Path) -> dict[str, Any]:
    """Return the DeepSpeed file of a recipe.

    Raises:
        ConfigError: the file sets a key that the recipe sets, or an unknown one, or its ZeRO stage
            is not 2 or 3, or it would change gradients or leave checkpoints incomplete.
        DataError: the file is missing or malformed.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: is not a JSON object; see config/deepspeed/")
    taken = [key for key in RECIPE_KEYS if key in config]
    if taken:
        raise ConfigError(f"{path}: remove {', '.join(taken)}; the section `train` sets them")
    unknown = [key for key in config if key not in DEEPSPEED_KEYS]
    if unknown:
        raise ConfigError(
            f"{path}: remove {', '.join(unknown)}; it may hold: {', '.join(DEEPSPEED_KEYS)}"
        )
    zero = config.get("zero_optimization")
    if not isinstance(zero, dict) or zero.get("stage") not in (2, 3):
        stage = zero.get("stage") if isinstance(zero, dict) else None
        raise ConfigError(f"{path}: zero_optimization.stage is {stage}; expected 2 or 3")
    for key in ("offload_optimizer", "offload_param"):
        offload = zero.get(key)
        if offload is not None and (
            not isinstance(offload, dict)
            or offload.get("device", "none") not in ("cpu", "none")
            or "ratio" in offload
        ):
            raise ConfigError(
                f"{path}: zero_optimization.{key}: checkpoints hold what is on the GPU or, whole, "
                "on the CPU; set device to cpu, and remove ratio"
            )
    if zero["stage"] == 2 and zero.get("offload_param") is not None:
        raise ConfigError(f"{path}: zero_optimization.offload_param needs stage 3")
    for key in zero:
        if key.startswith("zero_quantized"):
            raise ConfigError(f"{path}: remove zero_optimization.{key}; it changes the gradients")
    if zero.get("compute_grad_norm", True) is not True:
        raise ConfigError(f"{path}: remove zero_optimization.compute_grad_norm; a step reads it")
    return config


def is_offloaded(config: Mapping[str, Any], part: str) -> bool:
    """Whether a DeepSpeed configuration keeps ``optimizer`` or ``param`` on the host."""
    offload = config["zero_optimization"].get(f"offload_{part}")
    return offload is not None and offload.get("device") == "cpu"
