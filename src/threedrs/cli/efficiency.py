"""``threedrs efficiency``: which requests of the jobs are wasteful."""

from pathlib import Path
from typing import Annotated

import typer


def efficiency(
    results: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("results"),
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
) -> None:
    """Compare what the jobs asked for with what they used, rule by rule; say what would do.

    A star marks a request of which half would do. Waits in the queue come from Slurm.
    """
    from threedrs.efficiency import advice, queue_waits, rule_uses, table
    from threedrs.errors import DataError
    from threedrs.workflow.job_usage import read_job_records

    folder = results / "benchmarks"
    uses = rule_uses(read_job_records(folder), queue_waits(results.absolute().parent))
    if not uses:
        raise DataError(f"{folder}: no job has finished here; run the workflow first")
    rows = table(uses)
    if as_markdown:
        rows.insert(1, ["---"] * len(rows[0]))
        for row in rows:
            typer.echo(f"| {' | '.join(row)} |")
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            typer.echo("  ".join([first.ljust(widths[0]), *cells]))
    if lines := advice(uses):
        typer.echo("* half would do; in the profile (slurm/config.yaml), below set-resources:")
        typer.echo("\n".join(lines))
    if all(not job.threads for use in uses for job in use.jobs):
        typer.echo("What was asked for is not recorded: run with profiles/default.")
