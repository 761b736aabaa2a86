"""One comparison of a verdict in words, with all that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def make_line(
    summary: Mapping[str, Any],
    group: Mapping[str, Any],
    base: Mapping[str, Any],
    column: Column,
    compared: Mapping[str, Any],
) -> Line:
    """Return the line of one metric of a group and the baseline's group of a summary."""
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
    evidence = evidence_of(compared)
    if seeds < settings["fewest_seeds"]:
        side = beside_zero(compared)
        hint = {1: "a hint that it is higher", -1: "a hint that it is lower", 0: "may be chance"}
        return f"{hint[side]} ({evidence})"
    if tone != "even":
        return f"{'better' if tone == 'up' else 'worse'} ({evidence})"
    if too_few_rooms(compared, settings):
        return f"cannot be told with so few rooms ({evidence})"
    # Runs that agree in every room vary by nothing, and nothing could be missed.
    missed, tests = compared["missed"], settings["tests"]
    easily = (
        f"; {after_correction(tests)}, one of less than about {missed:.1f} points is easily missed"
        if missed
        else ""
    )
    if not beside_zero(compared):
        return f"no difference shown ({evidence}){easily}"
    # The interval is of this metric alone, and p may be that of the swaps.
    if compared["p"] < settings["level"]:
        against = after_correction(tests)
    else:
        against = "against swaps of the settings within rooms"
    return f"not shown {against} ({evidence}){easily}"


def after_correction(tests: int) -> str:
    """Return what was done about the number of tests."""
    return f"after the correction for {tests} tests" if tests > 1 else "with one test"


def basis_of(lines: Sequence[Line], settings: Mapping[str, Any]) -> list[str]:
    """Return what comparisons of several settings rest on, and what they easily miss."""
    if not lines:
        return []
    seeds = sorted({count for line in lines for count in line.compared["seeds"]})
    rooms = sorted({line.compared["scenes"] for line in lines})
    sides, places = (
        f"{counts[0]} to {counts[-1]}" if counts[1:] else f"{counts[0]}"
        for counts in (seeds, rooms)
    )
    said = [
        f"This rests on {sides} seed{'s' if seeds[-1] != 1 else ''} a side and {places} "
        f"room{'s' if rooms[-1] != 1 else ''}."
    ]
    sizes = missed_sizes([line for line in lines if line.tone == "even"])
    if sizes and not all(too_few_rooms(line.compared, settings) for line in lines):
        said.append(
            f"{after_correction(settings['tests']).capitalize()}, a true difference of less than "
            f"about {sizes} is easily missed."
        )
    return said


def missed_sizes(lines: Sequence[Line]) -> str:
    """Return the range of what is easily missed, CIDEr apart, as its points are others."""
    sizes: dict[bool, list[float]] = {}
    for line in lines:
        # Runs that agree in every room vary by nothing, and nothing could be missed.
        if line.compared["missed"]:
            sizes.setdefault(line.column.metric == "cider", []).append(line.compared["missed"])
    ranges = {
        cider: f"{min(found):.1f}" + f" to {max(found):.1f}" * (max(found) - min(found) >= 0.05)
        for cider, found in sizes.items()
    }
    percent, cider = ranges.get(False), ranges.get(True)
    if percent and cider:
        return f"{percent} points ({cider} of CIDEr)"
    return f"{percent} points" if percent else f"{cider} points of CIDEr" if cider else ""


def evidence_of(compared: Mapping[str, Any]) -> str:
    """Return what a comparison rests on."""
    return (
        f"95 % interval {signed(compared['low'])} to {signed(compared['high'])}, "
        f"{compared['seeds'][0]} and {compared['seeds'][1]} seeds, {compared['scenes']} rooms, "
        f"{compared['questions']:,} questions"
    )


def beside_zero(compared: Mapping[str, Any]) -> int:
    """Return 1 where the interval lies above zero, -1 where below, else 0."""
    if compared["low"] is None:
        return 0
    return int(compared["low"] > 0) - int(compared["high"] < 0)


def too_few_rooms(compared: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether no swap of so few rooms could show a difference among all tests."""
    reachable = compared["smallest_p"] * settings["tests"] < settings["level"]
    return compared["p"] is None or not reachable
