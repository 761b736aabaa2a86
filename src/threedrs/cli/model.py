"""``threedrs model``: a trained model's files."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Work on a trained model's files.", no_args_is_help=True)


@app.callback()
def model() -> None:
    """Work on a trained model's files."""


@app.command()
def merge(
    run_model: Annotated[Path, typer.Argument(help="Model folder of a LoRA run.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
) -> None:
    """Write adapter and base model as one whole checkpoint in the published layout."""
    from threedrs.models.checkpoint.load_save import merge_adapter

    merge_adapter(run_model, out)
    typer.echo(f"{out}: written")
