"""``threedrs verify``: find damaged results, and let Snakemake remake them."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def verify(
    results: Annotated[Path, typer.Option(help="The folder of the results.")] = Path("results"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what stands for a damaged result.")
    ] = False,
) -> None:
    """Read all results again and name the damaged ones; exit status 1 if there are any.

    With --repair they can be remade: the commands to do so are printed. What is undamaged stays,
    and what would cost a whole training.
    """
    from threedrs.doctor.verify import in_steps, verify_results

    found = verify_results(results)
    for damage in found:
        typer.echo(damage.problem)
    if not found:
        typer.echo(f"{results}: no damage found")
        return
    files = {damage.remake for damage in found if damage.remake is not None}
    if not files:
        raise typer.Exit(1)
    if not repair:
        names = ", ".join(map(str, sorted(files)))
        typer.echo(f"`threedrs verify --repair` removes {names} and says how to remake them")
        raise typer.Exit(1)
    steps = in_steps(results, files)
    for file in files:
        file.unlink(missing_ok=True)
    typer.echo(
        "Removed. Make them again with these commands, with your own options, in this order:"
    )
    for step in steps:
        typer.echo(shlex.join(["snakemake", *(file.as_posix() for file in step)]))
    typer.echo("snakemake all")
    raise typer.Exit(1)
