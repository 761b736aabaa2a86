"""Which of the package's modules a stage runs, so that edited code makes its results stale.

Snakemake does not see edits in imported modules. The closure of a stage's entry module over the
package's own import statements (also those inside functions) is listed as that stage's input.
Reading and parsing the package takes a fraction of a second.
"""

import ast
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from threedrs.io.files import sha256_of_file, sha256_of_json

PACKAGE = Path(__file__).parents[1]
# Shared helpers that shape no result: an edit to them reruns nothing.
SHARED = (
    "",
    "errors",
    "io.files",
    "distributed.gpus",
    "scannet.layout",
    "workflow.code_inputs",
    "workflow.job_log",
    "workflow.locks",
)


def module_files(*entries: str, without: Sequence[str] = ()) -> list[Path]:
    """Return the source files of ``entries`` and of all they import from the package.

    Names are dotted and relative to the package. ``without`` and the shared helpers are neither
    listed nor followed.

    Raises:
        FileNotFoundError: an entry is not a module of the package.
    """
    return list(_closure(entries, tuple(without)))


def hash_of_code(files: Iterable[Path]) -> str:
    """Return the hash of source files of the package, by name and content, wherever it lies."""
    return sha256_of_json(
        {file.relative_to(PACKAGE).as_posix(): sha256_of_file(file) for file in files}
    )


@cache
def _closure(entries: tuple[str, ...], without: tuple[str, ...]) -> tuple[Path, ...]:
    """The same; every job of a rule whose inputs are a function asks again."""
    found: set[Path] = set()
    left_out = {_file_of(f"threedrs.{name}".rstrip(".")) for name in (*SHARED, *without)}
    waiting = [_file_of(f"threedrs.{entry}") for entry in entries]
    for entry, file in zip(entries, waiting, strict=True):
        if file is None:
            raise FileNotFoundError(f"threedrs.{entry} is not a module")
    while waiting:
        file = waiting.pop()
        if file is None or file in found or file in left_out:
            continue
        found.add(file)
        waiting += [_file_of(name) for name in _imports(file)]
    return tuple(sorted(found))


@cache
def _file_of(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != "threedrs":
        return None
    path = PACKAGE.joinpath(*parts[1:])
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _imports(file: Path) -> frozenset[str]:
    """Dotted names that a file's import statements may load; some may be no modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)
