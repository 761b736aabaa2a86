"""What a run of the workflow shows: one screen on a terminal, plain lines elsewhere, and its end.

A terminal has a line a stage and one a running job, drawn anew twice a second. A log or CI has a
line a finished stage, one a long job, and one now and then for what still runs. What jobs print
goes to their logs alone.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from threedrs.errors import counted
from threedrs.workflow.run_events import Job, RunState, duration, stage_of

REFRESH = 0.5  # seconds between two images on a terminal
LONG = 60.0  # seconds from which on a job has a line of its own in plain output
LAST_LOOK = 600.0  # seconds that a pause between two lines on a running job takes at most
MOST_JOBS = 10  # running jobs that a terminal shows
STYLES = {"done": "green", "runs": "bold", "failed": "red", "waits": "dim"}


def show_workflow(workflow: Any, names: Mapping[str, Sequence[str]]) -> None:
    """Let the logger plugin, if it is in use, know the workflow and the values of its wildcards."""
    for handler in workflow.logger_manager.get_log_handlers():
        if hasattr(handler, "know"):
            handler.know(workflow, names)


class RunScreen:
    """The screen of one run.

    Args:
        silent: whether only errors are said.
        brief: whether nothing is said before the end.
        colour: whether a terminal gets colours.
    """

    def __init__(self, *, silent: bool = False, brief: bool = False, colour: bool = True) -> None:
        self.silent, self.brief = silent, brief
        self.workflow: Any = None
        self.state = RunState()
        self.console = Console(stderr=True, no_color=None if colour else True, highlight=False)
        self.live: Live | None = None
        self._before: list[str] = []  # what was said by a call that runs no jobs
        self._begun = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._next_look: dict[int, float] = {}  # running job -> when it gets a line

    def take(self, record: logging.LogRecord) -> None:
        """Take a record, and show what it changes."""
        event = getattr(record, "event", None)
        with self._lock:
            job = self.state.running.get(getattr(record, "job_id", -1))
            line = self.state.take(record)
            if event == "workflow_started":
                self._begun = True
            elif not self._begun and record.levelno == logging.INFO:
                self._before.append(str(record.msg))
            if line is not None:
                self._say(line)
            if event == "run_info":
                self._start()
            elif job is not None and self.live is None:
                self._say_finished(job)

    def close(self) -> None:
        """End what is drawn, and say how the run ended."""
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join()
        if self.live is not None:
            self.live.stop()
        if not self._begun and not self.state.errors:
            self._print(self._before)
        elif not self.silent or self.state.errors or self.state.causes:
            # Not above: it reads summaries, whose modules take a second to import.
            from threedrs.workflow.run_summary import end_of_run, failures

            try:
                # Asked so, as a DAG without jobs to run counts as empty.
                dag = getattr(self.workflow, "dag", None)
                kept = [] if dag is None else [job for job in dag.jobs if not dag.needrun(job)]
                reused = [self.state.own(job.rule.name) for job in kept]
                lines = end_of_run(self.state, reused, Path("results"))
            except Exception as error:  # Snakemake drops it, and with it why jobs failed
                self._print([f"threedrs: how the run ended cannot be shown: {error!r}"])
                lines = [("", line) for line in (*self.state.warnings, *failures(self.state))]
            for label, text in lines:
                self._print_end(label, text)
        if self.state.stopped:
            # Snakemake goes on to say, with tracebacks, that it was interrupted.
            logging.getLogger("snakemake.logging").disabled = True

    def _start(self) -> None:
        if self.brief:
            return
        if self.console.is_terminal and os.environ.get("TERM") != "dumb":
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
            self.live.start()
        else:
            planned, stages = self.state.planned, filter("other".__ne__, self.state.stages())
            parts = [f"{stage} {self.state.count(planned, stage)}" for stage in stages]
            jobs = counted(planned.total(), "job")
            self._say(f"{jobs}: {', '.join(parts)}" if parts else jobs)
        self._ticker.start()

    # Plain lines

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.console.print(Text(line), soft_wrap=True)

    def _say(self, line: str) -> None:
        if not self.brief:
            clock = time.strftime("%H:%M:%S")
            self._print([f"{clock} {line}" if self._begun else line])

    def _print_end(self, label: str, text: str) -> None:
        if not label:
            self._print([text])
        elif self.console.is_terminal:
            row = Table.grid(padding=(0, 1))
            row.add_column(width=9, style="dim")
            row.add_column(overflow="fold")
            row.add_row(label, Text(text))
            self.console.print(row)
        else:
            self._print([f"{label:9} {text}"])

    def _say_finished(self, job: Job) -> None:
        stage, state = stage_of(job.rule), self.state
        seconds = job.seconds(time.time())
        if seconds >= LONG:
            self._say(f"{job.name}: done in {duration(seconds)}")
        if state.status(stage) == "done" and stage != "other":
            count = state.count(state.planned, stage)
            done, total = state.done.total(), state.planned.total()
            took = f"{counted(count, 'job')} in {duration(state.took(stage, time.time()))}"
            self._say(f"{stage}: done, {took} ({done} of {counted(total, 'job')})")

    def _say_running(self) -> None:
        now = time.time()
        for job in self.state.running.values():
            took = job.seconds(now)
            if now >= self._next_look.setdefault(job.number, job.started + LONG):
                said = f": {line}" if (line := self.state.said(job)) else ""
                self._say(f"{job.name}: running for {duration(took)}{said}")
                # The longer it runs, the longer a reader can wait for the next line.
                self._next_look[job.number] = now + min(2 * took, LAST_LOOK)

    # The screen

    def _tick(self) -> None:
        while not self._ended.wait(REFRESH):
            with self._lock:
                if self.live is None:
                    self._say_running()
                else:
                    self.live.update(self._image(), refresh=True)

    def _image(self) -> Group:
        """Return the stages and the running jobs, as wide and high as the terminal allows."""
        state, now = self.state, time.time()
        done, total = state.done.total(), state.planned.total()
        took = clock(now - state.started)
        said = f"{done} of {counted(total, 'job')} done in {took}"
        head = Text(said, no_wrap=True, overflow="ellipsis")
        stages = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "right", "right", "left"):
            stages.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        for stage in filter("other".__ne__, state.stages()):
            status = state.status(stage)
            stages.add_row(stage, status, *self._amounts(stage, status, now), style=STYLES[status])
        room = max(1, min(MOST_JOBS, self.console.height - len(state.stages()) - 4))
        running = [*state.running.values()]
        jobs = [
            Text(f"  {job.name}  {state.said(job)}".rstrip(), no_wrap=True, overflow="ellipsis")
            for job in running[:room]
        ]
        if len(running) > room:
            jobs.append(Text(f"  and {counted(len(running) - room, 'more job')}", style="dim"))
        return Group(head, stages, *jobs)

    def _amounts(self, stage: str, status: str, now: float) -> tuple[str, str, str]:
        """Return how many jobs of a stage are done, how long it took so far, and what is left."""
        state = self.state
        count = f"{state.count(state.done, stage)}/{state.count(state.planned, stage)}"
        took = state.took(stage, now)
        left = state.time_left(stage) if status == "runs" else None
        begun = clock(took) if took else ""
        return count, begun, f"~{clock(left)} left" if left is not None else ""


def clock(seconds: float) -> str:
    """Return a length of time in the narrow form that a stopwatch has, e.g. ``1:05:00``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
