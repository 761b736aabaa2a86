"""Plain words for comparisons of settings: what seeds and rooms allow to say of a difference.

With one training a side nothing can be said, as another seed may turn the difference, and nothing
ever of a checkpoint that is evaluated as it is. With two there is at most a hint. From three on a
difference is called better or worse if it holds against seeds and rooms and after the correction
for all tests. Otherwise it is said how large a difference is easily missed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import yaml

from threedrs.evaluation.aggregate import RUN_NAMES, recipe
from threedrs.evaluation.tables import is_shown
from threedrs.tasks.base import Column
from threedrs.visualization.templates import signed


@dataclass(frozen=True, kw_only=True)
class Line:
    """One headline metric of one comparison, ready for the page; numbers in percentage points."""

    column: Column
    value: float
    baseline: float
    compared: Mapping[str, Any]
    tone: str  # up, down or even: only what is more than the luck of seeds and rooms is up or down
    words: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one run (or runs that differ in the seed) did against the baseline."""

    name: str
    runs: tuple[str, ...]
    answer: str
    tone: str
    explanation: str
    lines: tuple[Line, ...]

    @property
    def has_intervals(self) -> bool:
        """Whether any difference has an interval, which takes two seeds a side."""
        return any(line.compared["low"] is not None for line in self.lines)


def verdicts(summary: Mapping[str, Any], columns: Sequence[Column]) -> list[Verdict]:
    """Return the verdict of every group of runs other than the baseline's."""
    base = summary["groups"][0]
    return [_verdict(summary, group, base, columns) for group in summary["groups"][1:]]


def statement(judged: Sequence[Verdict], baseline: str) -> list[str]:
    """Return what is known of all settings together, a sentence each, the first the page's answer.

    With one setting, or where the same holds for all, it is their own answer.
    """
    answers = list(dict.fromkeys(verdict.answer for verdict in judged))
    if len(answers) < 2:
        return answers or [f"There is only one setting, {baseline}: nothing to compare."]
    groups: dict[str, list[str]] = {}
    for verdict in judged:
        groups.setdefault(_kind(verdict), []).append(verdict.name)
    # What could be shown comes first.
    kinds = sorted(groups, key=lambda kind: list(_KINDS.values()).index(kind))
    return [f"{kind.format(baseline=baseline)}: {_and(groups[kind])}." for kind in kinds]


# How a verdict's answer starts, and what is said of all settings whose answers start alike.
_KINDS = {
    "Yes": "Better than {baseline} on at least one metric and worse on none",
    "No:": "Worse than {baseline} on at least one metric and better on none",
    "Mixed": "Better than {baseline} on some metrics and worse on others",
    "No difference": "No difference to {baseline} is shown",
    "At most a hint": "At most a hint, as there are two seeds",
    "Not even a hint": "Not even a hint, as there are two seeds",
    "One training": "One training on a side, so the method cannot be told from the seed",
    "": "Cannot be told from {baseline}",
}


def _kind(verdict: Verdict) -> str:
    return next(kind for start, kind in _KINDS.items() if verdict.answer.startswith(start))


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verdict(
    summary: Mapping[str, Any],
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    columns: Sequence[Column],
) -> Verdict:
    lines = []
    for column in columns:
        compared = group["comparison"].get(column.benchmark, {}).get(column.metric)
        if compared is not None:
            lines.append(_line(summary, group, base, column, compared))
    as_they_are = [side["name"] for side in (group, base) if _is_checkpoint(summary, side)]
    if as_they_are and lines:
        models = "is one model as it is" if len(as_they_are) == 1 else "are models as they are"
        names = " and ".join(as_they_are)
        answer, tone = f"{names} {models}: seeds cannot be compared.", "even"
        lines = [replace(line, tone="even", words="a model as it is: no seeds") for line in lines]
    else:
        answer, tone = _answer(group, base, lines, summary["comparison"])
    return Verdict(
        name=group["name"],
        runs=tuple(group["runs"]),
        answer=answer,
        tone=tone,
        explanation=_explanation(lines),
        lines=tuple(lines),
    )


