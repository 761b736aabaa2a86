"""What a training run is: its settings, its files, and the fingerprint that a resume compares.

The fingerprint names everything that shapes the trained weights, part by part, so that a run that
starts afresh can say what has changed. What only moves files, says how the run is carried out
(`OPERATION`, the number of ranks) or is evaluated on the way is no part of it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError, DataError, raise_all
from threedrs.io.files import read_json, sha256_of_file, sha256_of_json
from threedrs.models.checkpoint.folder import weights_hash
from threedrs.models.settings import LoraSettings
from threedrs.training.wandb_logger import WandbSettings
from threedrs.workflow.code_hash import code_hash

TUNABLE = ("vision_tower", "projector", "language_model", "heads")
PRECISIONS = ("float32", "bfloat16")
# Keys of `train` that only say how a run is carried out: no result is stale after a change.
OPERATION = (
    "deepspeed",
    "gradient_checkpointing",
    "keep",
    "kept_layers",
    "log_every",
    "max_length",
    "save_every",
    "wandb",
    "workers",
)
# Keys of `train` that leave the trained weights as they are; of the mix its content counts.
OPERATIONAL = (*OPERATION, "eval_every", "eval_samples", "mix")
# Sections whose every key shapes the weights.
SHAPING = ("frames", "geometry", "boxes", "supervision", "model")


def _require(condition: bool, key: str, value: object, expected: str) -> Iterator[ConfigError]:
    if not condition:
        yield ConfigError(f"train.{key}: {value!r} is not valid; expected {expected}")


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


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The section ``train`` of the configuration; config/config.yaml explains each key."""

    seed: int
    mix: str
    epochs: int
    max_steps: int | None
    global_batch: int
    pack: int
    drop_last: bool
    learning_rate: float
    learning_rate_vision_tower: float
    weight_decay: float
    warmup_fraction: float
    gradient_clip: float
    precision: str
    deepspeed: Path
    gradient_checkpointing: bool
    kept_layers: int
    tunable: tuple[str, ...]
    lora: LoraSettings | None
    label_chat_tokens: bool
    max_length: int
    save_every: int
    keep: int
    log_every: int
    eval_every: int | None
    eval_samples: int
    workers: int
    wandb: WandbSettings | None

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "TrainSettings":
        """Return the settings of a resolved ``train`` section.

        Raises:
            ConfigError: a key is missing or unknown, or a value is out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in section]
        unknown = [key for key in section if key not in names]
        if missing or unknown:
            raise ConfigError(
                f"train: missing keys {missing}, unknown keys {unknown}; valid: {', '.join(names)}"
            )
        values = dict(section)
        values["deepspeed"] = Path(values["deepspeed"])
        values["tunable"] = tuple(values["tunable"])
        if values["lora"] is not None:
            values["lora"] = LoraSettings.from_config(values["lora"])
        if values["wandb"] is not None:
            values["wandb"] = WandbSettings.from_config(values["wandb"])
        return cls(**values)

    def __post_init__(self) -> None:
        raise_all(self._problems())

    def _problems(self) -> Iterator[ConfigError]:
        for key in ("epochs", "global_batch", "pack", "max_length", "save_every", "keep"):
            yield from _require(
                getattr(self, key) >= 1, key, getattr(self, key), "a number from 1 on"
            )
        yield from _require(self.seed >= 0, "seed", self.seed, "a number from 0 on")
        yield from _require(self.log_every >= 1, "log_every", self.log_every, "a number from 1 on")
        yield from _require(self.workers >= 0, "workers", self.workers, "a number from 0 on")
        yield from _require(
            self.kept_layers >= 0, "kept_layers", self.kept_layers, "a number from 0 on"
        )
        for key in ("max_steps", "eval_every"):
            value = getattr(self, key)
            yield from _require(
                value is None or value >= 1, key, value, "null or a number from 1 on"
            )
        yield from _require(
            self.eval_samples >= 1, "eval_samples", self.eval_samples, "a number from 1 on"
        )
        for key in ("learning_rate", "learning_rate_vision_tower", "gradient_clip"):
            yield from _require(getattr(self, key) > 0, key, getattr(self, key), "a number above 0")
        yield from _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        yield from _require(
            0 <= self.warmup_fraction <= 1, "warmup_fraction", self.warmup_fraction, "0 to 1"
        )
        yield from _require(
            self.precision in PRECISIONS, "precision", self.precision, " or ".join(PRECISIONS)
        )
        yield from _require(
            len(self.tunable) > 0 and set(self.tunable) <= set(TUNABLE),
            "tunable",
            list(self.tunable),
            f"one or more of {', '.join(TUNABLE)}",
        )
        if self.lora is not None and "language_model" not in self.tunable:
            yield ConfigError(
                "train.lora: adapters train the language model, which train.tunable leaves out; "
                "add language_model there (its own weights stay frozen) or set train.lora to null"
            )

    def accumulation(self, ranks: int) -> int:
        """Return the micro-steps of an optimizer step, see the function `accumulation`."""
        return accumulation(self.global_batch, self.pack, ranks)


@dataclass(frozen=True, kw_only=True)
class RunPaths:
    """A run's files, relative to the working directory."""

    mix: Path
    scenes: Path
    features: Mapping[str, Path]
    out: Path

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "RunPaths":
        """Return the paths of the resolved run's ``paths`` section."""
        return cls(
            mix=Path(section["mix"]),
            scenes=Path(section["scenes"]),
            features={scene: Path(path) for scene, path in section["features"].items()},
            out=Path(section["out"]),
        )

    @property
    def checkpoints(self) -> Path:
        """The folder of the training checkpoints."""
        return self.out / "checkpoints"


def split_operation(resolved: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a resolved run without the keys of `OPERATION`, and these keys."""
    train = resolved["train"]
    recipe = {key: value for key, value in train.items() if key not in OPERATION}
    return {**resolved, "train": recipe}, {key: train[key] for key in OPERATION if key in train}


def read_run(path: Path) -> dict[str, Any]:
    """Return the resolved run in ``path``, whole.

    Its ``paths.operation``, if any, names the JSON file that holds the keys of `OPERATION`: the
    workflow writes there, whenever it starts, what the configuration says then.

    Raises:
        DataError: a file is missing or malformed.
    """
    config = read_json(path)
    file = config["paths"].get("operation")
    if file is None:
        return config
    operation = read_json(Path(file)) if Path(file).exists() else None
    if not isinstance(operation, dict):
        raise DataError(
            f"{file}: does not hold the run's operation; `snakemake --cores 1 --force {path}` "
            "writes it"
        )
    return {**config, "train": {**config["train"], **operation}}


def fingerprint(
    config: Mapping[str, Any], scenes: Mapping[str, str], features: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that shapes the trained weights, as a flat mapping from name to value.

    Args:
        config: the resolved run.
        scenes: content hash of each scene store that the mix uses.
        features: hash of the teacher's features of each of these scenes.
    """
    paths = RunPaths.from_config(config["paths"])
    pretrained = config["model"]["path"]
    parts: dict[str, Any] = {
        f"{section}.{key}": value
        for section in SHAPING
        for key, value in config.get(section, {}).items()
    }
    parts |= {f"train.{k}": v for k, v in config["train"].items() if k not in OPERATIONAL}
    lora = config["train"]["lora"]
    parts["train.lora"] = None if lora is None else LoraSettings.from_config(lora).to_json()
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
            hashed = "." not in name
            changes.append(name if hashed else f"{name} ({before} -> {after})")
    return ", ".join(changes)
