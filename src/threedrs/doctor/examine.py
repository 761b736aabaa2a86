"""Checks of the machine and the data before a run costs time: one line each, with the remedy.

Costs some ten seconds, most of them the import of torch; on a slow file system a few more for the
look at every input file.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from threedrs.config.load import Config
from threedrs.doctor import earlier_results, file_system, input_files, machine
from threedrs.doctor.finding import Finding, Setting, error

Check = Callable[[Setting], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "python": machine.check_python,
    "packages": machine.check_packages,
    "gpu": machine.check_gpu,
    "flash-attn": machine.check_attention,
    "java": machine.check_java,
    "slurm": machine.check_slurm,
    "disk": file_system.check_disk,
    "file system": file_system.check_file_system,
    "data": input_files.check_inputs,
    "models": input_files.check_models,
    "stores": earlier_results.check_stores,
    "results": earlier_results.check_versions,
    "licences": input_files.check_licences,
}


def examine(
    config: Config,
    root: Path,
    *,
    slurm: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """Return the findings for running ``config`` from the repository at ``root``.

    With ``slurm`` the run goes to Slurm, which is then required. ``say`` is told of each check.
    """
    setting = Setting(config=config, root=root, slurm=slurm)
    found = []
    for name, check in CHECKS.items():
        say(f"checking {name}")
        found += [
            replace(finding, check=finding.check or name) for finding in _findings(check, setting)
        ]
    return found


def _findings(check: Check, setting: Setting) -> Iterator[Finding]:
    """Yield the findings of ``check``, and one more where the system refuses a look at a file."""
    try:
        yield from check(setting)
    except OSError as refusal:
        yield error(
            f"{refusal.filename or 'a file'}: cannot be looked at ({refusal.strerror or refusal})",
            "let this user enter the folder and read the file; where results/ is a link, make its "
            "folder",
        )
