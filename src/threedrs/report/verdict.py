"""Plain words for comparisons: what a difference, its interval and its p value allow to say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from threedrs.evaluation.tables import stars
from threedrs.tasks.base import Column


@dataclass(frozen=True, kw_only=True)
class Line:
    """One headline metric of one comparison, ready for the page; numbers in percentage points."""

    column: Column
    value: float
    baseline: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    stars: str
    tone: str  # up, down or even: only what is more than chance is up or down
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


def verdicts(summary: Mapping[str, Any], columns: Sequence[Column]) -> list[Verdict]:
    """Return the verdict of every group of runs other than the baseline's."""
    base = summary["groups"][0]
    return [_verdict(summary, group, base, columns) for group in summary["groups"][1:]]


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
    answer, tone = _answer(group["name"], base["name"], lines)
    return Verdict(
        name=group["name"],
        runs=tuple(group["runs"]),
        answer=answer,
        tone=tone,
        explanation=_explanation(lines),
        lines=tuple(lines),
    )


def _line(
    summary: Mapping[str, Any],
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    column: Column,
    compared: Mapping[str, Any],
) -> Line:
    settings = summary["comparison"]
    tone, words = _words(compared, settings["level"], settings["fewest_scenes"])
    return Line(
        column=column,
        value=group["metrics"][column.benchmark][column.metric]["mean"],
        baseline=base["metrics"][column.benchmark][column.metric]["mean"],
        difference=compared["difference"],
        low=compared["low"],
        high=compared["high"],
        p=compared["p"],
        stars=stars(compared, settings["level"]),
        tone=tone,
        words=words,
    )


def _words(compared: Mapping[str, Any], level: float, fewest: int) -> tuple[str, str]:
    """Return tone and plain words of one comparison."""
    difference = compared["difference"]
    if compared["p"] is None:
        if compared["scenes"] < fewest:
            return "even", f"cannot tell: {_scenes(compared['scenes'])}, {fewest} are the least"
        return "even", "not tested (no resamples)"
    if compared["p"] >= level or difference == 0:
        # Shown with one decimal, this is 0.0.
        if abs(difference) < 0.05:
            return "even", "no difference"
        return "even", f"{'higher' if difference > 0 else 'lower'}, but may be chance"
    # Among many metrics one in twenty differs by chance, so "clearly" asks for Holm's correction.
    corrected = compared.get("p_holm")
    sure = corrected is not None and corrected < level
    direction = "better" if difference > 0 else "worse"
    tone = "up" if difference > 0 else "down"
    return tone, f"{direction}, {'clearly more than chance' if sure else 'likely more than chance'}"


def _scenes(count: int) -> str:
    return f"only {count} scene{'s' if count != 1 else ''}"


def _answer(name: str, baseline: str, lines: Sequence[Line]) -> tuple[str, str]:
    """Return the one-sentence answer to "did it help?" and its tone."""
    total = len(lines)
    better = sum(line.tone == "up" for line in lines)
    worse = sum(line.tone == "down" for line in lines)
    if not total:
        return f"{name} and {baseline} share no headline metric.", "even"
    if all(line.p is None for line in lines):
        return f"Cannot be told: too little data to compare {name} with {baseline}.", "even"
    if better and not worse:
        return (
            f"Yes: {name} is better than {baseline} on {better} of {total} metrics, worse on none.",
            "up",
        )
    if worse and not better:
        return (
            f"No: {name} is worse than {baseline} on {worse} of {total} metrics, better on none.",
            "down",
        )
    if better and worse:
        return (
            f"Mixed: {name} is better than {baseline} on {better} of {total} metrics, "
            f"worse on {worse}.",
            "even",
        )
    return f"Not shown: {name} and {baseline} differ by no more than chance.", "even"


def _explanation(lines: Sequence[Line]) -> str:
    """Return by how much the runs differ, chance or not."""
    if not lines:
        return ""
    differences = [line.difference for line in lines]
    higher = sum(round(value, 1) > 0 for value in differences)
    lower = sum(round(value, 1) < 0 for value in differences)
    low, middle, high = min(differences), median(differences), max(differences)
    return (
        f"Chance aside, it scores higher on {higher}, lower on {lower} and the same on "
        f"{len(lines) - higher - lower} of {len(lines)} metrics; the difference lies between "
        f"{low:+.1f} and {high:+.1f} points, {middle:+.1f} in the middle (median)."
    )


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
    """Return the settings with dotted names; a run's name and its paths are not settings."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if not prefix and name in ("run", "paths"):
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
