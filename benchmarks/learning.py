"""Does it learn? The runs of config/small.yaml on held-out rooms, against chance.

    python benchmarks/learning.py [--results results]

prints a table after the command of docs/TRAINING.md: mean and standard deviation over the seeds of
each method, the untrained student, and the answers without a look at the room of
`threedrs.evaluation.trivial_answers`; then the exact answers to ScanQA's questions by kind.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from run_results import evaluated_runs, made, of_run, predictions
from threedrs.demo.questions import NUMBERS
from threedrs.demo.room_objects import PALETTE
from threedrs.errors import one_line_errors
from threedrs.evaluation.trivial_answers import (
    CHANCE,
    FIRST_WORDS,
    ONE_ANSWER,
    TrainingAnswers,
    read_trivial_answers,
)
from threedrs.io.files import read_json
from threedrs.tasks.record import read_records
from threedrs.tasks.registry import evaluation_name, find_task, headline_columns

UNTRAINED = "untrained"
MARK = "-seed"
WAYS = (CHANCE, ONE_ANSWER, FIRST_WORDS)
KINDS = {
    "colour": tuple(PALETTE),
    "number": NUMBERS,
    "side": ("left", "right"),
    "yes or no": ("yes", "no"),
}


def first_words_rows(results: Path, run: str, benchmark: str) -> list[dict[str, Any]]:
    """Return the run's rows with the answers that the questions' first words give."""
    asked, trained = (
        read_records(made(results, f"instructions/{name}.jsonl"))
        for name in (evaluation_name(benchmark), f"{benchmark}_train")
    )
    answers = TrainingAnswers(find_task(benchmark), list(trained))
    told = {record.id: answers.by_first_words(record) for record in asked}
    rows = predictions(results, run, benchmark)
    return [{**row, "prediction": told[row["id"]]} for row in rows]


def seeds_of_methods(runs: list[str]) -> dict[str, list[str]]:
    """Return each method's runs, which bear its name and their seed."""
    seeds: dict[str, list[str]] = {}
    for run in runs:
        if run != UNTRAINED:
            seeds.setdefault(run.partition(MARK)[0], []).append(run)
    return seeds


def spread(values: list[float]) -> str:
    """Return mean and standard deviation in a cell's words."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def kind_of_answer(answer: str) -> str:
    """Return the kind of a true answer: one of ``KINDS``, or "other"."""
    return next((kind for kind, answers in KINDS.items() if answer in answers), "other")


def exact_by_kind(rows: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Return the number of questions of each kind of answer and the percentage that is exact."""
    exact: dict[str, list[bool]] = {}
    for row in rows:
        kind = kind_of_answer(row["references"][0])
        exact.setdefault(kind, []).append(row["prediction"] in row["references"])
    return {kind: (len(right), 100 * statistics.mean(right)) for kind, right in exact.items()}


def table_of_kinds(results: Path) -> str:
    """Return ScanQA's exact answers by kind as a Markdown table."""
    runs = evaluated_runs(results)
    seeds = seeds_of_methods(runs)
    found = {run: exact_by_kind(predictions(results, run, "scanqa")) for run in runs}
    words = exact_by_kind(first_words_rows(results, runs[0], "scanqa"))
    lines = [
        f"| scanqa: answer | n | {FIRST_WORDS} | " + " | ".join(seeds) + " |",
        "|---|---|---|" + "---|" * len(seeds),
    ]
    for kind, (count, percentage) in sorted(words.items()):
        cells = [spread([found[run][kind][1] for run in own]) for own in seeds.values()]
        lines.append(f"| {kind} | {count} | {percentage:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(results: Path) -> str:
    """Return the comparison as a Markdown table."""
    runs = evaluated_runs(results)
    seeds = seeds_of_methods(runs)
    lines = [
        f"| benchmark | metric | n | {' | '.join(WAYS)} | untrained | "
        + " | ".join(f"{method} ({len(found)} seeds)" for method, found in seeds.items())
        + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(seeds),
    ]
    trivial = read_trivial_answers(made(results, "trivial_answers.json"))
    for column in headline_columns():
        metrics = {
            run: read_json(of_run(results, run, column.benchmark, "metrics.json")) for run in runs
        }
        measured = {run: found["metrics"][column.metric]["value"] for run, found in metrics.items()}
        # A way that a benchmark has not leaves its cell empty, as chance does where texts answer.
        found = [trivial[column.benchmark].get(way, {}).get(column.metric) for way in WAYS]
        cells = [f"{value:.1f}" if value is not None else "" for value in found]
        cells.append(f"{measured[UNTRAINED]:.1f}" if UNTRAINED in runs else "")
        cells += [spread([measured[run] for run in own]) for own in seeds.values()]
        count = metrics[runs[0]]["n"]
        lines.append(f"| {column.group} | {column.title} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    print(table(results))
    print()
    print(table_of_kinds(results))


if __name__ == "__main__":
    with one_line_errors("learning"):
        main()
