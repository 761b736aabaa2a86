"""What to run next for a verdict: more rooms, or more seeds as lines of a configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import yaml

from threedrs.evaluation.aggregate import recipe
from threedrs.metrics.setting_difference import fewest_rooms, seeds_needed
from threedrs.report.verdict import Verdict, is_checkpoint
from threedrs.report.verdict_line import Line


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """What helps next; both parts empty where nothing is missing or nothing would help."""

    sentences: tuple[str, ...] = ()
    more_seeds: str = ""  # runs to add, as lines of a configuration


def next_runs(summary: Mapping[str, Any], judged: Sequence[Verdict]) -> NextRuns:
    """Return what to run next, of the settings that are trained here."""
    groups, settings = summary["groups"], summary["comparison"]
    trained = [group for group in groups if not is_checkpoint(summary, group)]
    # A checkpoint has no other seeds, so with one as the baseline no training brings a verdict.
    if len(trained) < 2 or trained[0] is not groups[0]:
        return NextRuns()
    names = {group["name"] for group in trained}
    seeded = [verdict for verdict in judged if verdict.name in names and verdict.lines]
    compared = [line.compared for verdict in seeded for line in verdict.lines]
    # All of them are tested once every setting has its seeds.
    level = settings["level"] / max(1, len(compared))
    if compared and all(one["smallest_p"] >= level for one in compared):
        rooms = max(one["scenes"] for one in compared)
        few = "1 room is" if rooms == 1 else f"{rooms} rooms are"
        return NextRuns(
            sentences=(
                f"{few} too few for a verdict on {len(compared)} metrics, however many trainings "
                f"there are: it takes {fewest_rooms(level)} rooms that the questions are about. "
                "Add scans of the evaluation splits, or raise eval.limit where it is set.",
            )
        )
    if lines := _missing_seeds(summary, trained):
        return NextRuns(more_seeds=lines)
    return NextRuns(
        sentences=tuple(
            _seeds_for(summary, verdict, level) for verdict in seeded if verdict.kind == "not shown"
        )
    )


def _seeds_for(summary: Mapping[str, Any], verdict: Verdict, level: float) -> str:
    """Return how many seeds would show the difference that a setting comes nearest to showing."""
    line = min(verdict.lines, key=lambda line: line.compared["p"])
    size, seeds = abs(line.compared["difference"]), min(line.compared["seeds"])
    metric = f"{line.column.group} {line.column.title}"
    side = "higher" if line.compared["difference"] > 0 else "lower"
    # A difference that prints as 0.0 is none that anyone would look for.
    if round(size, 1) == 0:
        return f"{verdict.name} comes nearest on {metric}, where it does not differ."
    needed = seeds_needed(size, _deviation(summary, verdict, line), level)
    if needed <= seeds:
        return (
            f"{verdict.name} comes nearest on {metric}, where it is {size:.1f} points {side}. Its "
            f"{seeds} seeds would do for a difference of that size, so more rooms help, or more "
            "seeds where these do not vary."
        )
    return (
        f"{verdict.name} comes nearest on {metric}, where it is {size:.1f} points {side}. If that "
        f"is the true difference, it takes about {needed:,} trainings of each setting or more to "
        "show it, those that are there included. It is the nearest of several, so the true one may "
        "be smaller."
    )


def _deviation(summary: Mapping[str, Any], verdict: Verdict, line: Line) -> float:
    """Return the deviation of a metric over the seeds, of both settings together, points."""
    mine = next(group for group in summary["groups"] if group["name"] == verdict.name)
    sides = [
        group["metrics"][line.column.benchmark][line.column.metric]["std"]
        for group in (mine, summary["groups"][0])
    ]
    return hypot(*sides) / 2**0.5


def _missing_seeds(summary: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]) -> str:
    """Return the runs that every setting still needs, as lines of a configuration; "" if none."""
    taken = set(summary["runs"])
    lines, known = [], []
    for group in trained:
        run = min(group["runs"], key=len)
        config = summary["runs"][run].get("config")
        # Runs that repeat another setting and its seed would never become a setting with seeds.
        if config and recipe(config) in known:
            continue
        known.append(recipe(config) if config else None)
        # A name that YAML would read as a number, such as 123, is put in quotes.
        quoted = run if yaml.safe_load(run) == run else json.dumps(run)
        seed = max(group["seeds"], default=0)
        for _ in range(summary["comparison"]["fewest_seeds"] - len(group["runs"])):
            seed += 1
            while f"{run}-seed{seed}" in taken:
                seed += 1
            lines.append(f"  {run}-seed{seed}: {{extends: {quoted}, train: {{seed: {seed}}}}}")
    return "\n".join(["runs:", *lines]) if lines else ""
