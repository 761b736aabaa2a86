"""What several commands share: the options of the configuration, the console, tables."""

import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.table import Table

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", help="Configurations on top of config/config.yaml."),
]
ConfigValues = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="KEY=VALUE",
        help="Values on top of them, as snakemake takes them: 'data={root: FOLDER}'.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
_QUIET = 10.0  # seconds between two lines of progress in a file
_OF_OPTION = {
    "--configfile": re.compile(r"(?!-).*\.(yaml|yml|json)"),
    "--config": re.compile(r"[A-Za-z_][\w-]*=.*", re.DOTALL),
}


class ConfiguredCommand(TyperCommand):
    """A command that takes ``--configfile A B`` and ``--config A=1 B=2``, as snakemake does.

    An option of click takes one value, so each further one gets the option's name before it. What
    cannot be such a value is left alone, as it may be the command's own argument.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return click's remaining arguments."""
        spread: list[str] = []
        option = None
        for argument in args:
            if argument in _OF_OPTION:
                option = argument
            elif option and spread[-1] != option and _OF_OPTION[option].fullmatch(argument):
                spread.append(option)
            elif option and spread[-1] != option:
                option = None
            spread.append(argument)
        return super().parse_args(ctx, spread)


def wrapped(line: str, stream: TextIO | None = None) -> str:
    """Return a line broken at words where ``stream``, the output by default, is a terminal."""
    if not (stream or sys.stdout).isatty():
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    # A path or a command that is longer than the terminal is left whole, to be copied.
    return textwrap.fill(
        line,
        shutil.get_terminal_size().columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def say(*lines: str) -> None:
    """Print lines, in a terminal broken at words."""
    for line in lines:
        # A program at the other end of a pipe waits for the reply before it asks again.
        print(wrapped(line), flush=True)


def report(value: Any, as_json: bool, *lines: str, indent: int | None = 2) -> None:
    """Print what a command found: lines, or for scripts the value as JSON."""
    if as_json:
        print(json.dumps(value, indent=indent, allow_nan=False), flush=True)
    else:
        say(*lines)


def say_error(line: str) -> None:
    """Print an error's lines."""
    for part in line.splitlines():
        print(wrapped(part, sys.stderr), file=sys.stderr)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield what shows a step: in place on a terminal, elsewhere as a line now and then."""
    from rich.console import Console

    shown = Console(stderr=True, markup=False)
    if shown.is_terminal:
        with shown.status("") as status:
            yield status.update
        return
    last = time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _QUIET:
            last = time.monotonic()
            typer.echo(line, err=True)

    yield say


def print_whole(found: "Table") -> None:
    """Print a table with whole words, wider than the terminal or 80 columns where it has to be."""
    from rich.console import Console
    from rich.measure import Measurement

    usual = Console()
    needed = Measurement.get(usual, usual.options.update(max_width=1000), found).maximum
    Console(width=max(usual.width, needed)).print(found)
