"""The last lines of a run of the workflow: what was made, the scores, and what failed."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threedrs.errors import DataError, counted
from threedrs.evaluation.trivial_answers import mean_of
from threedrs.io.files import read_json
from threedrs.report.verdict import statement, verdicts
from threedrs.report.verdict_line import plain
from threedrs.tasks.registry import headline_columns
from threedrs.workflow.failure_causes import CLOCKS_APART
from threedrs.workflow.run_events import STAGES, Cause, RunState, duration, stage_of

MOST = 3  # warnings that are shown again
MOST_SETTINGS = 6  # whose scores are shown
PAGE = "report/index.html"
SCENE_PAGE = "scenes/report.html"  # where a target needs no report


def end_of_run(state: RunState, reused: Iterable[str], results: Path) -> list[tuple[str, str]]:
    """Return (label, text) for each line that a run ends with; causes of failures come last.

    ``reused`` has the rules of jobs that had nothing to do, one entry a job.
    """
    rules = [*reused]
    up_to_date = Counter(stage_of(rule) for rule in rules)
    up_to_date.pop("other", None)  # targets
    # What is said after the last job, as by a plugin that finds no accounting, fails no job.
    broken = bool(state.errors) and state.done != state.planned
    failed = broken or any(not cause.wanted for cause in state.causes.values())
    lines = [("", head(state, up_to_date.total(), failed=failed))]
    if not state.planned and not state.nothing_to_do:  # it did not come to any job
        # Where a check ends the process before that, its own line is the last one, and all.
        return [("", error) for error in state.errors] or lines * state.stopped
    took = {stage: state.took(stage, time.time()) for stage in (*state.worked, *state.working)}
    if made := [f"{stage} {duration(took[stage])}" for stage in STAGES if stage in took]:
        lines.append(("stages", ", ".join(made)))
        kept = [f"{stage} {up_to_date[stage]}" for stage in STAGES if stage in up_to_date]
        lines.append(("reused", ", ".join(kept) or "nothing"))
    whole = not failed and not state.stopped
    has_page = whole and "build_report" in (*rules, *state.done)
    lines += scores(results) if has_page else []
    once = dict[str, str]()
    for warning in state.warnings:  # one scene, or shard, stands for all of which the same is said
        once.setdefault(re.sub(r"\d+", "", warning), warning.removeprefix("threedrs: "))
    shown = [*once.values()][:MOST]
    lines += [("warning", warning) for warning in shown]
    if more := len(set(state.warnings)) - len(shown):
        lines.append(("warning", f"and {more} more, in results/logs"))
    if whole and "answer_questions" in state.done:
        lines += answers(results, state.started)
    if has_page:
        lines.append(("page", str((results / PAGE).absolute())))
    elif whole and "scene_report" in (*rules, *state.done):
        lines.append(("page", str((results / SCENE_PAGE).absolute())))
    return lines + [("", line) for line in failures(state)]


def head(state: RunState, reused: int, *, failed: bool) -> str:
    """Return the sentence that says how a run ended."""
    took = duration(time.time() - state.started)
    verb = "is" if state.planned.total() == 1 else "are"
    done = f"{state.done.total()} of {counted(state.planned.total(), 'job')} {verb} done"
    if state.nothing_to_do:
        all_jobs = "1 job" if reused == 1 else f"all {reused} jobs"
        return f"Nothing to be done: the results of {all_jobs} are up to date"
    if failed:
        return f"Failed after {took}: {done}"
    if state.stopped:
        return f"Stopped after {took}: {done}, and the same command goes on{state.waits}"
    return f"Done in {took}: {counted(state.done.total(), 'job')}"


def answers(results: Path, since: float) -> list[tuple[str, str]]:
    """Return a line for each file of answers about own captures that was written since then."""
    files = sorted(results.glob("eval/*/*/answers.jsonl"))
    # Those of captures that are no longer configured may lie there, too.
    made = [file for file in files if file.stat().st_mtime >= since - CLOCKS_APART]
    return [("answers", str(file.absolute())) for file in made]


def scores(results: Path) -> list[tuple[str, str]]:
    """Return a line of scores for each setting, and what the report says of them."""
    try:
        summary: Mapping[str, Any] = read_json(results / "report/summary.json")
    except DataError:
        return []
    columns = headline_columns(summary["benchmarks"])
    first = {column.benchmark: column for column in reversed(columns)}
    lines = []
    for group in summary["groups"][:MOST_SETTINGS]:
        parts = []
        for column in sorted(first.values(), key=columns.index):
            value = mean_of(group, column.benchmark, column.metric)
            shown = "-" if value is None else f"{value:.1f}"
            parts.append(f"{column.full_title} {shown}")
        lines.append(("scores", f"{group['name']}: {', '.join(parts)}"))
    if (more := len(summary["groups"]) - MOST_SETTINGS) > 0:
        lines.append(("scores", f"and {counted(more, 'more setting')}, on the page"))
    baseline = summary["groups"][0]["name"]
    said = statement(verdicts(summary, columns), baseline, summary["comparison"])
    return [*lines, *(("answer", plain(sentence)) for sentence in said)]


def failures(state: RunState) -> list[str]:
    """Return a line for each cause of a failure, and for each stop that was asked for."""
    by_text: dict[str, list[Cause]] = {}
    for cause in state.causes.values():
        by_text.setdefault(cause.text, []).append(cause)
    lines = []
    for first, *more in by_text.values():
        kind = "stopped" if first.wanted else "error"
        others = f" and {len(more)} more" if more else ""
        remedy = f"; {first.remedy}" if first.remedy else ""
        lines.append(f"threedrs: {kind}: {first.job}{others}: {first}{remedy}")
    stops_last = sorted(lines, key=lambda line: line.startswith("threedrs: error"))
    return [*stops_last, *dict.fromkeys(state.errors)]
