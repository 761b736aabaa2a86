"""What every finished run of the demo must hold, wherever it ran."""

import csv
import json
from pathlib import Path

BENCHMARKS = {
    "scanrefer": "val",
    "multi3drefer": "val",
    "scan2cap": "val",
    "scanqa": "val",
    "sqa3d": "test",
}
HEADLINE = {
    "scanrefer": {"acc@0.25", "acc@0.5"},
    "multi3drefer": {"f1@0.25", "f1@0.5"},
    "scan2cap": {"cider", "bleu4", "meteor", "rouge_l"},
    "scanqa": {"cider", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "em", "em_normalised"},
    "sqa3d": {"em"},
}
RUNS = ("3drs", "baseline")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_results(folder: Path) -> None:
    """Check the outputs of both runs on all five benchmarks under ``folder``/results."""
    results = folder / "results"
    for run in RUNS:
        summary = json.loads((results / "train" / run / "train.json").read_text())
        history = lines(results / "train" / run / "log.jsonl")
        assert summary["steps"] == history[-1]["step"] == 4
        supervised = [row["supervision"] for row in history]
        assert all(value > 0 for value in supervised) if run == "3drs" else not any(supervised)
        assert (results / "train" / run / "model" / "config.json").is_file()
        for benchmark, split in BENCHMARKS.items():
            records = lines(results / "instructions" / f"{benchmark}_{split}.jsonl")
            rows = lines(results / "eval" / run / benchmark / "predictions.jsonl")
            assert [row["id"] for row in rows] == [record["id"] for record in records]
            metrics = json.loads((results / "eval" / run / benchmark / "metrics.json").read_text())
            assert metrics["n"] == len(rows)
            assert HEADLINE[benchmark] <= set(metrics["metrics"])
    with (results / "report" / "summary.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["run"] for row in table] == list(RUNS)
    for benchmark, names in HEADLINE.items():
        assert all(f"{benchmark}:{name}" in table[0] for name in names)
    assert "\\begin{tabular}" in (results / "report" / "summary.tex").read_text()
    assert all(f"| {run} |" in (results / "report" / "summary.md").read_text() for run in RUNS)
    page = (results / "report" / "index.html").read_text()
    for wanted in (*RUNS, *BENCHMARKS, "data:image/jpeg;base64", "Published, on ScanNet"):
        assert wanted in page
    assert (results / "scenes" / "report.html").is_file()
    assert "../scenes/report.html" in page
    assert page.count('<article class="card"') == 2 * len(BENCHMARKS)
