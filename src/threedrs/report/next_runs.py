"""What to run next for a verdict: more rooms, or more seeds as lines of a configuration."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from threedrs.evaluation.aggregate import recipe
from threedrs.metrics.setting_difference import fewest_rooms
from threedrs.report.verdict import Verdict, is_checkpoint
from threedrs.tasks.registry import find_task


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """What helps next; both parts empty where nothing is missing or nothing would help."""

    sentences: tuple[str, ...] = ()
    lines: str = ""  # of a configuration: rooms, runs and controls to add


def next_runs(summary: Mapping[str, Any], judged: Sequence[Verdict]) -> NextRuns:
    """Return what to run next, of the settings that are trained here."""
    groups, settings = summary["groups"], summary["comparison"]
    trained = [group for group in groups if not is_checkpoint(summary, group)]
    # A checkpoint has no other seeds, so with one as the baseline no training brings a verdict.
    if len(trained) < 2 or trained[0] is not groups[0]:
        return NextRuns()
    names = {group["name"] for group in trained}
    seeded = [verdict for verdict in judged if verdict.name in names and verdict.lines]
    lines = [line for verdict in seeded for line in verdict.lines]
    compared = [line.compared for line in lines]
    # All of them are tested once every setting has its seeds.
    level = settings["level"] / max(1, len(compared))
    wanted = dict.fromkeys(names, settings["fewest_seeds"])
    sentences, added = [], []
    alike = (line for line in lines if line.artefact or "both score 0" in line.silence)
    if titles := ", ".join(dict.fromkeys(line.column.group for line in alike)):
        sentences.append(
            f"On {titles} most answers of a setting are alike, empty or all wrong, so no "
            "difference there says anything of the method. These models must first learn to "
            "answer: train longer (train.epochs, or train.max_steps where it is set)."
        )
    # More seeds or rooms of models that give one answer would measure that answer.
    if all(line.silence or line.artefact for line in lines):
        wanted = {}
    elif all(one["smallest_p"] >= level for one in compared):
        where, generated = _more_rooms(summary, fewest_rooms(level))
        added += [f"data: {{demo: {{scenes: {generated}}}}}"] if generated else []
        needs = _needed_rooms(compared, level, settings["fewest_seeds"])
        sentences.append(f"{needs} {where}")
    elif any(verdict.kind == "not shown" for verdict in seeded):
        # How many follows from the size that one looks for, not from the size that was seen.
        sentences.append(
            "Where no difference is shown, more seeds of both settings find smaller ones. threedrs "
            "plan says how many a difference of 10, 5 or 2 points takes. Where the rooms make the "
            f"larger part of the interval, more rooms help. {_more_rooms(summary)[0]}"
        )
    runs = _missing_seeds(summary, trained, wanted)
    if runs:
        sides = " and ".join(
            f"{group['runs'][0]} to {wanted[group['name']]}"
            for group in trained
            if wanted[group["name"]] > len(group["runs"])
        )
        sentences.append(
            f"The runs below bring {sides} trainings. From {settings['fewest_seeds']} of each "
            "setting on there are verdicts; threedrs plan says how large a difference so few find."
        )
    if any(not find_task(line.column.benchmark).grounding for line in lines) and not any(
        group.get("looking") for group in trained
    ):
        sentences.append(
            "How much of the answers in words comes from the images is not known. eval.controls "
            "asks the same models without them."
        )
        added.append("eval: {controls: [text_only]}")
    return NextRuns(sentences=tuple(sentences), lines="\n".join([*added, *runs]))


def _needed_rooms(compared: Sequence[Mapping[str, Any]], level: float, seeds: int) -> str:
    """Return how many rooms, and trainings of a setting, a verdict takes."""
    rooms = max(one["scenes"] for one in compared)
    few = "1 room is" if rooms == 1 else f"{rooms} rooms are"
    return (
        f"{few} too few for a verdict on {len(compared)} metrics: it takes {fewest_rooms(level)} "
        f"rooms that the questions are about, and {seeds} trainings of each setting."
    )


def _more_rooms(summary: Mapping[str, Any], evaluated: int = 0) -> tuple[str, int]:
    """Return where more rooms come from, and how many to generate so that ``evaluated`` are.

    The number is 0 where the workflow generates none, or part of the questions was asked alone.
    """
    runs = [*summary["runs"].values()]
    results = [result for run in runs for result in run.get("benchmarks", {}).values()]
    if any(result.get("limit") for result in results):
        return "Raise eval.limit, or leave it out.", 0
    if not (runs[0].get("config") or {}).get("data", {}).get("demo"):
        return "Add scans of the evaluation splits.", 0
    if not evaluated:
        return "Raise data.demo.scenes: three of seven generated rooms are evaluated.", 0
    generated = math.ceil(evaluated * 7 / 3)  # three of seven, as said
    where = f"The lines below raise data.demo.scenes to {generated}, of which three of seven are "
    return f"{where}evaluated. All runs are then trained again, on more rooms.", generated


def _missing_seeds(
    summary: Mapping[str, Any], trained: Sequence[Mapping[str, Any]], wanted: Mapping[str, int]
) -> list[str]:
    """Return the runs that settings lack of those wanted, as lines of a configuration."""
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
        for _ in range(wanted.get(group["name"], 0) - len(group["runs"])):
            seed += 1
            while f"{run}-seed{seed}" in taken:
                seed += 1
            lines.append(f"  {run}-seed{seed}: {{extends: {quoted}, train: {{seed: {seed}}}}}")
    return ["runs:", *lines] if lines else []
