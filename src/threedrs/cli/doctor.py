"""``threedrs doctor``: is this machine ready for this configuration?"""

import json
from pathlib import Path
from typing import Annotated

import typer


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
    findings = checks.examine(
        load_config(config, Path("workflow/schemas/config.schema.yaml")), Path.cwd()
    )
    if as_json:
        print(json.dumps(checks.as_json(findings), indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        for finding in findings:
            colour = colours[finding.status]
            console.print(f"[{colour}]{finding.status:8}[/] {finding.check:11} ", end="")
            console.print(finding.message, markup=False)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)
