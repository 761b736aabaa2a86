"""``threedrs predictions``: our predictions to the field's rows, and the field's to ours."""

from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.names import check_file, check_out
from threedrs.cli.shared import say
from threedrs.errors import counted

app = typer.Typer(help="Predictions of others and for others.", no_args_is_help=True)
Records = Annotated[
    Path, typer.Option(help="The questions: results/instructions/<benchmark>_<split>.jsonl.")
]


@app.command()
def export(
    predictions: Annotated[Path, typer.Argument(help="The predictions.jsonl of a run.")],
    records: Records,
    out: Annotated[Path, typer.Option(help="The file of rows to write.")],
    model_id: Annotated[
        str | None, typer.Option(help="Name of the model; default: the run, taken from the path.")
    ] = None,
) -> None:
    """Write predictions as the rows that the field's own scorers read."""
    _check_names(predictions, records, out)

    from threedrs.evaluation.external_predictions import export_predictions
    from threedrs.tasks.prediction import read_meta

    # results/eval/<run>/<benchmark>/predictions.jsonl
    name = model_id or predictions.resolve().parent.parent.name
    rows = export_predictions(predictions, records, out, name)
    say(f"{out}: {counted(rows, 'row')}")
    if limit := (read_meta(out) or {}).get("limit"):
        say(
            f"{out}: the first {limit['questions']} of {counted(limit['of'], 'question')} only, "
            "which gives no score of the benchmark"
        )


@app.command("import")
def import_rows(
    predictions: Annotated[Path, typer.Argument(help="The field's rows (docs/EVALUATION.md).")],
    records: Records,
    out: Annotated[Path, typer.Option(help="The predictions.jsonl to write.")],
) -> None:
    """Write the field's rows as ours, with all true answers."""
    _check_names(predictions, records, out)

    from threedrs.evaluation.external_predictions import import_predictions

    rows, questions, fewer = import_predictions(predictions, records, out)
    say(f"{out}: answers to {rows} of {counted(questions, 'question')}")
    if fewer:
        say(
            f"{out}: for {fewer} of them {records} has fewer true answers than {predictions}; "
            "scores come out too low: convert the annotation files again"
        )


def _check_names(predictions: Path, records: Path, out: Path) -> None:
    from threedrs.tasks.prediction import meta_path

    check_file(predictions)
    check_file(records)
    meta = meta_path(predictions)
    # A meta file is written too: beside predictions.jsonl, predictions.json would have the same.
    for written in (out, meta_path(out)):
        check_out(written, predictions, records, meta)