def _is_checkpoint(summary: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    """Return whether a group is a checkpoint that is evaluated as it is, and was not trained."""
    return "checkpoint" in (summary["runs"][group["runs"][0]].get("config") or {})


def _line(
    summary: Mapping[str, Any],
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    column: Column,
    compared: Mapping[str, Any],
) -> Line:
    tone = "even"
    if is_shown(compared, summary["comparison"]["level"]):
        tone = "up" if compared["difference"] > 0 else "down"
    return Line(
        column=column,
        value=group["metrics"][column.benchmark][column.metric]["mean"],
        baseline=base["metrics"][column.benchmark][column.metric]["mean"],
        compared=compared,
        tone=tone,
        words=_words(compared, tone, summary["comparison"]),
    )


def _words(compared: Mapping[str, Any], tone: str, settings: Mapping[str, Any]) -> str:
    """Return in words what one comparison allows to say, with all that it rests on."""
    seeds = min(compared["seeds"])
    if seeds == 1:
        return "one training: may be the seed"
    if compared["low"] is None:
        return "cannot be told: all questions are of one room"
    evidence = _evidence(compared)
    if seeds < settings["fewest_seeds"]:
        side = _beside_zero(compared)
        hint = {1: "a hint that it is higher", -1: "a hint that it is lower", 0: "may be chance"}
        return f"{hint[side]} ({evidence})"
    if tone != "even":
        return f"{'better' if tone == 'up' else 'worse'} ({evidence})"
    if _too_few_rooms(compared, settings):
        return f"cannot be told with so few rooms ({evidence})"
    # Runs that agree in every room vary by nothing, and nothing could be missed.
    missed = compared["missed"]
    easily = f"; one of less than about {missed:.1f} points is easily missed" if missed else ""
    if not _beside_zero(compared):
        return f"no difference shown ({evidence}){easily}"
    # The interval is of this metric alone, and p may be that of the swaps.
    if compared["p"] < settings["level"]:
        against = f"after the correction for {settings['tests']} tests"
    else:
        against = "against swaps of the settings within rooms"
    return f"not shown {against} ({evidence}){easily}"


def _evidence(compared: Mapping[str, Any]) -> str:
    """Return what a comparison rests on."""
    return (
        f"95 % interval {signed(compared['low'])} to {signed(compared['high'])}, "
        f"{compared['seeds'][0]} and {compared['seeds'][1]} seeds, {compared['scenes']} rooms, "
        f"{compared['questions']:,} questions"
    )


def _beside_zero(compared: Mapping[str, Any]) -> int:
    """Return 1 where the interval lies above zero, -1 where below, else 0."""
    if compared["low"] is None:
        return 0
    return int(compared["low"] > 0) - int(compared["high"] < 0)


def _too_few_rooms(compared: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether no swap of so few rooms could show a difference among all tests."""
    reachable = compared["smallest_p"] * settings["tests"] < settings["level"]
    return compared["p"] is None or not reachable


def _answer(
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    lines: Sequence[Line],
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    """Return the one-sentence answer to "did it help?" and its tone."""
    name, baseline, total = group["name"], base["name"], len(lines)
    if not total:
        return f"{name} and {baseline} share no headline metric.", "even"
    seeds = len(group["runs"]), len(base["runs"])
    # Whatever the rooms say, another seed might have turned it.
    if min(seeds) == 1:
        single = "each" if max(seeds) == 1 else f"of {name if seeds[0] == 1 else baseline}"
        return f"One training {single}: the method cannot be told from the seed.", "even"
    hint = min(seeds) < settings["fewest_seeds"]
    if hint and any(line.compared["low"] is not None for line in lines):
        return _hint(name, baseline, lines), "even"
    if all(_too_few_rooms(line.compared, settings) for line in lines):
        rooms = max(line.compared["scenes"] for line in lines)
        few = f"{rooms} room{'s are' if rooms != 1 else ' is'} too few to compare"
        return f"Cannot be told: {few} {name} with {baseline} on {total} metrics.", "even"
    return _tested_answer(name, baseline, lines)


def _hint(name: str, baseline: str, lines: Sequence[Line]) -> str:
    """Return what two seeds suggest."""
    sides = [_beside_zero(line.compared) for line in lines]
    higher, lower = sides.count(1), sides.count(-1)
    if not higher and not lower:
        return (
            f"Not even a hint, with two seeds: no interval of a difference between {name} and "
            f"{baseline} lies beside zero."
        )
    first, count = ("better", higher) if higher else ("worse", lower)
    second = f" and worse on {lower}" if higher and lower else ""
    return (
        f"At most a hint, with two seeds: {name} may be {first} than {baseline} on {count} of "
        f"{len(lines)} metrics{second}, where the interval lies beside zero."
    )


def _tested_answer(name: str, baseline: str, lines: Sequence[Line]) -> tuple[str, str]:
    """Return answer and tone where a difference could have been shown."""
    better = [line for line in lines if line.tone == "up"]
    worse = [line for line in lines if line.tone == "down"]
    total, others = len(lines), len(lines) - len(better) - len(worse)
    rest = f" On the other {others if others > 1 else 'one'} no difference is shown." * (others > 0)
    if better and worse:
        return (
            f"Mixed: {name} is better than {baseline} on {len(better)} of {total} metrics, "
            f"{_listed(better)}. It is worse on {len(worse)}, {_listed(worse)}.{rest}",
            "even",
        )
    if better or worse:
        shown = better or worse
        start, word, tone = ("Yes", "better", "up") if better else ("No", "worse", "down")
        return (
            f"{start}: {name} is {word} than {baseline} on {len(shown)} of {total} metrics, "
            f"{_listed(shown)}.{rest}",
            tone,
        )
    tested = [line.compared for line in lines if line.compared["missed"] is not None]
    return (
        f"No difference between {name} and {baseline} is shown. A true one of less than about "
        f"{max(one['missed'] for one in tested):.1f} points is easily missed, which is an estimate "
        f"from {min(min(one['seeds']) for one in tested)} seeds.",
        "even",
    )


def _listed(lines: Sequence[Line]) -> str:
    """Return metrics with their differences and what these rest on."""
    return "; ".join(
        f"{line.column.group} {line.column.title} by {abs(line.compared['difference']):.1f} points "
        f"({_evidence(line.compared)})"
        for line in lines
    )


def _explanation(lines: Sequence[Line]) -> str:
    """Return by how much the runs differ, chance or not, and what the differences vary with."""
    if not lines:
        return ""
    differences = [line.compared["difference"] for line in lines]
    higher = sum(round(value, 1) > 0 for value in differences)
    lower = sum(round(value, 1) < 0 for value in differences)
    between = (
        f"The differences lie between {signed(min(differences))} and {signed(max(differences))} "
        f"points, and their median is {signed(median(differences))}."
        if len(lines) > 1
        else f"The difference is {signed(differences[0])} points."
    )
    seen = (
        f"As measured, which may be chance: higher on {higher}, lower on {lower} and the same on "
        f"{len(lines) - higher - lower} of {len(lines)} metrics. {between}"
    )
    shares = [line.compared["seeds_share"] for line in lines]
    known = [share for share in shares if share is not None]
    if not known:
        return seen
    by_seeds = sum(share > 0.5 for share in known)
    if by_seeds in (0, len(known)):
        return (
            f"{seen} The {'seeds' if by_seeds else 'rooms'} make the larger part of the interval."
        )
    return (
        f"{seen} The seeds make the larger part of the interval on {by_seeds} of {len(known)} "
        "metrics, the rooms on the others."
    )


def more_seeds(summary: Mapping[str, Any]) -> str:
    """Return the runs that every setting still needs, as lines of a configuration; "" if none."""
    groups, taken = summary["groups"], set(summary["runs"])
    trained = [group for group in groups if not _is_checkpoint(summary, group)]
    # A checkpoint has no other seeds, so with one as the baseline no training brings a verdict.
    if len(trained) < 2 or trained[0] is not groups[0]:
        return ""
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


def config_differences(
    config: Mapping[str, Any], baseline: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return the settings in which two resolved runs differ: key, value, the baseline's value."""
    mine, other = _flat(config), _flat(baseline)
    names = dict.fromkeys([*mine, *other])
    return [
        (name, mine.get(name), other.get(name))
        for name in names
        if mine.get(name) != other.get(name)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings with dotted names, without the sections that are no setting."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if not prefix and name in RUN_NAMES:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
