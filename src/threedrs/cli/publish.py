"""``threedrs publish``: a trained run on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.names import completion, trained_runs


def publish(
    run: Annotated[
        str,
        typer.Argument(
            help="A trained and scored run, e.g. 3drs.", autocompletion=completion(trained_runs)
        ),
    ],
    repo: Annotated[
        str | None, typer.Option(help="Name on the Hub, OWNER/NAME or NAME; default: the run's.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For everybody to see; default: private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write the folder, and upload nothing.")
    ] = False,
    results: Annotated[Path, typer.Option(help="The results folder.")] = Path("results"),
) -> None:
    """Upload a run's model to the Hugging Face Hub, with card, scores and provenance.

    It takes your own token (`hf auth login`, or HF_TOKEN). The card holds each score with its
    interval, the training's settings, licences, commit, hashes and counts of the data.
    """
    from threedrs.report.publish import check_token, upload, write_publication

    if not dry_run:  # asked first, as all files of the model are read next
        check_token()
    folder = write_publication(run, results)
    typer.echo(f"{folder}: written; README.md there is the card")
    if not dry_run:
        typer.echo(f"uploaded to {upload(folder, repo or run, public)}")
