"""What a training run is before its first step: settings, records, ranks, fingerprint, its steps.

Nothing here is a function of how far the run has come. So a resumed run sets up the same, and finds
the batches that are left by planning them all again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from threedrs.distributed.ranks import (
    Ranks,
    StopRequest,
    broadcast_decision,
    least_memory,
    start_ranks,
)
from threedrs.errors import DataError, StoreError
from threedrs.io.files import sha256_of_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.lora.layers import add_lora
from threedrs.models.model_settings import ModelSettings
from threedrs.models.prompt import token_id
from threedrs.models.student import Student
from threedrs.scenes.store import SceneStore
from threedrs.tasks.record import COORD, GROUND, read_record_lines
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.known_teachers import NO_TEACHER, teacher_channels
from threedrs.teachers.teacher_frames import FrameCounts, TeacherFrames
from threedrs.training.engine import deepspeed_config, zero_init
from threedrs.training.full_pack import GIB, FullPack
from threedrs.training.pack_reader import RecordTable
from threedrs.training.recipe import RunPaths, TrainSettings, fingerprint
from threedrs.training.run_log import say
from threedrs.training.sampler import Batch, group_steps, plan_batches, plan_task_groups
from threedrs.training.wandb_logger import require_wandb


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run that does not change while it goes.

    ``parts`` is its fingerprint, ``teacher_frames`` is None without a teacher.
    """

    config: Mapping[str, Any]
    settings: TrainSettings
    paths: RunPaths
    records: RecordTable
    parts: dict[str, Any]
    teacher_frames: FrameCounts | None
    ranks: Ranks
    stop: StopRequest

    @property
    def config_hash(self) -> str:
        """The hash of the fingerprint."""
        return sha256_of_json(self.parts)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        # Each step asks for it, and counting a mix of 300,000 samples takes 11 ms.
        return self.settings.steps_per_epoch(Counter(self.records.groups))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._up_to_limit(self.settings.epochs * self.steps_per_epoch)

    @property
    def scheduled_steps(self) -> int:
        """Optimizer steps that the learning rate's schedule is laid out for."""
        # The published schedule does not know all that its order drops: it is laid out for 13,945
        # steps, of which 13,944 are taken.
        more = self.settings.batches == "task_groups"
        return self._up_to_limit(self.settings.epochs * self.steps_per_epoch + more)

    def _up_to_limit(self, steps: int) -> int:
        return min(steps, self.settings.max_steps or steps)

    def batches_after(self, step: int) -> Iterator[list[Batch]]:
        """Yield each epoch's batches that come after ``step`` optimizer steps."""
        while step < self.total_steps:
            # The order of an epoch follows from seed and epoch alone. So a resumed run plans the
            # whole epoch again and drops the batches that it has seen; no position is stored.
            epoch, position = divmod(step, self.steps_per_epoch)
            remaining = self._plan(epoch)[position : position + self.total_steps - step]
            step += len(remaining)
            yield remaining

    def _plan(self, epoch: int) -> list[Batch]:
        records, settings = self.records, self.settings
        sizes = {"pack": settings.pack, "global_batch": settings.global_batch}
        order = {"seed": settings.seed, "epoch": epoch}
        if settings.batches == "task_groups":
            return plan_task_groups(records.scenes, records.groups, records.words, **sizes, **order)
        return plan_batches(records.scenes, drop_last=settings.drop_last, **sizes, **order)


def _read_hashes(
    records: RecordTable, paths: RunPaths, section: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str], FrameCounts | None]:
    """Return the content hashes of the mix's scene stores and of their teacher features.

    Also returns which frames the features supervise; None without a teacher.

    Raises:
        StoreError: a store is missing or damaged, or a scene has no features.
        ConfigError: `teacher.other_frames` does not fit the features.
    """
    teacher = section["name"]
    scenes = sorted(set(records.scenes))
    stores = {scene: SceneStore.open(paths.scenes / f"{scene}.zarr") for scene in scenes}
    contents = {scene: store.content_hash() for scene, store in stores.items()}
    if teacher == NO_TEACHER:
        return contents, {}, None
    if lacking := [scene for scene in scenes if scene not in paths.features]:
        raise StoreError(
            f"{paths.mix}: {len(lacking)} of its scenes have no features of teacher {teacher} "
            f"({', '.join(lacking[:5])}); run `snakemake --cores all features`"
        )
    shards = {path: FeatureStore.open(path) for path in sorted(set(paths.features.values()))}
    entries = {scene: shards[paths.features[scene]].entry(scene) for scene in scenes}
    frames = {s: TeacherFrames.of_entry(stores[s].frame_ids, entries[s]) for s in scenes}
    counts = FrameCounts.count(list(frames.values()), section["other_frames"])
    hashes = {scene: entry["features_sha256"] for scene, entry in entries.items()}
    # What features of other frames supervise depends on the rule; of the others it does not.
    for scene in scenes:
        if frames[scene].teacher != frames[scene].student:
            hashes[scene] = f"{hashes[scene]} {counts.rule} {list(frames[scene].teacher)}"
    return contents, hashes, counts


