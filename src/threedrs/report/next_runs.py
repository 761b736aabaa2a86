"""What to run next for a verdict: more rooms, or more seeds as lines of a configuration."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from typing import Any

import yaml

from threedrs.evaluation.aggregate import recipe
from threedrs.metrics.setting_difference import fewest_rooms, seeds_needed
from threedrs.report.verdict import Verdict, is_checkpoint
from threedrs.report.verdict_line import Line
from threedrs.tasks.registry import find_task

_MOST_TRAININGS = 30  # of a setting that are advised

# Rooms of the generated data: three of seven are of the evaluation splits, at most 40.
_DEMO_SHARE, _DEMO_MOST = 3 / 7, 40


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """What helps next; both parts empty where nothing is missing or nothing would help."""

    sentences: tuple[str, ...] = ()
    lines: str = ""  # of a configuration: runs, rooms and controls to add


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
    added: dict[str, Any] = {}
    sentences = _must_learn(summary, trained, lines, added)
    # More seeds or rooms of models that give one answer would measure that answer.
    if any(map(_can_differ, lines)):
        if all(one["smallest_p"] >= level for one in compared):
            rooms, needed = max(one["scenes"] for one in compared), fewest_rooms(level)
            few = "1 room is" if rooms == 1 else f"{rooms} rooms are"
            sentences.append(
                f"{few} too few for a verdict on {len(compared)} metrics: it takes {needed} rooms "
                f"that the questions are about, and {settings['fewest_seeds']} trainings of each "
                f"setting.{_more_rooms(summary, rooms, needed, added)}"
            )
        elif not _missing_seeds(summary, trained, wanted):
            for verdict in seeded:
                if verdict.kind == "not shown":
                    said = _seeds_for(summary, verdict, level, wanted, added)
                    sentences += [said] if said else []
    else:
        wanted = {}
    if runs := _missing_seeds(summary, trained, wanted):
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
        added.setdefault("eval", {})["controls"] = ["text_only"]
    dumped = [
        yaml.safe_dump({key: added[key]}, default_flow_style=None, sort_keys=False).strip()
        for key in added
    ]
    return NextRuns(
        sentences=tuple(sentences), lines="\n".join([*dumped, *([runs] if runs else [])])
    )


def _can_differ(line: Line) -> bool:
    return not line.silence and not line.artefact


def _must_learn(
    summary: Mapping[str, Any],
    trained: Sequence[Mapping[str, Any]],
    lines: Sequence[Line],
    added: dict[str, Any],
) -> list[str]:
    """Return that settings which answer most questions alike, or not at all, need more steps.

    The key that gives them twice as many is put into ``added``.
    """
    titles = dict.fromkeys(
        line.column.group for line in lines if line.artefact or "both score 0" in line.silence
    )
    if not titles:
        return []
    train = (summary["runs"][trained[0]["runs"][0]].get("config") or {}).get("train", {})
    key = "max_steps" if train.get("max_steps") else "epochs"
    longer = f"train.{key}"
    if train.get(key):
        added["train"] = {key: 2 * train[key]}
        longer += f", {train[key]} now; the lines below double it, and all runs are trained again"
    return [
        f"On {', '.join(titles)} most answers of a setting are alike, empty or all wrong, so no "
        f"difference there says anything of the method. These models must first learn to answer: "
        f"train longer ({longer})."
    ]


def _more_rooms(summary: Mapping[str, Any], rooms: int, needed: int, added: dict[str, Any]) -> str:
    """Put into ``added`` the keys that give more rooms; return the sentence where there is none."""
    entries = list(summary["runs"].values())
    demo = ((entries[0].get("config") or {}).get("data") or {}).get("demo")
    limits = [
        result["limit"]
        for entry in entries
        for result in entry.get("benchmarks", {}).values()
        if result.get("limit")
    ]
    if limits:
        questions = max(limit["questions"] for limit in limits)
        added["eval"] = {"limit": ceil(questions * needed / rooms)}
    if demo and needed <= _DEMO_MOST and ceil(needed / _DEMO_SHARE) > demo["scenes"]:
        added["data"] = {"demo": {"scenes": ceil(needed / _DEMO_SHARE)}}
    return "" if added else " Add scans of the evaluation splits."


def _seeds_for(
    summary: Mapping[str, Any],
    verdict: Verdict,
    level: float,
    wanted: dict[str, int],
    added: dict[str, Any],
) -> str:
    """Return how many seeds would show the difference that a setting comes nearest to showing.

    ``wanted`` gets the trainings of the setting and the baseline, ``added`` the keys for rooms.
    """
    lines = [line for line in verdict.lines if _can_differ(line)]
    if not lines:
        return ""
    line = min(lines, key=lambda line: line.compared["p"])
    size, seeds = abs(line.compared["difference"]), min(line.compared["seeds"])
    metric = f"{line.column.group} {line.column.title}"
    side = "higher" if line.compared["difference"] > 0 else "lower"
    # A difference that prints as 0.0 is none that anyone would look for.
    if round(size, 1) == 0:
        return f"{verdict.name} comes nearest on {metric}, where it does not differ."
    needed = seeds_needed(size, _deviation(summary, verdict, line), level)
    if enough := needed <= seeds:
        needed = seeds + 2
    advised = needed <= _MOST_TRAININGS
    for name in (verdict.name, summary["groups"][0]["name"]) if advised else ():
        wanted[name] = max(wanted[name], needed)
    nearest = f"{verdict.name} comes nearest on {metric}, where it is {size:.1f} points {side}."
    if enough:
        rooms = line.compared["scenes"]
        return (
            f"{nearest} Its {seeds} seeds would do for a difference of that size, so more rooms "
            "help, and more seeds where these do not vary."
            f"{_more_rooms(summary, rooms, 2 * rooms, added)}"
        )
    return (
        f"{nearest} If that is the true difference, it takes about {needed:,} trainings of each "
        "setting or more to show it, those that are there included. It is the nearest of several, "
        "so the true one may be smaller." + ("" if advised else " So many are not advised.")
    )


def _deviation(summary: Mapping[str, Any], verdict: Verdict, line: Line) -> float:
    """Return the deviation of a metric over the seeds, of both settings together, points."""
    mine = next(group for group in summary["groups"] if group["name"] == verdict.name)
    sides = [
        group["metrics"][line.column.benchmark][line.column.metric]["std"]
        for group in (mine, summary["groups"][0])
    ]
    return hypot(*sides) / 2**0.5


def _missing_seeds(
    summary: Mapping[str, Any], trained: Sequence[Mapping[str, Any]], wanted: Mapping[str, int]
) -> str:
    """Return the runs that settings lack of those wanted, as lines of a configuration, or ""."""
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
    return "\n".join(["runs:", *lines]) if lines else ""
