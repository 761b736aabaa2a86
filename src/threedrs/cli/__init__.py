"""The ``threedrs`` command: one file here per group of commands.

Command functions import what they need when called, so that ``threedrs --help`` stays quick.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from threedrs import __version__
from threedrs.cli import (
    chat,
    doctor,
    evaluate,
    instructions,
    plan,
    predictions,
    published_data,
    scans,
    stores,
)
from threedrs.cli.shared import ConfiguredCommand, say_error
from threedrs.errors import one_line_errors
from threedrs.workflow.processes import check_package

app = typer.Typer(
    name="threedrs",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    # Plain help: boxes cut options and paths in a narrow terminal.
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"threedrs {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """3DRS as one workflow: ScanNet scans in, five benchmark scores out."""


app.command("demo")(scans.demo)
app.command("import-rgbd")(scans.import_rgbd)
app.command("download")(published_data.download)
app.command("unpack")(published_data.unpack)
app.add_typer(scans.sens_app, name="sens")
app.add_typer(stores.scene_app, name="scene")
app.add_typer(instructions.app, name="instructions")
app.add_typer(stores.features_app, name="features")
app.add_typer(evaluate.model_app, name="model")
app.add_typer(predictions.app, name="predictions")
app.command("eval", cls=ConfiguredCommand)(evaluate.evaluate)
app.command("score")(evaluate.score)
app.command("ask")(chat.ask)
app.command("chat")(chat.chat)
app.command("awareness")(evaluate.awareness)
app.command("plan", cls=ConfiguredCommand)(plan.plan)
app.command("doctor", cls=ConfiguredCommand)(doctor.doctor)
app.command("verify")(doctor.verify)
app.command("publish")(published_data.publish)


def main() -> None:
    """Run the command line, and end in one line and status 1 where the user can mend the error."""
    with one_line_errors("threedrs: error", say_error):
        check_package(Path.cwd())
        # Without it, help is never narrower than 50 columns.
        app(terminal_width=min(shutil.get_terminal_size().columns, 80))
