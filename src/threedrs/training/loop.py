"""A training run from its resolved configuration to the exported model.

Read top down: `train` locks the run, `_train` builds or resumes it and exports it at the end, and
`_Training` takes the optimizer steps in between. What a step does is in `threedrs.training.step`,
and what the run is in `threedrs.training.run_setup`.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from threedrs.config.schema import SupervisionSettings
from threedrs.distributed.gpus import translate_oom
from threedrs.distributed.ranks import (
    AgreedError,
    StopRequest,
    any_rank,
    broadcast_decision,
    peak_memory,
)
from threedrs.models.packing import Pack
from threedrs.training.checkpoints import (
    Progress,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from threedrs.training.engine import build_engine
from threedrs.training.export import export_run, is_exported
from threedrs.training.pack_reader import PackReader, explain_lost_loader, load_packs
from threedrs.training.run_log import RunLog, has_row, say
from threedrs.training.run_setup import Run, prepare, start_student
from threedrs.training.sampler import Batch, PackPlan, micro_steps, sample_count
from threedrs.training.step import NonFiniteError, step_row, train_step
from threedrs.workflow.locks import exclusive

if TYPE_CHECKING:
    from threedrs.training.evaluation import Evaluation

# What helps where a GPU has no memory for what a run always holds, and for what a step takes.
SPREAD = (
    "stop what else runs on it, take more GPUs with config/deepspeed/zero3.json, or use "
    "config/deepspeed/zero3_offload.json"
)
SMALLER = (
    "lower train.pack, set execution.gradient_checkpointing, or use "
    "config/deepspeed/zero3_offload.json"
)


class StoppedError(AgreedError):
    """The run was asked to stop; its state is saved."""


def train(config: Mapping[str, Any], stop: StopRequest) -> None:
    """Train the resolved run ``config``, from its newest checkpoint on, and export the model.

    ``stop`` is asked at each optimizer step and each scene of an evaluation, on every rank.

    Raises:
        ThreedrsError: an input cannot be used; another process trains this run; a loss or gradient
            is not finite; the disk or a GPU's memory is full; or the run was asked to stop. In the
            last three cases the same command goes on.
    """
    run = prepare(config, stop)
    # Only now, as nothing was written so far; a second start of the same run ends here.
    with contextlib.ExitStack() as stack:
        # The first rank holds the lock for all of them, until the export is written.
        broadcast_decision(run.ranks, lambda: stack.enter_context(exclusive(run.paths.checkpoints)))
        _train(run)


def _train(run: Run) -> None:
    ranks, settings, config = run.ranks, run.settings, run.config
    if broadcast_decision(ranks, lambda: is_exported(run)):
        if ranks.first:
            say(f"{run.paths.out} is complete; nothing to do")
        return
    if ranks.first:
        # train.json says that a run is complete: what an earlier recipe left must not say so now.
        (run.paths.out / "train.json").unlink(missing_ok=True)
    # One rank looks and moves aside what is damaged or stale; all go on from what it found.
    checkpoint = broadcast_decision(
        ranks, lambda: find_checkpoint(run.paths.checkpoints, run.parts, say)
    )
    with translate_oom("student and optimizer", SPREAD):
        # A checkpoint holds only what is trained; so the student is loaded as for a fresh start.
        student, tokenizer = start_student(run)
        supervision = SupervisionSettings(**config["supervision"])
        engine = build_engine(student, settings, supervision, ranks, run.scheduled_steps)
        progress = Progress()
        if checkpoint is not None:
            progress = load_checkpoint(engine, checkpoint, ranks)
            if ranks.first:
                say(f"goes on from {checkpoint.name}, {progress.samples} samples seen")
    if ranks.first and run.teacher_frames is not None:
        for line in run.teacher_frames.notes():
            say(line)
    reader = PackReader(
        records=run.records,
        scenes=run.paths.scenes,
        features=run.paths.features,
        boxes=config["boxes"]["train"],
        tokenizer=tokenizer,
        label_chat_tokens=settings.label_chat_tokens,
        max_length=settings.max_length,
        grid=student.family.grid,
        other_frames=config["teacher"].get("other_frames", "by_frame"),
    )
    evaluation = None
    if settings.eval_every:  # its metrics are the only part of training that needs their packages
        from threedrs.training.evaluation import Evaluation

        evaluation = Evaluation(config, student, tokenizer)
    progress = _Training(run, engine, reader, progress, evaluation).run_steps()
    # Behind the last checkpoint, so a run that fails here comes back to this line at once.
    with translate_oom(f"export after step {progress.step}, which is saved", SPREAD):
        export_run(engine, student, tokenizer, run, progress)


@dataclasses.dataclass(eq=False)
class _Training:
    """The optimizer steps of a run, which ``progress`` counts.

    Every rank takes the same steps and calls every method; the first one alone writes the log.
    """

    run: Run
    engine: Any
    reader: PackReader
    progress: Progress
    evaluation: "Evaluation | None"
    log: RunLog | None = None

    def run_steps(self) -> Progress:
        """Run the optimizer steps that are left; return where the run stands then."""
        run, first_step = self.run, self.progress.step
        logged = broadcast_decision(run.ranks, lambda: has_row(run.paths.out, first_step))
        if first_step == run.total_steps and logged:
            return self.progress
        if run.ranks.first:
            self.log = RunLog(run, first_step)
        failed = True  # until the last step is done
        try:
            if self.progress.row is not None and not logged:
                # The run ended between a checkpoint and its row, as in an evaluation: made up for.
                self._report(self._due_evaluation())
            self._run_batches([*itertools.chain(*run.batches_after(first_step))])
            failed = False
        finally:
            if self.log is not None:
                self.log.close(failed=failed)
        return self.progress

    def _run_batches(self, batches: Sequence[Batch]) -> None:
        ranks = self.run.ranks
        own = [micro_steps(batch, ranks.rank, ranks.count) for batch in batches]
        plans = [plan for batch_plans in own for plan in batch_plans]
        # One loader for the whole run: it reads ahead over the borders of batches and epochs, and
        # what its processes keep of a room serves all epochs.
        packs = load_packs(self.reader, plans, self.run.settings.workers)
        with explain_lost_loader(), contextlib.closing(packs):
            for batch, batch_plans in zip(batches, own, strict=True):
                self._run_step(batch, batch_plans, packs)

    def _run_step(self, batch: Batch, plans: Sequence[PackPlan], packs: Iterator[Pack]) -> None:
        """Run one optimizer step, log it, save and evaluate where they are due."""
        run, before, samples = self.run, self.progress, sample_count(batch)
        step = before.step + 1
        # The rate before the step: the engine moves it on to the next one's.
        started, rate = time.perf_counter(), self.engine.get_lr()[-1]
        try:
            # Packs are drawn one by one as the step takes them, so one at a time is on the GPU.
            with translate_oom(f"step {step}", SMALLER):
                outcome = train_step(
                    self.engine,
                    ((next(packs), plan.weight) for plan in plans),
                    micro_step_count=len(plans),
                    samples=samples,
                    ranks=run.ranks,
                    interrupted=lambda: run.stop.name is not None,
                )
        except NonFiniteError as error:
            # The weights are those of the step before. Saved, they let the user look for the cause.
            self._save()
            raise NonFiniteError(
                f"step {step}: {error}; the state before it is saved in {run.paths.checkpoints}"
            ) from error
        seconds = time.perf_counter() - started
        self.progress = Progress(
            step=step,
            samples=before.samples + samples,
            tokens=before.tokens + int(outcome.sums["tokens"]),
            flops=before.flops + outcome.sums["flops"],
            seconds=before.seconds + seconds,
            rank_seconds=before.rank_seconds + seconds * run.ranks.count,
            peak_memory_gib=before.peak_memory_gib,
            row=step_row(
                step,
                before.samples + samples,
                outcome.sums,
                rate=rate,
                grad_norm=outcome.grad_norm,
                speed=samples / seconds,
            ),
        )
        last, evaluation = step == run.total_steps, self._due_evaluation()
        # The row before the checkpoint: whoever goes on from the checkpoint cuts the log after it.
        if evaluation is None:
            self._report(None)
        if last or outcome.interrupted or step % run.settings.save_every == 0:
            self._save()
        if outcome.interrupted and not last:
            self._raise_stopped()
        if evaluation is not None:
            # After the checkpoint, so that an evaluation that fails or is stopped costs no step.
            self._report(evaluation)

    def _save(self) -> None:
        """Write the checkpoint of this step, unless it is there."""
        peak = max(self.progress.peak_memory_gib, peak_memory(self.run.ranks))
        self.progress = dataclasses.replace(self.progress, peak_memory_gib=peak)
        with translate_oom(f"checkpoint of step {self.progress.step}", SPREAD):
            save_checkpoint(
                self.engine,
                self.run.paths.checkpoints,
                self.progress,
                self.run.parts,
                keep=self.run.settings.keep,
                ranks=self.run.ranks,
            )

    def _due_evaluation(self) -> "Evaluation | None":
        """Return the evaluation if one belongs after this step."""
        step, every = self.progress.step, self.run.settings.eval_every
        due = every is not None and (step == self.run.total_steps or step % every == 0)
        return self.evaluation if due else None

    def _report(self, evaluation: "Evaluation | None") -> None:
        """Log this step, with the scores of ``evaluation``.

        Raises:
            StoppedError: the run was asked to stop before the scores were there.
        """
        run, step = self.run, self.progress.step
        row = dict(self.progress.row or {})
        if evaluation is not None:
            scores = evaluation.measure(lambda: any_rank(run.ranks, run.stop.name is not None))
            if scores is None:
                self._save()
                self._raise_stopped()
            row["eval"] = scores
        due = evaluation is not None or step == run.total_steps
        if self.log is not None and (due or step % run.settings.log_every == 0):
            self.log.write(row)

    def _raise_stopped(self) -> NoReturn:
        by, step = self.run.stop.name or "a signal", self.progress.step
        raise StoppedError(f"stopped by {by}, saved at step {step}; run the same command to go on")