def prepare(config: Mapping[str, Any], stop: StopRequest) -> Run:
    """Read a resolved run's settings and mix, join its ranks, and fingerprint it.

    Raises:
        ThreedrsError: a setting, the mix, or a store cannot be used.
    """
    settings = TrainSettings.from_config(config)
    paths = RunPaths(**config["paths"])
    ranks = start_ranks()
    # Before the mix and the stores are read, which may take minutes.
    broadcast_decision(ranks, lambda: settings.accumulation(ranks.count))
    broadcast_decision(ranks, lambda: require_wandb(settings.wandb))

    def describe() -> tuple[dict[str, Any], FrameCounts | None]:
        scenes, features, counts = _read_hashes(records, paths, config["teacher"])
        return fingerprint(config, scenes, features), counts

    records = RecordTable(read_record_lines(paths.mix))
    # Only the first rank reads the stores' hashes, and all get the same fingerprint.
    parts, teacher_frames = broadcast_decision(ranks, describe)
    run = Run(
        config=config,
        settings=settings,
        paths=paths,
        records=records,
        parts=parts,
        teacher_frames=teacher_frames,
        ranks=ranks,
        stop=stop,
    )
    if settings.batches == "task_groups":
        check_groups(records.groups, settings.global_batch, paths.mix)
    if run.total_steps < 1:
        raise DataError(
            f"{paths.mix}: {len(records)} samples make no batch of {settings.global_batch}; lower "
            "train.global_batch, or set train.batches to mixed and train.drop_last to false"
        )
    return run


def check_groups(groups: Sequence[str], global_batch: int, mix: Path) -> None:
    """Raise DataError for a kind of sample that the run would never train on."""
    for name, count in Counter(groups).items():
        if group_steps(count, global_batch):
            continue
        raise DataError(
            f"{mix}: its {count} samples of the task group {name} give no step of {global_batch}, "
            "as the last one of each group is dropped; lower train.global_batch, or set "
            "train.batches to mixed"
        )


def start_student(run: Run) -> tuple[Student, Any]:
    """Return the student to train, as the recipe starts it, and its tokenizer."""
    settings, config = run.settings, run.config
    # All ranks alike: what a checkpoint lacks, such as the heads, starts from these random numbers.
    torch.manual_seed(settings.seed)
    spread = zero_init(settings, run.ranks.count)
    student, tokenizer = load_student(
        ModelSettings.from_config(config),
        teacher_channels=teacher_channels(config["teacher"]["name"], run.paths.features.values()),
        zero_init=spread,
    )
    if spread is None:
        # ZeRO-3's spread parameters are in the run's precision from the start. Whole ones are cast
        # here: DeepSpeed casts to bfloat16 only, and after LoRA has made buffers that stay behind.
        student.to(getattr(torch, settings.precision))
    if settings.lora is not None:
        tokens = [token_id(tokenizer, token) for token in (GROUND, COORD)]
        add_lora(student, settings.lora, tokens, seed=settings.seed)
    if settings.gradient_checkpointing:
        frames = config["frames"]["count"]
        student.gradient_checkpointing_enable(kept_layers(student, settings, frames, run.ranks))
    return student.train(), tokenizer


def kept_layers(student: Student, settings: TrainSettings, frames: int, ranks: Ranks) -> int:
    """Return how many layers keep their activations, on all ranks the same number.

    ``frames`` are those of a scene.
    """
    if settings.kept_layers != "auto":
        return int(settings.kept_layers)
    memory = least_memory(ranks)
    if memory is None:
        return 0
    deepspeed = deepspeed_config(settings, ranks.count)
    pack = FullPack(student=student, settings=settings, frames=frames)
    pack = pack.fitted(deepspeed, ranks.count, memory)
    planned = sum(pack.memory(deepspeed, ranks.count).values())
    if ranks.first:
        say(
            f"keeps the activations of {pack.kept_layers} of {pack.layers} layers: "
            f"{planned / GIB:.0f} of {memory / GIB:.0f} GiB"
        )
    return pack.kept_layers or 0
