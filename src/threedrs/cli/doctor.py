"""``threedrs doctor``: is this machine ready for this configuration?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from threedrs.config import Config


def doctor(
    configfile: Annotated[
        list[Path] | None,
        typer.Option("--configfile", help="Configuration on top of config/config.yaml."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Check the machine and the data; run it from the repository's folder."""
    import yaml
    from rich.console import Console
    from snakemake.utils import update_config

    from threedrs import doctor as checks
    from threedrs.config import load_config
    from threedrs.errors import ConfigError

    config: dict = {}
    for path in [Path("config/config.yaml"), *(configfile or [])]:
        if not path.is_file():
            raise ConfigError(f"{path}: missing; run threedrs doctor from the repository's folder")
        update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    config_checked = load_config(config, Path("workflow/schemas/config.schema.yaml"))
    findings = checks.examine(config_checked, Path.cwd())
    if as_json:
        print(json.dumps(checks.as_json(findings), indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        for finding in findings:
            colour = colours[finding.status]
            console.print(f"[{colour}]{finding.status:8}[/] {finding.check:11} ", end="")
            console.print(finding.message, markup=False)
        _print_sources(console, config_checked)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)


def _print_sources(console: "Console", config: "Config") -> None:
    """Print how many scenes have which files; nothing for demo data or without scene lists."""
    from rich.table import Table

    from threedrs.config import data_layout
    from threedrs.sources import source_table, summary_rows

    layout = data_layout(config)
    splits = [split for split in ("train", "val") if layout.split_file(split).is_file()]
    if config["data"]["demo"] or not splits:
        return
    table = Table("split", "files", "scenes", "without", title="What the scans have")
    for row in summary_rows(source_table(layout, {s: layout.scenes(s) for s in splits})):
        table.add_row(*row)
    console.print(table)
