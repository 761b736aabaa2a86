"""The options of a configuration may be typed as for snakemake."""

import os
import sys
from pathlib import Path

import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from threedrs.cli import shared
from threedrs.cli.shared import (
    ConfigFiles,
    ConfiguredCommand,
    ConfigValues,
    print_whole,
    progress,
)


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


def test_a_table_has_whole_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    head = ["metric", "unknown", "which of them", "how many of them", "other"]
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, no_wrap=True)
    table.add_row("em", "1", "2", "3", "4")
    print_whole(table)
    assert capsys.readouterr().out.splitlines()[0].split("  ") == head


def test_progress_in_a_file_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(shared.time, "monotonic", lambda: now[0])
    with progress() as say:
        for second in range(25):
            now[0] = 100.0 + second
            say(f"step {second}")
    assert capsys.readouterr().err == "step 10\nstep 20\n"


def test_a_reply_passes_a_pipe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    # As Python opens the standard output for a pipe: with a buffer.
    with os.fdopen(writing, "w") as output, os.fdopen(reading) as replies:
        monkeypatch.setattr(sys, "stdout", output)
        shared.say("yes")
        shared.report({"answer": "no"}, True, indent=None)
        os.set_blocking(reading, False)
        assert [replies.readline(), replies.readline()] == ["yes\n", '{"answer": "no"}\n']
        monkeypatch.undo()


def test_a_terminal_gets_lines_broken_at_words(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    line = "  would fit: config/deepspeed/zero3_offload_of_all.json takes 3 GB"
    shared.say(line)
    monkeypatch.setattr(shared.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "24")
    shared.say(line, "1  +0.093")
    assert capsys.readouterr().out.splitlines() == [
        line,
        "  would fit:",
        "    config/deepspeed/zero3_offload_of_all.json",
        "    takes 3 GB",
        "1  +0.093",
    ]
