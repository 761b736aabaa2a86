"""The ``threedrs`` command: one file here per group of commands.

Command functions import what they need when called, so that ``threedrs --help`` stays quick.
"""

import typer

from threedrs.cli import (
    ask,
    demo,
    doctor,
    efficiency,
    evaluate,
    features,
    instructions,
    model,
    plan,
    scans,
    scenes,
    verify,
)
from threedrs.errors import one_line_errors

app = typer.Typer(
    name="threedrs",
    help="3DRS as one workflow: ScanNet scans in, five benchmark scores out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("import-rgbd")(scans.import_rgbd)
app.add_typer(scans.sens_app, name="sens")
app.add_typer(scenes.app, name="scene")
app.add_typer(instructions.app, name="instructions")
app.add_typer(features.app, name="features")
app.add_typer(model.app, name="model")
app.command("score")(evaluate.score)
app.command("ask")(ask.ask)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("efficiency")(efficiency.efficiency)
app.command("verify")(verify.verify)


def main() -> None:
    """Run the command line; an error the user can put right ends in one line and status 1."""
    with one_line_errors("threedrs: error"):
        app()
