"""Does it learn? The runs of config/small.yaml on held-out rooms, against chance.

    snakemake --cores all --configfile config/small.yaml --resources gpu=1 -- scores
    python benchmarks/learning.py [--results results]

prints a table: mean and standard deviation over the seeds of each method, the untrained student,
and two answers without a look at the room, scored by the same code on the same questions; then the
exact answers to ScanQA's questions by kind.

- chance: random scores of the proposals; the most frequent answer of the training questions; a
  random training caption
- words alone: the most frequent answer of the training questions that open with the same words (as
  many of the first four as any training question shares); for captions the same as chance
"""

import argparse
import re
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from threedrs.demo.questions import NUMBERS
from threedrs.demo.room_objects import PALETTE
from threedrs.evaluation.score import score_file
from threedrs.io.files import read_json, read_json_lines, write_json_lines
from threedrs.tasks.registry import evaluation_name, headline_columns

METHODS = {"3drs": "3drs", "baseline": "baseline"}
MARK = "-seed"
WORDS = 4  # of a question that count as its opening
KINDS = {
    "colour": tuple(PALETTE),
    "number": NUMBERS,
    "side": ("left", "right"),
    "yes or no": ("yes", "no"),
}


def opening(question: str, words: int) -> str:
    """Return the first ``words`` words of the sentence that ends with a prompt's question mark."""
    asked = re.split(r"[.!?>\n]\s*", question.rpartition("?")[0])[-1]
    return " ".join(asked.lower().split()[:words])


class Answers:
    """What the training answers of a benchmark say about a question without its room."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        turns = [[turn["value"] for turn in record["conversations"]] for record in records]
        self.all = Counter(answer for _, answer in turns)
        self.by_opening: dict[str, Counter[str]] = {}
        for question, answer in turns:
            for words in range(1, WORDS + 1):
                self.by_opening.setdefault(opening(question, words), Counter())[answer] += 1

    def most_frequent(self) -> str:
        """Return the most frequent answer; of several, the first by the alphabet."""
        return min(self.all, key=lambda answer: (-self.all[answer], answer))

    def by_words(self, question: str) -> str:
        """Return the most frequent answer to questions that open alike."""
        for words in range(WORDS, 0, -1):
            found = self.by_opening.get(opening(question, words))
            if found:
                return min(found, key=lambda answer: (-found[answer], answer))
        return self.most_frequent()


def without_looking(
    rows: list[dict[str, Any]],
    questions: dict[str, str],
    answers: Answers,
    *,
    words: bool,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return prediction rows whose scores and texts come from no room.

    Args:
        rows: prediction rows of any run; their proposals, true boxes and references are kept.
        questions: the prompt of each question, by id.
        answers: of the training records of the benchmark.
        words: whether the question's opening words choose the answer.
        seed: of random scores and captions.
    """
    generator = np.random.default_rng(seed)
    captions = sorted(answers.all)
    guessed = []
    for row in rows:
        if row["scores"] is not None:
            guess = {"scores": generator.uniform(-1, 1, len(row["scores"])).tolist()}
        elif row["benchmark"] == "scan2cap":
            guess = {"prediction": captions[int(generator.integers(len(captions)))]}
        elif words:
            guess = {"prediction": answers.by_words(questions[row["id"]])}
        else:
            guess = {"prediction": answers.most_frequent()}
        guessed.append({**row, **guess})
    return guessed


def predictions(results: Path, run: str, benchmark: str) -> list[dict[str, Any]]:
    """Return a run's prediction rows."""
    return list(read_json_lines(results / "eval" / run / benchmark / "predictions.jsonl"))


def blind_rows(results: Path, run: str, benchmark: str, *, words: bool) -> list[dict[str, Any]]:
    """Return ``without_looking`` for the questions that ``run`` answered."""
    rows = predictions(results, run, benchmark)
    records = read_json_lines(results / "instructions" / f"{evaluation_name(benchmark)}.jsonl")
    questions = {record["id"]: record["conversations"][0]["value"] for record in records}
    trained = list(read_json_lines(results / "instructions" / f"{benchmark}_train.jsonl"))
    return without_looking(rows, questions, Answers(trained), words=words)


def blind_metrics(results: Path, run: str, benchmark: str, *, words: bool) -> dict[str, Any]:
    """Score ``blind_rows``."""
    guessed = blind_rows(results, run, benchmark, words=words)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.jsonl"
        write_json_lines(file, guessed)
        return score_file(benchmark, file, Path(folder) / "m.json", bootstrap=0, meteor=False)


def evaluated_runs(results: Path) -> list[str]:
    """Return the names of the runs with results."""
    return sorted(path.name for path in (results / "eval").iterdir() if path.is_dir())


def seeds_of_methods(runs: list[str]) -> dict[str, list[str]]:
    """Return each method's runs."""
    return {
        method: [run for run in runs if run == name or run.startswith(f"{name}{MARK}")]
        for method, name in METHODS.items()
    }


def spread(values: list[float]) -> str:
    """Return mean and standard deviation in a cell's words."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def exact_by_kind(rows: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Return the number of questions of each kind of answer and the percentage that is exact."""
    exact: dict[str, list[bool]] = {}
    for row in rows:
        first = row["references"][0]
        kind = next((kind for kind, answers in KINDS.items() if first in answers), "other")
        exact.setdefault(kind, []).append(row["prediction"] in row["references"])
    return {kind: (len(right), 100 * statistics.mean(right)) for kind, right in exact.items()}


def table_of_kinds(results: Path) -> str:
    """Return ScanQA's exact answers by kind as a Markdown table."""
    runs = evaluated_runs(results)
    seeds = seeds_of_methods(runs)
    found = {run: exact_by_kind(predictions(results, run, "scanqa")) for run in runs}
    words = exact_by_kind(blind_rows(results, runs[0], "scanqa", words=True))
    lines = [
        "| scanqa: answer | n | words alone | " + " | ".join(seeds) + " |",
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
        "| benchmark | metric | n | chance | words alone | untrained | "
        + " | ".join(f"{method} ({len(found)} seeds)" for method, found in seeds.items())
        + " |",
        "|---|---|---|---|---|---|" + "---|" * len(seeds),
    ]
    columns = headline_columns()
    benchmarks = list(dict.fromkeys(column.benchmark for column in columns))
    chance = {b: blind_metrics(results, runs[0], b, words=False) for b in benchmarks}
    words = {b: blind_metrics(results, runs[0], b, words=True) for b in benchmarks}
    for column in columns:

        def measured(run: str, column: Any = column) -> float:
            metrics = read_json(results / "eval" / run / column.benchmark / "metrics.json")
            return float(metrics["metrics"][column.metric]["value"])

        cells = [
            f"{chance[column.benchmark]['metrics'][column.metric]['value']:.1f}",
            f"{words[column.benchmark]['metrics'][column.metric]['value']:.1f}",
            f"{measured('untrained'):.1f}" if "untrained" in runs else "",
        ]
        cells += [spread([measured(run) for run in own]) for own in seeds.values()]
        count = chance[column.benchmark]["n"]
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
    main()
