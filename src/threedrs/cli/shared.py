"""What several commands share: the option for configuration files, the console, tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Configuration on top of config/config.yaml."),
]


def console() -> "Console":
    """Return a console that prints texts as they are and breaks no line."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table without lines, the first column to the left and the others to the right."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False)
    for number, name in enumerate(head):
        found.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        found.add_row(*row)
    return found
