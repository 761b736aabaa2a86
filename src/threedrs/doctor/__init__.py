"""Checks of the machine and the data before a run costs time: one line each, with the remedy.

Costs some ten seconds, most of them the import of torch; on a slow file system a few more for the
look at every input file.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from threedrs.config.load import Config
from threedrs.doctor.data import check_inputs, check_licences
from threedrs.doctor.file_system import check_disk, check_file_system, check_inodes
from threedrs.doctor.finding import Finding, Setting
from threedrs.doctor.machine import (
    check_attention,
    check_gpu,
    check_java,
    check_packages,
    check_python,
    check_slurm,
)
from threedrs.doctor.verify import check_stores, check_versions

__all__ = ["CHECKS", "Finding", "Setting", "examine"]

CHECKS: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_gpu,
    check_attention,
    check_java,
    check_slurm,
    check_disk,
    check_inodes,
    check_file_system,
    check_inputs,
    check_stores,
    check_versions,
    check_licences,
)


def examine(config: Config, root: Path, *, slurm: bool = False) -> list[Finding]:
    """Return the findings for running ``config`` from the repository at ``root``.

    Args:
        config: the checked configuration.
        root: the repository's folder.
        slurm: whether the run goes to Slurm, which is then required.
    """
    setting = Setting(config=config, root=root, slurm=slurm)
    return [finding for check in CHECKS for finding in _outcome(check, setting)]


def _outcome(check: Callable[[Setting], Iterator[Finding]], setting: Setting) -> list[Finding]:
    """Return the findings of ``check``, and one more where the system refuses a look at a file."""
    found: list[Finding] = []
    try:
        for finding in check(setting):
            found.append(finding)
    except OSError as error:
        found.append(
            Finding(
                check=check.__name__.removeprefix("check_").replace("_", " "),
                status="error",
                message=f"{error.filename or 'a file'}: cannot be looked at "
                f"({error.strerror or error})",
                remedy="let this user enter the folder and read the file; where results/ is a "
                "link, make its folder",
            )
        )
    return found
