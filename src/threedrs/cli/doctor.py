"""``threedrs doctor``: is this machine ready for this configuration?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from threedrs.config.load import Config
    from threedrs.doctor import Finding


def doctor(
    configfile: Annotated[
        list[Path] | None,
        typer.Option("--configfile", help="Configuration on top of config/config.yaml."),
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="For snakemake --profile slurm: Slurm must be there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list of check, status, message, remedy.")
    ] = False,
) -> None:
    """Check the machine and the data; run it from the repository's folder.

    Ends with status 1 if a run would stop, 0 with warnings only.
    """
    from threedrs.cli.configfiles import merged_configuration
    from threedrs.config.load import check_config
    from threedrs.doctor import Finding, examine
    from threedrs.errors import ConfigError

    config: Config | None = None
    findings: list[Finding] = []
    problems: list[str] = []
    try:
        merged = merged_configuration(configfile or [], "doctor")
        config, problems = check_config(merged, Path("workflow/schemas/config.schema.yaml"))
        if config is not None:
            findings = examine(config, Path.cwd(), slurm=slurm)
    except ConfigError as error:
        problems += str(error).splitlines()
    wrong = [
        Finding(check="config", status="error", message=line, remedy="correct the configuration")
        for line in problems
    ]
    findings = wrong + findings
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        _print(findings, config)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)


def _print(findings: "list[Finding]", config: "Config | None") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for finding in findings:
        console.print(
            f"[{colours[finding.status]}]{finding.status:8}[/] {finding.check:12}", end=""
        )
        remedy = f": {finding.remedy}" if finding.remedy else ""
        console.print(f"{finding.message}{remedy}", markup=False)
    if config is not None:
        _print_sources(console, config)


def _print_sources(console: "Console", config: "Config") -> None:
    """Print how many scenes have which files; nothing for demo data or without scene lists."""
    from rich.table import Table

    from threedrs.config.load import data_layout
    from threedrs.inputs.scan_table import source_table, summary_rows

    layout = data_layout(config)
    splits = [split for split in ("train", "val") if layout.split_file(split).is_file()]
    if config["data"]["demo"] or not splits:
        return
    table = Table("split", "files", "scenes", "without", title="What the scans have")
    scenes = {split: layout.scenes(split) for split in splits}
    for row in summary_rows(source_table(layout, scenes, config["boxes"]["ready"])):
        table.add_row(*row)
    console.print(table)
