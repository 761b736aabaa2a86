"""Plain words for comparisons of settings: what seeds and rooms allow to say of a difference.

With one training a side nothing can be said, as another seed may turn the difference, and nothing
ever of a checkpoint that is evaluated as it is. With two there is at most a hint. From three on a
difference is called better or worse if it holds against seeds and rooms and after the correction
for all tests. Otherwise it is said how large a difference is easily missed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from threedrs.evaluation.aggregate import RUN_NAMES
from threedrs.report import verdict_line
from threedrs.report.verdict_line import Line
from threedrs.tasks.base import Column


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one run (or runs that differ in the seed) did against the baseline."""

    name: str
    runs: tuple[str, ...]
    kind: str  # of the answer, a key of `_KINDS`
    answer: str
    lines: tuple[Line, ...]

    @property
    def tone(self) -> str:
        """Whether the page shows the answer as ``up``, ``down`` or ``even``."""
        return {"better": "up", "worse": "down"}.get(self.kind, "even")

    @property
    def explanation(self) -> str:
        """By how much the runs differ, chance or not, and what the differences vary with."""
        if not self.lines:
            return ""
        differences = [line.compared["difference"] for line in self.lines]
        higher = sum(round(value, 1) > 0 for value in differences)
        lower = sum(round(value, 1) < 0 for value in differences)
        same = len(self.lines) - higher - lower
        seen = (
            f"As measured, which may be chance: higher on {higher}, lower on {lower} and the same "
            f"on {same} of {len(self.lines)} metrics."
        )
        if any(line.silence for line in self.lines):
            # Two models that say nothing are not as good as each other.
            seen += f" Equal values are no sign of parity where {_silences(self.lines)}."
        if same == len(self.lines):
            return seen
        shares = [line.compared["seeds_share"] for line in self.lines if not line.silence]
        known = [share for share in shares if share is not None]
        if not known:
            return seen
        by_seeds = sum(share > 0.5 for share in known)
        if by_seeds in (0, len(known)):
            larger = "seeds" if by_seeds else "rooms"
            return f"{seen} The {larger} make the larger part of the interval."
        return (
            f"{seen} The seeds make the larger part of the interval on {by_seeds} of {len(known)} "
            "metrics, the rooms on the others."
        )

    @property
    def has_intervals(self) -> bool:
        """Whether any difference has an interval, which takes two seeds a side."""
        return any(line.compared["low"] is not None for line in self.lines)


def verdicts(summary: Mapping[str, Any], columns: Sequence[Column]) -> list[Verdict]:
    """Return the verdict of every group of runs other than the baseline's."""
    base = summary["groups"][0]
    return [_verdict(summary, group, base, columns) for group in summary["groups"][1:]]


def statement(judged: Sequence[Verdict], baseline: str, settings: Mapping[str, Any]) -> list[str]:
    """Return what is known of all settings together, a sentence each, the first the page's answer.

    With one setting, or where the same holds for all, it is their own answer. Otherwise the last
    sentences say what all comparisons rest on. ``settings`` is the summary's ``comparison``.
    """
    answers = list(dict.fromkeys(verdict.answer for verdict in judged))
    if len(answers) < 2:
        return answers or [f"There is only one setting, {baseline}: nothing to compare."]
    groups: dict[str, list[str]] = {}
    for verdict in judged:
        groups.setdefault(verdict.kind, []).append(verdict.name)
    # What could be shown comes first.
    known = [
        f"{said.format(baseline=baseline)}: {_and(groups[kind])}."
        for kind, said in _KINDS.items()
        if kind in groups
    ]
    compared = [line for verdict in judged if verdict.kind != "untold" for line in verdict.lines]
    return known + verdict_line.basis_of(compared, settings)


# Kind of a verdict's answer -> what is said of all settings of that kind.
_KINDS = {
    "better": "Better than {baseline} on at least one metric and worse on none",
    "worse": "Worse than {baseline} on at least one metric and better on none",
    "mixed": "Better than {baseline} on some metrics and worse on others",
    "not shown": "No difference to {baseline} is shown",
    "hint": "At most a hint, as there are two seeds",
    "no hint": "Not even a hint, as there are two seeds",
    "one training": "One training on a side, so the method cannot be told from the seed",
    "untold": "Cannot be told from {baseline}",
}


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
            lines.append(verdict_line.make_line(summary, group, base, column, compared))
    as_they_are = [side["name"] for side in (group, base) if is_checkpoint(summary, side)]
    if as_they_are and lines:
        models = "is one model as it is" if len(as_they_are) == 1 else "are models as they are"
        names = " and ".join(as_they_are)
        kind, answer = "untold", f"{names} {models}: seeds cannot be compared."
        lines = [replace(line, tone="even", words="a model as it is: no seeds") for line in lines]
    else:
        kind, answer = _answer(group, base, lines, summary["comparison"])
    runs = tuple(group["runs"])
    return Verdict(name=group["name"], runs=runs, kind=kind, answer=answer, lines=tuple(lines))


