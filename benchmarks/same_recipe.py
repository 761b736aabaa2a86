"""The A/A trial: is a recipe called better or worse than itself?

    python benchmarks/same_recipe.py > same_recipe.yaml
    snakemake --cores all --configfile same_recipe.yaml --resources gpu=1 -- report
    python benchmarks/same_recipe.py --summary results/report/summary.json

A tiny student is trained from scratch on generated rooms with six seeds, without supervision. Three
of them take the training mix under another name, which makes another setting of them that differs
in nothing. So whatever is said of the two settings must be that they cannot be told apart. 20 rooms
leave 9 to evaluate on, the fewest in which nine metrics could be told apart at all.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from threedrs.errors import one_line_errors
from threedrs.io.files import read_json
from threedrs.report.verdict import statement, verdicts
from threedrs.report.verdict_line import plain
from threedrs.tasks.registry import headline_columns

NAMES = ("baseline", "again")
MIXES = ("full", "full-again")
SEEDS = 3


def configuration(scenes: int, steps: int) -> dict[str, Any]:
    """Return the configuration of the trial."""
    runs: dict[str, Any] = {"3drs": None}
    for setting, name in enumerate(NAMES):
        for number in range(SEEDS):
            seed = 42 + setting * SEEDS + number
            run = name if number == 0 else f"{name}-seed{seed}"
            recipe = {"extends": NAMES[0]} if runs.get(NAMES[0]) else {"teacher": {"name": "none"}}
            runs[run] = {**recipe, "train": {"seed": seed, "mix": MIXES[setting]}}
    return {
        "data": {"demo": {"scenes": scenes, "seed": 7, "frames": 40}},
        "frames": {"count": 3},
        "instructions": {"mixes": {mix: {"balance": "all"} for mix in MIXES}},
        # Written out, as the demo's own student and its recipe may change: then it would be another
        # experiment than the one whose numbers are published.
        "model": {"name": "llava-video", "size": "tiny", "path": None},
        "train": {
            "epochs": 1,
            "max_steps": steps,
            "learning_rate": 3e-3,
            "learning_rate_vision_tower": 1e-3,
            "label_chat_tokens": True,
        },
        "execution": {"save_every": steps},
        "runs": runs,
        "eval": {"prompt": "reference", "max_new_tokens": 16, "bootstrap": 100},
        "report": {"title": "One recipe under two names"},
    }


def findings(summary: dict[str, Any]) -> str:
    """Return the statement, and what is said of each metric."""
    columns = headline_columns(summary["benchmarks"])
    judged = verdicts(summary, columns)
    lines = statement(judged, summary["baseline"], summary["comparison"])
    for verdict in judged:
        for line in verdict.lines:
            title = line.column.full_title
            values = f"{line.baseline:.1f} and {line.value:.1f}"
            p, corrected = line.compared["p"], line.compared["p_holm"]
            words = plain(line.words)
            lines.append(f"{title}: {values}, p {p:.3f}, corrected {corrected:.3f}: {words}")
    return "\n".join(map(plain, lines))


def main() -> None:
    """Print the configuration, or the findings of a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--summary", type=Path)
    arguments = parser.parse_args()
    if arguments.summary:
        print(findings(read_json(arguments.summary)))
    else:
        print(yaml.safe_dump(configuration(arguments.scenes, arguments.steps), sort_keys=False))


if __name__ == "__main__":
    with one_line_errors("same_recipe"):
        main()
