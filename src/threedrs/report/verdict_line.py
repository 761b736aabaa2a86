"""One comparison of a verdict in words, with all that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from threedrs.evaluation.alike_answers import alike_seeds
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
    evidence: Markup  # what the comparison rests on; its count leads to the questions
    # Why equal values say nothing of these settings, "" where they do or where they are not equal.
    silence: str = ""
    artefact: str = ""  # which side gives one answer to most questions, for the end of a sentence


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
    value, baseline = (
        side["metrics"][column.benchmark][column.metric]["mean"] for side in (group, base)
    )
    silence, artefact = "", _artefact(summary, (group, base), column.benchmark)
    # Equal as the page prints them.
    if tone == "even" and round(compared["difference"], 1) == 0:
        silence = _silence(summary, [*group["runs"], *base["runs"]], column.benchmark, value)
    evidence = Markup("")
    if compared["low"] is not None:
        pair = {"a": base["runs"][0], "b": group["runs"][0]}
        evidence = _evidence(compared, {"benchmark": column.benchmark, **pair})
    return Line(
        column=column,
        value=value,
        baseline=baseline,
        compared=compared,
        tone=tone,
        words=silence or _words(compared, tone, summary["comparison"], evidence) + artefact,
        evidence=evidence,
        silence=silence,
        artefact=artefact,
    )


def _artefact(summary: Mapping[str, Any], sides: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return which settings answer most questions of a benchmark alike; "" where most seeds do not.

    A difference to such a setting is that of one answer, whatever the method.
    """
    said = []
    for side in sides:
        given, seeds = alike_seeds(summary, side["runs"], name), len(side["runs"])
        alike = sum(one.decides for one in given.values())
        if 2 * alike > seeds:
            who = f"{alike} of {seeds} seeds of {side['runs'][0]}" if seeds > 1 else side["name"]
            answers = "answer" if alike > 1 else "answers"
            said.append(f"{who} {answers} most questions with one answer")
    return f"; {' and '.join(said)}" if said else ""


def _silence(summary: Mapping[str, Any], runs: Sequence[str], benchmark: str, value: float) -> str:
    """Return why runs of equal values say nothing about one another; "" where they do."""
    given = alike_seeds(summary, runs, benchmark)
    if len(given) == len(runs) and all(one.decides for one in given.values()):
        empty = all(one.answer == "" for one in given.values())
        said = "hardly answer" if empty else "give most questions one answer"
        return f"nothing to compare: both {said}"
    return "" if round(value, 1) else "nothing to compare: both score 0"


def _words(
    compared: Mapping[str, Any], tone: str, settings: Mapping[str, Any], evidence: Markup
) -> str:
    """Return in words what one comparison allows to say, with all that it rests on."""
    seeds = min(compared["seeds"])
    if seeds == 1:
        return "one training: may be the seed"
    if compared["low"] is None:
        return "cannot be told: all questions are of one room"
    rests = " (" + evidence + ")"
    if seeds < settings["fewest_seeds"]:
        side = beside_zero(compared)
        hint = {1: "a hint that it is higher", -1: "a hint that it is lower", 0: "may be chance"}
        return hint[side] + rests
    if tone != "even":
        return ("better" if tone == "up" else "worse") + rests
    if too_few_rooms(compared, settings):
        return "cannot be told with so few rooms" + rests
    # Runs that agree in every room vary by nothing, and nothing could be missed.
    missed, tests = round(compared["missed"], 1), settings["tests"]
    easily = (
        f"; {after_correction(tests)}, one of less than about {missed:.1f} points is easily missed"
        if missed
        else ""
    )
    if not beside_zero(compared):
        return "no difference shown" + rests + easily
    # The interval is of this metric alone, and p may be that of the swaps.
    if compared["p"] < settings["level"]:
        against = after_correction(tests)
    else:
        against = "against swaps of the settings within rooms, or of trainings that do not vary"
    return f"not shown {against}" + rests + easily


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
        if line.compared["missed"] and round(line.compared["missed"], 1):
            sizes.setdefault(line.column.metric == "cider", []).append(line.compared["missed"])
    ranges = {
        cider: f"{min(found):.1f}" + f" to {max(found):.1f}" * (max(found) - min(found) >= 0.05)
        for cider, found in sizes.items()
    }
    percent, cider = ranges.get(False), ranges.get(True)
    if percent and cider:
        return f"{percent} points ({cider} of CIDEr)"
    return f"{percent} points" if percent else f"{cider} points of CIDEr" if cider else ""


def _evidence(compared: Mapping[str, Any], filters: Mapping[str, str]) -> Markup:
    """Return what a comparison rests on, with a link to its questions by the page's filters."""
    link = Markup('<a href="#questions" data-filter="{}">{:,} questions</a>')
    return Markup("95 % interval {} to {}, {} and {} seeds, {} rooms, {}").format(
        signed(compared["low"]),
        signed(compared["high"]),
        *compared["seeds"],
        compared["scenes"],
        link.format(urlencode(filters), compared["questions"]),
    )


def plain(sentence: str) -> str:
    """Return a sentence of a verdict without its links, as a terminal shows it."""
    return sentence.striptags() if isinstance(sentence, Markup) else sentence


def beside_zero(compared: Mapping[str, Any]) -> int:
    """Return 1 where the interval lies above zero, -1 where below, else 0."""
    return 0 if compared["low"] is None else (compared["low"] > 0) - (compared["high"] < 0)


def too_few_rooms(compared: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether no swap of so few rooms could show a difference among all tests."""
    reachable = compared["smallest_p"] * settings["tests"] < settings["level"]
    return compared["p"] is None or not reachable
