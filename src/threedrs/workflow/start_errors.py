"""What Snakemake says where it cannot start, on one line with what to do about it."""

import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from threedrs import errors
from threedrs.config.yaml_files import check_yaml
from threedrs.errors import choose_one, problems_of, user_message

MOST_PATHS = 2000  # possible files of an output whose names are compared
_SYSTEM = re.compile(r"\[Errno (\d+)\] [^:]+: '([^']+)'$")
_PROTECTED = re.compile(r"affected files:\s+(\S+)")
_MISSING = re.compile(r"No rule to produce (\S+)")
# Wildcard -> the key of the configuration that decides its values.
_KEYS = {"run": "runs", "benchmark": "eval.benchmarks", "teacher": "teacher.name"}


def plain_error(
    text: str, exception: str | None, rules: Sequence[Any], names: Mapping[str, Sequence[str]]
) -> str:
    """Return on one line what Snakemake says in several, without its traceback.

    Args:
        exception: name of the exception that the text is of.
        rules: Snakemake's rules, as far as they have been read.
        names: wildcard -> the values that it can have.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [str(exception)]
    if hasattr(errors, str(exception)):  # for the user to mend, whatever line of the code raised it
        lines = [line for line in lines if not line.startswith('File "')]
    said = " ".join(lines[1:] if len(lines) > 1 and lines[0].endswith(":") else lines)
    if lines[0].startswith("Traceback"):
        said = lines[-1]
    if exception == "FileNotFoundError" and (found := re.search(r"'([^']+)'$", lines[-1])):
        # A target behind files, as in `--configfile a.yaml all`, is taken for one of them.
        target = "" if Path(found[1]).suffix else ", and -- between files and targets"
        said = f"{found[1]}: is not there; give the path of a file that is{target}"
    elif said.startswith(("Config file ", "UnicodeDecodeError", "IsADirectoryError")):
        # Snakemake says neither which of the files nor which line.
        said = "; ".join(problems_of(partial(check_yaml, _configuration_files()))) or said
    elif found := _SYSTEM.search(lines[-1]):
        number, path = int(found[1]), found[2]
        said = user_message(OSError(number, os.strerror(number), path)) or said
    elif exception == "ProtectedOutputException" and (found := _PROTECTED.search(text)):
        said = (
            f"{found[1]}: is write-protected; make it and its folder writable for this user, or "
            "results/ a link to a folder that is, and run the same again"
        )
    elif exception == "LockException":
        said = (
            "another Snakemake is at work on the same files in this folder; wait until it has "
            "ended, or work in another clone, and run the same again"
        )
    elif exception == "MissingRuleException" and rules and (found := _MISSING.search(text)):
        said = f"{found[1]}: {_advice(found[1], rules, names)}"
    # Of a resource that is not a number Snakemake says as well where its rule stands.
    said = said.removeprefix("Error: ").partition(" Traceback: ")[0]
    return f"threedrs: error: {said}"


def _configuration_files() -> list[Path]:
    """Return the files that ``--configfile`` names, on the command line or in a profile."""
    from snakemake.cli import parse_args

    # It says again which profile it reads.
    with redirect_stderr(io.StringIO()):
        _, options = parse_args(sys.argv[1:])
    # A target that is taken for a file is not one.
    return [path for path in map(Path, options.configfile) if path.exists()]


def _advice(name: str, rules: Sequence[Any], names: Mapping[str, Sequence[str]]) -> str:
    """Return that no rule makes ``name``, and what it may be a slip of."""
    if "/" not in name:
        return f"is not a target; {choose_one(name, [r.name for r in rules if not r.output])}"
    near = difflib.get_close_matches(name, _paths(rules, names), n=1)
    nearest = f"; did you mean {near[0]}?" if near else "."
    known = [f"{wildcard} ({key}): {', '.join(names[wildcard])}" for wildcard, key in _KEYS.items()]
    return f"no rule makes it{nearest} The configuration's names are {'; '.join(known)}"


def _paths(rules: Sequence[Any], names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the files that the rules make of the configuration's names."""
    for output in (str(output) for rule in rules for output in rule.output):
        # Snakemake writes a wildcard with its constraint, as in {run,a|b}.
        plain = re.sub(r"\{(\w+)(?:,[^{}]*)?\}", r"{\1}", output)
        wildcards = [name for name in names if f"{{{name}}}" in plain]
        filled = itertools.product(*(names[name] for name in wildcards))
        for values in itertools.islice(filled, MOST_PATHS):
            path = plain
            for name, value in zip(wildcards, values, strict=True):
                path = path.replace(f"{{{name}}}", value)
            yield path
