"""What a training run is: its settings, its files, and the fingerprint that a resume compares.

The fingerprint names everything that shapes the trained weights, part by part, so that a run that
starts afresh can say what has changed. What only moves files, says how the run is carried out
(the section `execution`, the number of ranks) or is evaluated on the way is not part of it.

The configuration is checked before anything runs, so this module imports neither torch nor
DeepSpeed. The values within ``zero_optimization`` are checked by DeepSpeed when training starts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from threedrs.config.schema import Execution, LoraSettings, Train
from threedrs.config.section import parse_object, problem_lines
from threedrs.errors import ConfigError
from threedrs.io.files import read_json, sha256_of_file, sha256_of_json
from threedrs.models.checkpoint.folder import weights_hash
from threedrs.models.model_settings import read_run_config
from threedrs.training.sampler import group_steps
from threedrs.workflow.code_hash import code_hash

CHECKPOINT_FORMAT = 3  # of the manifests of training checkpoints
# Keys of `train` that leave the trained weights as they are; of the mix its content counts.
SHAPELESS = (*Execution.model_fields, "eval_every", "eval_samples", "mix")
# Sections whose every key shapes the weights.
SHAPING = ("frames", "geometry", "boxes", "supervision", "model")
# Keys of DeepSpeed that the section `train` sets.
SET_BY_TRAIN = ("optimizer", "scheduler", "bf16", "fp16", "train_batch_size",
                "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
                "gradient_clipping")  # fmt: skip


class _Offload(BaseModel):
    """What DeepSpeed keeps on the host: checkpoints hold what is on the GPU or whole on the CPU."""

    device: Literal["cpu", "none"] = "none"
    ratio: None = None


class _Zero(BaseModel, extra="allow"):
    """The section ``zero_optimization``, whose other keys DeepSpeed checks when training starts."""

    stage: Literal[2, 3]
    offload_optimizer: _Offload | None = None
    offload_param: _Offload | None = None
    compute_grad_norm: Literal[True] = True  # a step reads it
    # They change the gradients.
    zero_quantized_weights: Literal[False] = False
    zero_quantized_nontrainable_weights: Literal[False] = False
    zero_quantized_gradients: Literal[False] = False

    @model_validator(mode="after")
    def _check(self) -> "_Zero":
        if self.stage == 2 and self.offload_param is not None:
            raise ConfigError("zero_optimization.offload_param needs stage 3; remove it")
        return self


class _DeepSpeedFile(BaseModel, extra="forbid"):
    """What a DeepSpeed file may hold.

    The recipe sets all other keys that shape a result. None of these changes a gradient, because a
    run may go on with another file. Nor does any write files or send numbers elsewhere, as others
    do (tensorboard, wandb, flops_profiler, autotuning, ...).
    """

    zero_optimization: _Zero
    zero_allow_untested_optimizer: Any = None
    wall_clock_breakdown: Any = None
    memory_breakdown: Any = None

    @model_validator(mode="before")
    @classmethod
    def _leave_to_train(cls, values: Any) -> Any:
        if taken := [key for key in SET_BY_TRAIN if isinstance(values, Mapping) and key in values]:
            raise ConfigError(
                "; ".join(f"the section `train` sets {key}; remove it" for key in taken)
            )
        return values


def accumulation(global_batch: int, pack: int, ranks: int) -> int:
    """Return the micro-steps of an optimizer step when every pack is full.

    Raises:
        ConfigError: ``pack`` x ``ranks`` does not divide ``global_batch``; the message lists the
            choices that do.
    """
    if global_batch % (pack * ranks) == 0:
        return global_batch // (pack * ranks)
    named = f"{ranks} rank{'s' * (ranks > 1)}"
    if global_batch % ranks == 0:
        each = global_batch // ranks
        valid = [choice for choice in range(1, each + 1) if each % choice == 0]
        remedy = f"with {named} train.pack may be {', '.join(map(str, valid))}"
    else:
        unit = pack * ranks
        below = global_batch // unit * unit
        choices = [value for value in (below, below + unit) if value > 0]
        nearest = " or ".join(map(str, choices))
        remedy = f"train.global_batch may be {nearest}, or another multiple of {unit}"
    raise ConfigError(
        f"train.pack {pack} x {named} x accumulation is not train.global_batch {global_batch}; "
        f"{remedy}"
    )


class TrainSettings(Train, Execution):
    """The sections `train` and `execution`: what training does, and how it is carried out."""

    place = "train"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TrainSettings":
        """Return the settings of a resolved run; what it does not say of `execution` is the usual.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        return cls(**config["train"], **config.get("execution", {}))

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.lora is not None and "language_model" not in self.tunable:
            raise ConfigError(
                "train.lora: adapters train the language model, which train.tunable leaves out; "
                "add language_model there (its own weights stay frozen) or set train.lora to null"
            )
        return self

    def accumulation(self, ranks: int) -> int:
        """Return the micro-steps of an optimizer step, see the function `accumulation`."""
        return accumulation(self.global_batch, self.pack, ranks)

    def recording_obstacles(self) -> dict[str, bool]:
        """Return the settings with which no pass can be recorded, and whether this recipe is so."""
        # Both ask the GPU for the state of its random numbers.
        return {
            "with execution.gradient_checkpointing": self.gradient_checkpointing,
            "with dropout in train.lora": self.lora is not None and self.lora.dropout > 0,
        }

    def steps_per_epoch(self, counts: Mapping[str, int]) -> int:
        """Return the optimizer steps of an epoch with so many samples of each task group."""
        if self.batches == "task_groups":
            return sum(group_steps(count, self.global_batch) for count in counts.values())
        whole, rest = divmod(sum(counts.values()), self.global_batch)
        return whole if self.drop_last or rest == 0 else whole + 1


