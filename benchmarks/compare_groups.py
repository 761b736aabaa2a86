"""Losses and scores of groups of runs, and how sure each one's difference to the first is.

    python benchmarks/compare_groups.py k96- k24- k12- [--results results] [--rows 4]

A group is all runs whose name starts with its prefix; they are to differ in the seed alone. The
losses are those that training writes every ``train.log_every`` steps, averaged over ``--rows``
rows, for the steps that all runs have reached. The scores are the headline metrics on which all
runs are scored. The interval is Welch's, 95 %, over seeds, and not corrected for how many are
printed.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from threedrs.errors import one_line_errors
from threedrs.io.files import read_json
from threedrs.tasks.registry import headline_columns

LOSSES = ("loss", "text", "grounding")
ROW = re.compile(r"train: step (\d+)/\d+ loss ([\d.]+) text ([\d.]+) grounding ([\d.]+)")


def read_losses(log: Path) -> dict[int, list[float]]:
    """Return the losses of each step that a training's log tells of."""
    rows = map(ROW.match, log.read_text().splitlines())
    return {int(row[1]): [float(value) for value in row.groups()[1:]] for row in rows if row}


def compared(first: Sequence[float], second: Sequence[float], *, digits: int) -> str:
    """Return both means with deviations and the second less the first, as cells of a row."""
    low, high = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    cells = [
        f"{np.mean(side):.{digits}f} ± {np.std(side, ddof=1):.{digits}f}"
        for side in (first, second)
    ]
    cells.append(
        f"{np.mean(second) - np.mean(first):+.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    )
    return " | ".join(cells)


def loss_rows(first: list[Path], second: list[Path], rows: int) -> list[str]:
    """Return the rows of the losses' table from the logs of both groups."""
    sides = [[read_losses(log) for log in logs] for logs in (first, second)]
    steps = sorted(set.intersection(*(set(run) for side in sides for run in side)))
    table = []
    for start in range(0, len(steps) - rows + 1, rows):
        window = steps[start : start + rows]
        for number, name in enumerate(LOSSES):
            means = [
                [float(np.mean([run[step][number] for step in window])) for run in side]
                for side in sides
            ]
            table.append(f"| {window[0]} to {window[-1]} | {name} | {compared(*means, digits=3)} |")
    return table


def score_rows(first: list[Path], second: list[Path]) -> list[str]:
    """Return the rows of the scores' table from the evaluation folders of both groups."""
    table = []
    for column in headline_columns():
        files = [
            [run / column.benchmark / "metrics.json" for run in side] for side in (first, second)
        ]
        if not all(file.exists() for side in files for file in side):
            continue
        scores = [
            [read_json(file)["metrics"][column.metric]["value"] for file in side] for side in files
        ]
        table.append(f"| {column.group} | {column.title} | {compared(*scores, digits=1)} |")
    return table


def main() -> None:
    """Read logs and scores of both groups and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", help="prefix of the names of the runs to compare with")
    parser.add_argument("others", nargs="+", help="prefixes of the other groups' names")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--rows", type=int, default=4, help="rows of the log to average over")
    arguments = parser.parse_args()
    groups = [arguments.first, *arguments.others]
    logs = {name: sorted(arguments.results.glob(f"logs/train/{name}*.log")) for name in groups}
    few = [name for name, found in logs.items() if len(found) < 2]
    if few:
        parser.error(f"{arguments.results}/logs/train: fewer than two logs of {' and '.join(few)}")
    runs = {
        name: [arguments.results / "eval" / log.stem for log in side] for name, side in logs.items()
    }
    first = arguments.first
    for other in arguments.others:
        sides = f"{first} ({len(logs[first])}) | {other} ({len(logs[other])})"
        for head, rows in (
            ("| steps | loss |", loss_rows(logs[first], logs[other], arguments.rows)),
            ("| benchmark | metric |", score_rows(runs[first], runs[other])),
        ):
            if rows:
                print(f"{head} {sides} | {other} less {first} |")
                print("|---|---|---|---|---|")
                print("\n".join(rows) + "\n")


if __name__ == "__main__":
    with one_line_errors("compare_groups"):
        main()
