"""A training run from its resolved configuration to the exported model.

Read top down: ``train`` prepares the run and resumes it, ``_run_steps`` is the loop itself.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from threedrs.distributed.training_ranks import (
    AgreedError,
    Ranks,
    agree,
    any_rank,
    peak_memory,
    start_ranks,
)
from threedrs.errors import DataError, StoreError
from threedrs.instructions.record import COORD, GROUND
from threedrs.io.files import sha256_of_json
from threedrs.models.checkpoint.load_save import load_student
from threedrs.models.lora.layers import add_lora
from threedrs.models.prompt import token_id
from threedrs.models.samples import Pack
from threedrs.models.settings import ModelSettings, SupervisionSettings
from threedrs.models.student import Student
from threedrs.scenes.store import SceneStore
from threedrs.teachers.registry import NO_TEACHER, teacher_channels
from threedrs.teachers.store import FeatureStore
from threedrs.training.checkpoints import (
    Progress,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from threedrs.training.data import PackReader, explain_lost_loader, load_packs
from threedrs.training.engine import NonFiniteError, build_engine, train_step, zero_init
from threedrs.training.export import RunSummary, export_run, is_exported
from threedrs.training.gpu_memory import SMALLER, SPREAD, fits_gpu
from threedrs.training.record_table import RecordTable
from threedrs.training.run_log import RunLog, has_row, say, step_row
from threedrs.training.sampler import (
    Batch,
    PackPlan,
    batches_per_epoch,
    micro_steps,
    plan_batches,
    sample_count,
)
from threedrs.training.settings import RunPaths, TrainSettings, fingerprint
from threedrs.training.stop import StopRequest
from threedrs.training.wandb_logger import Tracker, require_wandb
from threedrs.workflow.locks import claimed

if TYPE_CHECKING:
    from threedrs.training.evaluation import Evaluation


class StoppedError(AgreedError):
    """The run was asked to stop; its state is saved."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything about a run that does not change while it goes."""

    config: Mapping[str, Any]
    settings: TrainSettings
    paths: RunPaths
    records: RecordTable
    parts: dict[str, Any]
    ranks: Ranks
    stop: StopRequest

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        settings = self.settings
        return batches_per_epoch(len(self.records), settings.global_batch, settings.drop_last)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.settings.epochs * self.steps_per_epoch
        return min(steps, self.settings.max_steps or steps)

    def save(self, engine: Any, progress: Progress) -> Progress:
        """Write the checkpoint of ``progress``, unless it is there; return it with peak memory."""
        peak = max(progress.peak_memory_gib, peak_memory(self.ranks))
        progress = dataclasses.replace(progress, peak_memory_gib=peak)
        with fits_gpu(f"checkpoint of step {progress.step}", SPREAD):
            save_checkpoint(
                engine,
                self.paths.checkpoints,
                progress,
                self.parts,
                keep=self.settings.keep,
                ranks=self.ranks,
            )
        return progress

    def stopped(self, step: int) -> StoppedError:
        """Return the error that says that the run was stopped and is saved."""
        by = self.stop.name or "a signal"
        return StoppedError(f"stopped by {by}, saved at step {step}; run the same command to go on")


