"""The options of a configuration may be typed as for snakemake."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from threedrs.cli.shared import ConfigFiles, ConfiguredCommand, ConfigValues


def _asked(arguments: list[str]) -> tuple[list[Path] | None, list[str] | None, str]:
    app, found = typer.Typer(), []

    @app.command(cls=ConfiguredCommand)
    def command(
        checkpoint: str, configfile: ConfigFiles = None, values: ConfigValues = None, gpus: int = 1
    ) -> None:
        found.append((configfile, values, checkpoint))

    CliRunner().invoke(app, arguments, catch_exceptions=False)
    return found[0]


@pytest.mark.parametrize(
    "arguments",
    [
        "C --configfile a.yaml b.yaml --config x=1 y=2",
        "C --configfile a.yaml --configfile b.yaml --config x=1 --config y=2",
        "--configfile a.yaml b.yaml --config x=1 y=2 C",
        "--configfile a.yaml b.yaml C --config x=1 y=2 --gpus 2",
        "--config x=1 y=2 --gpus 2 --configfile=a.yaml --configfile b.yaml -- C",
    ],
)
def test_several_values_of_one_option(arguments: str) -> None:
    assert _asked(arguments.split()) == ([Path("a.yaml"), Path("b.yaml")], ["x=1", "y=2"], "C")
