"""``threedrs score``: predictions to metrics, without model, GPU or data set."""

from pathlib import Path
from typing import Annotated

import typer


def score(
    benchmark: Annotated[
        str, typer.Argument(help="the benchmark, by a name of the config's eval.benchmarks")
    ],
    predictions: Annotated[
        Path,
        typer.Argument(help="predictions.jsonl, or the field's own jsonl (docs/EVALUATION.md)"),
    ],
    out: Annotated[Path, typer.Option(help="where metrics.json is written")],
    bootstrap: Annotated[
        int, typer.Option(help="resamples for the 95 % intervals (scenes as clusters); 0: none")
    ] = 1000,
    no_meteor: Annotated[
        bool, typer.Option("--no-meteor", help="leave METEOR out (it needs Java and is slow)")
    ] = False,
    run: Annotated[
        str | None, typer.Option(help="name of the run; default: taken from the path")
    ] = None,
    per_question: Annotated[
        Path | None,
        typer.Option(help="where the per-question values are written; default: nowhere"),
    ] = None,
) -> None:
    """Score a benchmark's predictions; values are percent, as papers print them."""
    from rich.console import Console

    from threedrs.evaluation.score import score_file
    from threedrs.evaluation.tables import metrics_table, notes

    result = score_file(
        benchmark,
        predictions,
        out,
        bootstrap=bootstrap,
        meteor=not no_meteor,
        run=run,
        per_question=per_question,
    )
    console = Console()
    console.print(metrics_table(result))
    for line in notes(result):
        console.print(line, markup=False)
