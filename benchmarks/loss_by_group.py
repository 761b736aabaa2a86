"""Training losses of two groups of runs at equal samples seen, and how sure their difference is.

    python benchmarks/loss_by_group.py k96- k12- [--logs results/logs/train] [--rows 4]

A group is all runs whose name starts with its prefix; they are to differ in the seed alone. The
losses are those that training writes every ``train.log_every`` steps, averaged over ``--rows``
rows. The interval is Welch's, 95 %, over seeds, and not corrected for how many are printed.
"""

import argparse
import re
from pathlib import Path

import numpy as np
from scipy import stats

LOSSES = ("loss", "text", "grounding")
ROW = re.compile(r"train: step (\d+)/\d+ loss ([\d.]+) text ([\d.]+) grounding ([\d.]+)")


def read_losses(log: Path) -> dict[int, list[float]]:
    """Return the losses of each step that a training's log tells of."""
    rows = map(ROW.match, log.read_text().splitlines())
    return {int(row[1]): [float(value) for value in row.groups()[1:]] for row in rows if row}


def table(groups: dict[str, list[dict[int, list[float]]]], rows: int) -> str:
    """Return the comparison as Markdown, for the steps that all runs have reached."""
    (first, a), (second, b) = groups.items()
    steps = sorted(set.intersection(*(set(run) for run in [*a, *b])))
    lines = [
        f"| steps | loss | {first} ({len(a)}) | {second} ({len(b)}) | {second} less {first} |",
        "|---|---|---|---|---|",
    ]
    for start in range(0, len(steps) - rows + 1, rows):
        window = steps[start : start + rows]
        for number, name in enumerate(LOSSES):
            x, y = ([np.mean([run[s][number] for s in window]) for run in side] for side in (a, b))
            low, high = stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
            means = [f"{np.mean(side):.3f} ± {np.std(side, ddof=1):.3f}" for side in (x, y)]
            difference = f"{np.mean(y) - np.mean(x):+.3f} ({low:.3f} to {high:.3f})"
            lines.append(
                f"| {window[0]} to {window[-1]} | {name} | {' | '.join(means)} | {difference} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Read the logs of both groups and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs=2, help="prefixes of the runs' names")
    parser.add_argument("--logs", type=Path, default=Path("results/logs/train"))
    parser.add_argument("--rows", type=int, default=4, help="rows of the log to average over")
    arguments = parser.parse_args()
    groups = {
        prefix: [read_losses(log) for log in sorted(arguments.logs.glob(f"{prefix}*.log"))]
        for prefix in arguments.groups
    }
    few = [prefix for prefix, runs in groups.items() if len(runs) < 2]
    if few:
        parser.error(f"{arguments.logs}: fewer than two logs of {' and '.join(few)}")
    print(table(groups, arguments.rows))


if __name__ == "__main__":
    main()
