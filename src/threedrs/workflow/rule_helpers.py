"""What the rule files call: checks that stop a start in a few lines, and what jobs ask for."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from threedrs.errors import ConfigError, ThreedrsError, did_you_mean, user_message
from threedrs.io.files import read_text
from threedrs.teachers.known_teachers import get_teacher

T = TypeVar("T")
COUNTS = ("threads", "gpu", "nodes", "tasks")  # what a profile may set, beside sizes and times
_IN_EXPRESSIONS = ("attempt", "threads")  # numbers that Snakemake knows by name

Need = Callable[[Any], int]  # from a job's wildcards to an amount


def checked(check: Callable[..., T], *arguments: Any) -> T:
    """Return what ``check`` returns; where it finds a fault, end the process with its lines."""
    try:
        return check(*arguments)
    except (ThreedrsError, OSError) as error:  # such as a folder that this user cannot enter
        lines = (user_message(error) or str(error)).splitlines()
        sys.exit("\n".join(f"threedrs: error: {line}" for line in lines))


def check_cores(cores: int | None) -> None:
    """Check that jobs have a core to run on; Snakemake would wait for one for ever.

    Raises:
        ConfigError: there is none.
    """
    if cores == 0:
        raise ConfigError("--cores 0: no job could start; give 1 or more, or all")


def check_amounts(settings: Any) -> None:
    """Check what set-resources and set-threads, of a profile or the command line, ask for.

    Raises:
        ConfigError: a count is a word. Snakemake hands it on, and the job fails at its end.
    """
    threads = {rule: {"threads": amount} for rule, amount in settings.overwrite_threads.items()}
    for overrides in (settings.overwrite_resources, threads):
        for rule, name in itertools.product(overrides, COUNTS):
            amount = overrides[rule].get(name)
            said = str(amount.raw) if amount is not None and amount.is_evaluable() else ""
            if said.isidentifier() and said not in _IN_EXPRESSIONS:
                raise ConfigError(
                    f"{name} of rule {rule} is set to {said}, which is not a number; give one, or "
                    "an expression such as attempt*2"
                )


def check_rule_names(settings: Any, folder: Path) -> None:
    """Check that set-resources and set-threads name rules of the files in ``folder``.

    Raises:
        ConfigError: a name is nearly that of a rule. Snakemake ignores it. So are other names
            here, as a profile may serve other workflows as well.
    """
    # Which of them a start has depends on its configuration, a profile does not.
    texts = (read_text(path) for path in sorted(folder.glob("*.smk")))
    rules = {name for text in texts for name in re.findall(r"^ *rule (\w+):", text, re.MULTILINE)}
    for option in ("resources", "threads"):
        for name in getattr(settings, f"overwrite_{option}").keys() - rules:
            if nearest := did_you_mean(name, rules, cutoff=0.8):
                raise ConfigError(f"set-{option}: {name} is not a rule; {nearest}")


def gate(main: bool, check: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return no files, for the input of a rule; stop as `checked` where ``check`` finds a fault.

    Args:
        main: whether this is the process that the user started. Only that one asks, as a job's own
            process would ask again for what was found already.
    """
    if main:
        checked(check, *arguments)
    return []


def teacher_need(kind: str) -> Need:
    """Return the function that gives a resource of a feature job."""
    return lambda wildcards: get_teacher(wildcards.teacher).needs[kind]


def more_each_time(memory: Need) -> Callable[[Any, int], int]:
    """Return a job's memory as a function of the attempt: as much again with every one."""
    return lambda wildcards, attempt: attempt * memory(wildcards)  # Snakemake goes by these names


def in_force(workflow: Any, rule: str) -> Callable[[str, int], int | None]:
    """Return the function from a resource and what ``rule`` asks for to what its jobs get.

    A profile's set-resources and the limits of ``--resources`` decide, as Snakemake's ``workflow``
    holds them. The function gives None where only the job knows.
    """
    overrides = workflow.resource_settings.overwrite_resources.get(rule, {})
    limits = workflow.global_resources

    def of_resource(name: str, asked: int) -> int | None:
        override, limit = overrides.get(name), limits.get(name)
        if override is not None:
            if override.is_evaluable():
                return None
            asked = override.value
        # Snakemake lowers what a job asks for to the limit of the whole run.
        most = limit.value if limit is not None else None
        return min(asked, most) if isinstance(asked, int) and most is not None else asked

    return of_resource
