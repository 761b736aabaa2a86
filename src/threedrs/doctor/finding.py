"""The input of a check and its outcome."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from threedrs.config.load import Config


@dataclass(frozen=True)
class Finding:
    """One check's outcome, one line."""

    # ``warning``: the run works, but slower or without a part; ``error``: it would stop.
    status: Literal["ok", "warning", "error"]
    message: str  # what was found
    remedy: str = ""  # what to do about a warning or an error; empty where nothing needs to be done
    check: str = ""  # the check's name, which `examine` adds; several findings may have the same


ok = partial(Finding, "ok")
warning = partial(Finding, "warning")
error = partial(Finding, "error")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The configuration and the place that are examined."""

    config: Config  # the checked configuration
    root: Path  # the repository's folder
    slurm: bool = False  # whether the run goes to Slurm (``--profile slurm``)

    @property
    def results(self) -> Path:
        """The folder that everything is written to, which may not be there yet."""
        return self.root / "results"

    @property
    def written_folder(self) -> Path:
        """The results folder, or the one that will hold it; a link to nothing counts as neither."""
        there = self.results.is_dir() or self.results.is_symlink()
        return self.results if there else self.root
