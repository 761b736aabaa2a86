"""``threedrs doctor``: is this machine ready? ``threedrs verify``: which results are damaged?"""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from threedrs.cli.names import RESULTS
from threedrs.cli.shared import AsJson, ConfigFiles, ConfigValues, progress, report, say, wrapped

if TYPE_CHECKING:
    from threedrs.config.load import Config
    from threedrs.doctor.finding import Finding


def doctor(
    configfile: ConfigFiles = None,
    values: ConfigValues = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="For snakemake --profile slurm: Slurm must be there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the machine and the data, from the repository's folder.

    Ends with status 1 if a run would stop, 0 with warnings only.
    """
    from threedrs.config.load import check_config
    from threedrs.config.yaml_files import merged, parse_values
    from threedrs.doctor.finding import Finding
    from threedrs.errors import ConfigError

    config: Config | None = None
    findings: list[Finding] = []
    problems: list[str] = []
    try:
        asked = merged(configfile or [], "doctor", parse_values(values or []))
        config, problems = check_config(asked)
        if config is not None:
            with progress() as show:
                show("loading torch")
                from threedrs.doctor.examine import examine

                findings = examine(config, Path.cwd(), slurm=slurm, say=show)
    # A configuration that cannot be read is the first finding; nothing else can be asked then.
    except ConfigError as error:
        problems += str(error).splitlines()
    findings = [Finding("error", line, check="config") for line in problems] + findings
    if as_json:
        report([asdict(finding) for finding in findings], as_json)
    else:
        _print(findings)
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(1)


def _print(findings: "list[Finding]") -> None:
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for finding in findings:
        remedy = f": {finding.remedy}" if finding.remedy else ""
        text = wrapped(f"{finding.status:8} {finding.check:12}{finding.message}{remedy}")
        typer.echo(typer.style(text[:8], fg=colours[finding.status]) + text[8:])


def verify(
    results: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove what stands for a damaged result.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read all results again and name the damaged ones.

    The status is 1 if there are any. With --repair they can be remade: the commands to do so are
    printed. What is undamaged stays, and what would cost a whole training.
    """
    from threedrs.doctor.verify import in_steps, verify_results

    with progress() as show:
        found = verify_results(results, say=show)
    files = sorted({damage.remake for damage in found if damage.remake is not None})
    names = [str(file) for file in files]
    problems = [damage.problem for damage in found]
    lines = problems or [f"{results}: no damage found"]
    if files and not repair:
        elsewhere = [] if results == RESULTS else ["--results", str(results)]
        command = ["threedrs", "verify", *elsewhere, "--repair"]
        lines.append(
            f"`{shlex.join(command)}` removes {', '.join(names)} and says how to remake them"
        )
    report({"problems": problems, "to_remove": names}, as_json, *lines)
    if not files or not repair:
        raise typer.Exit(bool(found))
    # Before anything is removed, as the order follows from what Snakemake recorded of the files.
    steps = in_steps(results, files)
    for file in files:
        file.unlink(missing_ok=True)
    commands = [
        shlex.join(["snakemake", "--cores", "all", *(file.as_posix() for file in step)])
        for step in steps
    ]
    if not as_json:
        say(
            "Removed. Make them again with these commands in this order, with your own "
            "--configfile or --profile:",
            *commands,
            "snakemake --cores all all",
        )
    raise typer.Exit(1)