def is_checkpoint(summary: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    """Return whether a group is a checkpoint that is evaluated as it is, and was not trained."""
    return "checkpoint" in (summary["runs"][group["runs"][0]].get("config") or {})


def _answer(
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    lines: Sequence[Line],
    settings: Mapping[str, Any],
) -> tuple[str, str]:
    """Return the kind of the answer to "did it help?", and its sentence."""
    name, baseline, total = group["name"], base["name"], len(lines)
    if not total:
        return "untold", f"{name} and {baseline} share no headline metric."
    seeds = len(group["runs"]), len(base["runs"])
    if all(line.silence for line in lines):
        return "untold", f"Cannot be told: {name} and {baseline} are equal, but {_silences(lines)}."
    # Whatever the rooms say, another seed might have turned it.
    if min(seeds) == 1:
        single = "each" if max(seeds) == 1 else f"of {name if seeds[0] == 1 else baseline}"
        return "one training", f"One training {single}: the method cannot be told from the seed."
    hint = min(seeds) < settings["fewest_seeds"]
    if hint and any(line.compared["low"] is not None for line in lines):
        return _hint(name, baseline, lines)
    if all(verdict_line.too_few_rooms(line.compared, settings) for line in lines):
        rooms = max(line.compared["scenes"] for line in lines)
        few = f"{rooms} room{'s are' if rooms != 1 else ' is'} too few to compare"
        return "untold", f"Cannot be told: {few} {name} with {baseline} on {total} metrics."
    return _tested_answer(name, baseline, lines, settings["tests"])


def _hint(name: str, baseline: str, lines: Sequence[Line]) -> tuple[str, str]:
    """Return kind and sentence of what two seeds suggest."""
    sides = [verdict_line.beside_zero(line.compared) for line in lines]
    higher, lower = sides.count(1), sides.count(-1)
    if not higher and not lower:
        return (
            "no hint",
            f"Not even a hint, with two seeds: no interval of a difference between {name} and "
            f"{baseline} lies beside zero.",
        )
    first, count = ("better", higher) if higher else ("worse", lower)
    second = f" and worse on {lower}" if higher and lower else ""
    return (
        "hint",
        f"At most a hint, with two seeds: {name} may be {first} than {baseline} on {count} of "
        f"{len(lines)} metrics{second}, where the interval lies beside zero.",
    )


def _tested_answer(name: str, baseline: str, lines: Sequence[Line], tests: int) -> tuple[str, str]:
    """Return kind and sentence where a difference could have been shown."""
    better = [line for line in lines if line.tone == "up"]
    worse = [line for line in lines if line.tone == "down"]
    total, others = len(lines), len(lines) - len(better) - len(worse)
    rest = f" On the other {others if others > 1 else 'one'} no difference is shown." * (others > 0)

    def told(word: str, shown: Sequence[Line]) -> Markup:
        return Markup("{} is {} than {} on {} of {} metrics, {}.").format(
            name, word, baseline, len(shown), total, _listed(shown)
        )

    if better and worse:
        also = Markup(" It is worse on {}, {}.").format(len(worse), _listed(worse))
        return "mixed", "Mixed: " + told("better", better) + also + rest
    if better:
        return "better", "Yes: " + told("better", better) + rest
    if worse:
        return "worse", "No: " + told("worse", worse) + rest
    seeds, sizes = (
        min(min(line.compared["seeds"]) for line in lines),
        verdict_line.missed_sizes(lines),
    )
    easily = (
        f" {verdict_line.after_correction(tests).capitalize()}, a true one of less than about "
        f"{sizes} is easily missed, which is an estimate from {seeds} seeds."
        if sizes
        else ""
    )
    return "not shown", f"No difference between {name} and {baseline} is shown.{easily}"


def _listed(lines: Sequence[Line]) -> Markup:
    """Return metrics with their differences and what these rest on."""
    return Markup("; ").join(
        Markup("{} by {:.1f} points ({})").format(
            line.column.full_title, abs(line.compared["difference"]), line.evidence
        )
        for line in lines
    )


def _silences(lines: Sequence[Line]) -> str:
    """Return why metrics that are equal say nothing, and which ones."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line.silence:
            reason = line.silence.partition(": ")[2]
            reasons.setdefault(reason, []).append(line.column.full_title)
    return " and ".join(f"{reason} ({', '.join(names)})" for reason, names in reasons.items())


def config_differences(
    config: Mapping[str, Any], baseline: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Return the settings in which two resolved runs differ: key, value, the baseline's value."""
    mine, other = (
        pd.json_normalize(
            {name: value for name, value in one.items() if name not in RUN_NAMES}
        ).to_dict("records")[0]
        for one in (config, baseline)
    )
    return [
        (str(name), mine.get(name), other.get(name))
        for name in dict.fromkeys([*mine, *other])
        if mine.get(name) != other.get(name)
    ]
