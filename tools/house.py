"""Prints how the package is cut: lines, files, names, functions, imports and import circles.

    python tools/house.py [--source src] [--threads tools/threads.toml]

Everything is read from the working tree and nothing is imported, so any layout of any package can
be measured. The status is 1 if modules import each other in a circle at module level, or if the
list of threads names a file that is not there.

A thread is a question of a reader, such as "how does a frame get from the .sens file into the
store". Which files answer it is a judgement, so they are listed by hand in threads.toml, and this
script checks that each is there. A thread may name words instead; then every file of src and
workflow that holds one of them counts.
"""

import argparse
import ast
import io
import re
import statistics
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHORT_FILE = 60  # lines; a shorter file is seldom worth a reader's jump
LONG_FUNCTION = 60
# Prediction and metrics must work without the page and without training: (who, must not import).
FORBIDDEN_ARROWS = (("evaluation", "report"), ("evaluation", "training"))
SEARCHED = {".py", ".smk", ".json", ".yaml"}  # for the words of a thread
Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Module:
    """A parsed file of the package; ``name`` is what an import statement would say."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is the ``__init__.py`` of a folder."""
        return self.path.name == "__init__.py"

    @property
    def lines(self) -> int:
        """Number of lines, blank ones included."""
        return len(self.text.splitlines())


def read_modules(source: Path) -> list[Module]:
    """Parse every Python file below ``source``, in the order of their names."""
    modules = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules.append(Module(name, path, text, ast.parse(text, str(path))))
    return modules


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield name and number of lines of each function, without its decorators."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def import_lines(tree: ast.Module) -> int:
    """Count the lines of all import statements, wherever they stand."""
    return sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def comment_lines(text: str) -> int:
    """Count the lines that hold a comment; docstrings are not comments."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def import_statements(
    body: list[ast.stmt], *, inside_functions: bool
) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements that run; those under TYPE_CHECKING never do."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from import_statements(node.orelse, inside_functions=inside_functions)
        elif inside_functions or not isinstance(node, Function):
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(node, field, [])
                yield from import_statements(inner, inside_functions=inside_functions)
            for branch in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                yield from import_statements(branch.body, inside_functions=inside_functions)


def import_graph(modules: list[Module], *, inside_functions: bool = False) -> Graph:
    """Return module -> modules of the package that it imports.

    ``from a.b import c`` is an arrow to ``a.b.c`` if that is a module, else to ``a.b``. That an
    import also runs the ``__init__`` of the folders above is not an arrow.
    """
    known = {module.name for module in modules}
    graph: Graph = {name: set() for name in known}
    for module in modules:
        for node in import_statements(module.tree.body, inside_functions=inside_functions):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                base = node.module or ""
                if node.level:
                    up = node.level - 1 if module.is_package else node.level
                    parts = module.name.split(".")
                    base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
                names = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if name in known else base for name in names]
            graph[module.name].update({name for name in targets if name in known} - {module.name})
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules of which each imports, in some steps, all others."""
    reach = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        reach[start] = seen
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def forbidden_arrows(graph: Graph) -> list[str]:
    """Return the imports that go against the order of the packages, as ``a -> b``."""
    found = []
    for name, targets in sorted(graph.items()):
        for target in sorted(targets):
            if (_part(name), _part(target)) in FORBIDDEN_ARROWS:
                found.append(f"{name} -> {target}")
    return found


def _part(name: str) -> str:
    """Return the folder or module that stands directly in the package."""
    return name.split(".")[1] if "." in name else ""


def twin_names(modules: list[Module]) -> dict[str, int]:
    """Return base name -> number of files, for names that stand more than once."""
    counts = Counter(module.path.name for module in modules if not module.is_package)
    return {name: count for name, count in sorted(counts.items()) if count > 1}


def loose_modules(modules: list[Module]) -> list[str]:
    """Return the modules that stand directly in the package, not in a folder of it."""
    return [m.name for m in modules if m.name.count(".") == 1 and not m.is_package]


def thread_files(root: Path, thread: dict[str, Any]) -> list[str]:
    """Return the files of a thread, relative to ``root``: as listed or by its words."""
    if "files" in thread:
        return list(thread["files"])
    words = re.compile("|".join(re.escape(word) for word in thread["words"]))
    found = []
    for folder in ("src", "workflow"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SEARCHED and words.search(path.read_text(encoding="utf-8")):
                found.append(path.relative_to(root).as_posix())
    return found


def measure(modules: list[Module]) -> dict[str, str]:
    """Return what is counted -> its value, as lines to print."""
    lines = [module.lines for module in modules]
    total = sum(lines)
    sizes = [
        (size, f"{module.name}.{name}")
        for module in modules
        for name, size in functions(module.tree)
    ]
    longest = max(sizes, default=(0, "none"))
    imports = sum(import_lines(module.tree) for module in modules)
    comments = sum(comment_lines(module.text) for module in modules)
    twins = twin_names(modules)
    at_module_level = import_graph(modules)
    rings = circles(at_module_level)
    everywhere = import_graph(modules, inside_functions=True)
    all_rings = circles(everywhere)
    loose, arrows = loose_modules(modules), forbidden_arrows(everywhere)
    return {
        "lines": f"{total}",
        "files": f"{len(modules)}",
        "median file length": f"{statistics.median(lines):g} lines",
        f"files under {SHORT_FILE} lines": f"{sum(size < SHORT_FILE for size in lines)}",
        "base names that stand twice": _named([f"{k} x{v}" for k, v in twins.items()]),
        "share of import lines": f"{100 * imports / max(total, 1):.1f} %",
        "share of lines with a comment": f"{100 * comments / max(total, 1):.1f} %",
        "longest function": f"{longest[0]} lines ({longest[1]})",
        f"functions over {LONG_FUNCTION} lines": f"{sum(s > LONG_FUNCTION for s, _ in sizes)}"
        f" of {len(sizes)}",
        "modules in an import circle": _named([name for ring in rings for name in ring]),
        "the same, with imports inside functions": _named(
            [name for ring in all_rings for name in ring]
        ),
        "loose modules in the package": _named(loose),
        "arrows from evaluation to report or training": _named(arrows),
    }


def _named(things: list[str]) -> str:
    return f"{len(things)}" + (f" ({', '.join(things)})" if things else "")


def main(arguments: list[str] | None = None) -> int:
    """Print the counts and return the exit status."""
    parser = argparse.ArgumentParser(description="print how the package is cut")
    parser.add_argument("--source", type=Path, default=Path("src"))
    parser.add_argument("--threads", type=Path, default=Path("tools/threads.toml"))
    options = parser.parse_args(arguments)
    modules = read_modules(options.source)
    if not modules:
        print(f"house: {options.source}: no Python files; give --source", file=sys.stderr)
        return 1
    counts = measure(modules)
    failed = counts["modules in an import circle"] != "0"
    missing = []
    if options.threads.is_file():
        root = options.source.resolve().parent
        for thread in tomllib.loads(options.threads.read_text(encoding="utf-8"))["thread"]:
            files = thread_files(root, thread)
            missing += [name for name in files if not (root / name).is_file()]
            label = f"files to open: {thread['name']}"
            counts[label] = f"{len(files)} (aim: {thread['aim']})"
    width = max(len(label) for label in counts)
    for label, value in counts.items():
        print(f"{label:<{width}}  {value}")
    for name in missing:
        print(f"house: {options.threads}: {name} is not there; correct the list", file=sys.stderr)
    return int(failed or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