class RunPaths(BaseModel, frozen=True):
    """The section ``paths`` of a resolved run: its files, relative to the working directory."""

    mix: Path
    scenes: Path
    features: Mapping[str, Path]
    out: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of the training checkpoints."""
        return self.out / "checkpoints"


def read_run(path: Path, execution: str = "{}") -> dict[str, Any]:
    """Return the resolved run in ``path``, with its section `execution` from a JSON object.

    Raises:
        ConfigError: ``execution`` is not a JSON object with keys of that section.
        DataError: the file is missing or malformed.
    """
    # The workflow hands it over when a training starts. In the file it would make results stale
    # that it does not change.
    config, said = read_run_config(path), parse_object(execution, "--execution: ")
    return {**config, "execution": Execution(**config.get("execution", {}) | said).to_json()}


def fingerprint(
    config: Mapping[str, Any], scenes: Mapping[str, str], features: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that shapes the trained weights, as a flat mapping from name to value.

    ``scenes`` and ``features`` have the content hash of each scene store and of its features.
    """
    paths = RunPaths(**config["paths"])
    pretrained = config["model"]["path"]
    parts: dict[str, Any] = {
        f"{section}.{key}": value
        for section in SHAPING
        for key, value in config.get(section, {}).items()
    }
    parts |= {f"train.{k}": v for k, v in config["train"].items() if k not in SHAPELESS}
    lora = config["train"]["lora"]
    parts["train.lora"] = None if lora is None else LoraSettings(**lora).to_json()
    parts["teacher.name"] = config["teacher"]["name"]
    # What is not trained is not in a checkpoint: the same folder must bring it back.
    parts["pretrained weights"] = None if pretrained is None else weights_hash(Path(pretrained))
    parts["instruction mix"] = sha256_of_file(paths.mix)
    parts["scene stores"] = sha256_of_json(dict(scenes))
    parts["teacher features"] = sha256_of_json(dict(features))
    parts["code of student or training"] = code_hash("train")
    return parts


def fingerprint_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in words what differs between two fingerprints, as text, as their hashes do."""
    changes = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "not there"), new.get(name, "not there")
        if sha256_of_json(before) != sha256_of_json(after):
            changes.append(name if "." not in name else f"{name} ({before} -> {after})")
    return ", ".join(changes)


def read_deepspeed(path: Path) -> dict[str, Any]:
    """Return the DeepSpeed file of a recipe.

    Raises:
        ConfigError: the file holds another key than `_DeepSpeedFile`, or another value.
        DataError: the file is missing or malformed.
    """
    config = read_json(path)
    try:
        _DeepSpeedFile.model_validate(config)
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {'; '.join(problem_lines(error, _DeepSpeedFile))} (config/deepspeed/ has "
            "files that work; the section `train` sets the rest)"
        ) from error
    return config


def is_offloaded(config: Mapping[str, Any], part: str) -> bool:
    """Whether a DeepSpeed configuration keeps ``optimizer`` or ``param`` on the host."""
    offload = config["zero_optimization"].get(f"offload_{part}")
    return offload is not None and offload.get("device") == "cpu"