def _read_hashes(
    records: RecordTable, paths: RunPaths, teacher: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the content hashes of the mix's scene stores and of their teacher features.

    Raises:
        StoreError: a store is missing or damaged, or a scene has no features.
    """
    scenes = sorted(set(records.scenes))
    contents = {s: SceneStore.open(paths.scenes / f"{s}.zarr").content_hash() for s in scenes}
    if teacher == NO_TEACHER:
        return contents, {}
    lacking = [scene for scene in scenes if scene not in paths.features]
    if lacking:
        raise StoreError(
            f"{paths.mix}: {len(lacking)} of its scenes have no features of teacher {teacher} "
            f"({', '.join(lacking[:5])}); run `snakemake features`"
        )
    shards = {path: FeatureStore.open(path) for path in sorted(set(paths.features.values()))}
    entries = {scene: shards[paths.features[scene]].entry(scene) for scene in scenes}
    return contents, {scene: entry["features_sha256"] for scene, entry in entries.items()}


def prepare(config: Mapping[str, Any], stop: StopRequest) -> Run:
    """Read a resolved run's settings and mix, join its ranks, and fingerprint it.

    Raises:
        ThreedrsError: a setting, the mix, or a store cannot be used.
    """
    settings = TrainSettings.from_config(config["train"])
    paths = RunPaths.from_config(config["paths"])
    ranks = start_ranks()
    agree(ranks, lambda: settings.accumulation(ranks.count))
    agree(ranks, lambda: require_wandb(settings.wandb))

    def describe() -> dict[str, Any]:
        scenes, features = _read_hashes(records, paths, config["teacher"]["name"])
        return fingerprint(config, scenes, features)

    records = RecordTable.read(paths.mix)
    parts = agree(ranks, describe)
    run = Run(
        config=config,
        settings=settings,
        paths=paths,
        records=records,
        parts=parts,
        ranks=ranks,
        stop=stop,
    )
    if run.total_steps < 1:
        raise DataError(
            f"{paths.mix}: {len(records)} samples make no batch of {settings.global_batch}; lower "
            "train.global_batch or set train.drop_last to false"
        )
    return run


def train(config: Mapping[str, Any], stop: StopRequest) -> None:
    """Train, or go on training, the resolved run ``config`` and export the model.

    ``stop`` is asked at each optimizer step and each scene of an evaluation, on every rank.

    Raises:
        ThreedrsError: an input cannot be used; another process trains this run; a loss or gradient
            is not finite; the disk or a GPU's memory is full; or the run was asked to stop. In the
            last three cases the same command goes on.
    """
    run = prepare(config, stop)
    with contextlib.ExitStack() as stack:
        agree(run.ranks, lambda: stack.enter_context(claimed(run.paths.checkpoints)))
        _train(run)


def _train(run: Run) -> None:
    ranks, settings, config = run.ranks, run.settings, run.config
    if agree(ranks, lambda: is_exported(run.paths.out, run.parts)):
        if ranks.first:
            say(f"{run.paths.out} is complete; nothing to do")
        return
    if ranks.first:  # what an earlier recipe left must not pass for this run's
        (run.paths.out / "train.json").unlink(missing_ok=True)
    checkpoint = agree(
        ranks,
        lambda: find_checkpoint(run.paths.checkpoints, run.parts, say),
    )
    with fits_gpu("student and optimizer", SPREAD):
        student, tokenizer = _student(run)
        supervision = SupervisionSettings.from_config(config)
        engine = build_engine(student, settings, supervision, ranks, run.total_steps)
        progress = Progress()
        if checkpoint is not None:
            progress = load_checkpoint(engine, checkpoint, ranks)
            if ranks.first:
                say(f"goes on from {checkpoint.name}, {progress.samples} samples seen")
    reader = PackReader(
        records=run.records,
        scenes=run.paths.scenes,
        features=run.paths.features,
        boxes=config["boxes"]["train"],
        tokenizer=tokenizer,
        label_chat_tokens=settings.label_chat_tokens,
        max_length=settings.max_length,
        grid=student.family.grid,
    )
    evaluation = None
    if settings.eval_every:  # its metrics are the only part of training that needs their packages
        from threedrs.training.evaluation import Evaluation

        evaluation = Evaluation(config, student, tokenizer)
    progress = _run_steps(run, engine, reader, progress, evaluation)
    summary = RunSummary(config=config, parts=run.parts, progress=progress)
    with fits_gpu(f"export after step {progress.step}, which is saved", SPREAD):
        export_run(engine, student, tokenizer, summary, run.paths.out, ranks)


def _student(run: Run) -> tuple[Student, Any]:
    """Return the student to train, as the recipe starts it, and its tokenizer."""
    settings, config = run.settings, run.config
    torch.manual_seed(settings.seed)
    spread = zero_init(settings, run.ranks.count)
    student, tokenizer = load_student(
        ModelSettings.from_config(config),
        teacher_channels=teacher_channels(config["teacher"]["name"], run.paths.features.values()),
        zero_init=spread,
    )
    if spread is None:
        # Spread parameters are in the run's precision from the start. Whole ones DeepSpeed casts to
        # bfloat16 only, never to float32, and later, when LoRA has made buffers that stay behind.
        student.to(getattr(torch, settings.precision))
    if settings.lora is not None:
        tokens = [token_id(tokenizer, token) for token in (GROUND, COORD)]
        add_lora(student, settings.lora, tokens, seed=settings.seed)
    if settings.gradient_checkpointing:
        student.gradient_checkpointing_enable(settings.kept_layers)
    return student.train(), tokenizer


def _remaining_batches(run: Run, step: int) -> Iterator[list[Batch]]:
    """Yield each epoch's batches that come after ``step`` optimizer steps."""
    settings = run.settings
    while step < run.total_steps:
        epoch, position = divmod(step, run.steps_per_epoch)
        batches = plan_batches(
            run.records.scenes,
            pack=settings.pack,
            global_batch=settings.global_batch,
            drop_last=settings.drop_last,
            seed=settings.seed,
            epoch=epoch,
        )
        remaining = batches[position : position + run.total_steps - step]
        step += len(remaining)
        yield remaining


def _tracker(run: Run) -> Tracker | None:
    """Return where the run's rows also go, if the user wants that."""
    if run.settings.wandb is None:
        return None
    return Tracker(
        run.settings.wandb,
        run.paths.out,
        name=run.config["run"],
        config=run.config,
        config_hash=sha256_of_json(run.parts),
        warn=say,
    )


def _run_steps(
    run: Run, engine: Any, reader: PackReader, progress: Progress, evaluation: "Evaluation | None"
) -> Progress:
    """Run the optimizer steps that are left; return where the run stands then."""
    logged = agree(run.ranks, lambda: has_row(run.paths.out, progress.step))
    if progress.step == run.total_steps and logged:
        return progress
    log = None
    if run.ranks.first:
        log = RunLog(
            run.paths.out,
            first_step=progress.step,
            total_steps=run.total_steps,
            tracker=_tracker(run),
        )
    try:
        if progress.row is not None and not logged:  # as when the run ended in its evaluation
            _report(run, engine, progress, log, _due(run, progress.step, evaluation))
        for batches in _remaining_batches(run, progress.step):
            own = [micro_steps(batch, run.ranks.rank, run.ranks.count) for batch in batches]
            plans = [plan for batch_plans in own for plan in batch_plans]
            packs = load_packs(reader, plans, run.settings.workers)
            with explain_lost_loader(), contextlib.closing(packs):
                for batch, batch_plans in zip(batches, own, strict=True):
                    progress = _run_step(
                        run, engine, batch, batch_plans, packs, progress, log, evaluation
                    )
    except BaseException:
        if log is not None:
            log.close(failed=True)
        raise
    if log is not None:
        log.close(failed=False)
    return progress


def _run_step(
    run: Run,
    engine: Any,
    batch: Batch,
    plans: list[PackPlan],
    packs: Iterator[Pack],
    progress: Progress,
    log: RunLog | None,
    evaluation: "Evaluation | None",
) -> Progress:
    """Run one optimizer step, log it, save and evaluate where they are due."""
    settings, step, samples = run.settings, progress.step + 1, sample_count(batch)
    started, rate = time.perf_counter(), engine.get_lr()[-1]
    try:
        with fits_gpu(f"step {step}", SMALLER):
            outcome = train_step(
                engine,
                ((next(packs), plan.weight) for plan in plans),
                micro_step_count=len(plans),
                samples=samples,
                ranks=run.ranks,
                interrupted=lambda: run.stop.name is not None,
            )
    except NonFiniteError as error:
        run.save(engine, progress)
        raise NonFiniteError(
            f"step {step}: {error}; the state before it is saved in {run.paths.checkpoints}"
        ) from error
    seconds = time.perf_counter() - started
    progress = Progress(
        step=step,
        samples=progress.samples + samples,
        tokens=progress.tokens + int(outcome.sums["tokens"]),
        flops=progress.flops + outcome.sums["flops"],
        seconds=progress.seconds + seconds,
        rank_seconds=progress.rank_seconds + seconds * run.ranks.count,
        peak_memory_gib=progress.peak_memory_gib,
        row=step_row(
            step,
            progress.samples + samples,
            outcome.sums,
            rate=rate,
            grad_norm=outcome.grad_norm,
            speed=samples / seconds,
        ),
    )
    last, due = step == run.total_steps, _due(run, step, evaluation)
    if due is None:
        _report(run, engine, progress, log, None)
    if last or outcome.interrupted or step % settings.save_every == 0:
        progress = run.save(engine, progress)
    if outcome.interrupted and not last:
        raise run.stopped(step)
    if due is not None:  # after the checkpoint, so that an evaluation that fails costs no step
        _report(run, engine, progress, log, due)
    return progress


def _due(run: Run, step: int, evaluation: "Evaluation | None") -> "Evaluation | None":
    """Return the evaluation that belongs after ``step``."""
    if evaluation is None or not (step == run.total_steps or evaluation.is_due(step)):
        return None
    return evaluation


def _report(
    run: Run, engine: Any, progress: Progress, log: RunLog | None, evaluation: "Evaluation | None"
) -> None:
    """Log the last step, with the scores of ``evaluation``; all ranks call this.

    Raises:
        StoppedError: the run was asked to stop before the scores were there. The step is saved and
            has no row, so whoever goes on from it evaluates first.
    """
    row = dict(progress.row or {})
    if evaluation is not None:
        scores = evaluation.measure(lambda: any_rank(run.ranks, run.stop.name is not None))
        if scores is None:
            run.save(engine, progress)
            raise run.stopped(progress.step)
        row["eval"] = scores
    if log is not None:
        recorded = progress.step == run.total_steps or "eval" in row
        log.step(row, record=recorded or progress.step % run.settings.log_every == 0)
