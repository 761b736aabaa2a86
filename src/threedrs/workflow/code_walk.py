"""The walk from a stage's entries through the names that they mention, over the package's code.

It covers the definitions (functions, classes, constants) that the entries reach by name, not files.
Each definition counts by its parsed form. Excluded is what cannot change a result: docstrings,
comments, white space, annotations of functions and of local variables, the spelling of imports, the
arguments of `raise` and of `assert`, log messages, and the place where a definition stands. So a
docstring may be mended, a module moved or split, and a file renamed, and nothing is stale.
Statements that a reached module executes when it is imported count too, for they may register
something. A decorator that registers what it decorates is overlooked; the command line alone has
any.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from threedrs.io.files import sha256_of_json

PACKAGE = Path(__file__).parents[1]
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def reached_code(
    entries: Sequence[str], script: Path | None = None, without: Sequence[str] = ()
) -> dict[tuple[str, str], str]:
    """Return the digest of each reached definition, by its module and name.

    Raises:
        LookupError: an entry is not in the package.
    """
    excluded = {_full(name) for name in without}
    reached: dict[tuple[str, str], str] = {}
    effects: set[str] = set()
    waiting: list[tuple[str, str]] = []

    def follow(statements: Sequence[ast.stmt], module: "_Module") -> list[str]:
        """Queue what the statements mention, and return the shallow digests of it."""
        # Two modules may define the same name, and where a definition stands does not count. So
        # what a name means goes in by its digest: an import may turn from one to the other.
        found = []
        for mention in {m for statement in statements for m in _mentions(statement)}:
            for target in _resolve(module, mention):
                if any(f"{target[0]}.".startswith(f"{name}.") for name in excluded):
                    continue
                if target[0] in ("", "threedrs"):  # the script itself; the package's version
                    continue
                waiting.append(target)
                found.append(_digest(_module(target[0]), target[1]))
        return sorted(found)

    if script:
        outside = _Module.parse("", script)
        everything = [s for group in outside.names.values() for s in group] + outside.effects
        reached["", ""] = sha256_of_json(
            [[_dump(s, outside) for s in everything], follow(everything, outside)]
        )
    for entry in entries:
        name, _, definition = entry.partition(":")
        module = _module(_full(name))
        names = [definition] if definition else list(module.names)
        if any(name not in module.names for name in names):
            raise LookupError(f"{entry} is not in the package")
        waiting += [(module.name, name) for name in names]
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        module = _module(key[0])
        statements = module.names[key[1]]
        reached[key] = ""  # before what it mentions, which may mention it in turn
        reached[key] = sha256_of_json([_digest(module, key[1]), follow(statements, module)])
        # What a module does when it is imported happens to whoever uses any name of it.
        if key[0] not in effects:
            effects.add(key[0])
            for number, statement in enumerate(module.effects):
                digest = hashlib.sha256(_dump(statement, module).encode()).hexdigest()
                reached[key[0], f"statement {number}"] = sha256_of_json(
                    [digest, follow([statement], module)]
                )
    return reached


@dataclass(eq=False)
class _Module:
    """A parsed module: what its names are bound to."""

    name: str
    # The statements that bind each name at the top level, without imports.
    names: dict[str, list[ast.stmt]] = field(default_factory=dict)
    # The dotted names that an import statement, wherever it stands, binds a name to.
    imports: dict[str, list[str]] = field(default_factory=dict)
    # Statements that are executed on import and bind nothing.
    effects: list[ast.stmt] = field(default_factory=list)

    @classmethod
    def parse(cls, name: str, path: Path) -> "_Module":
        module = cls(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # Imports inside functions count like those at the top: only what a name means matters.
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    target = alias.name if alias.asname else bound
                    module.imports.setdefault(bound, []).append(target)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    bound, target = alias.asname or alias.name, f"{node.module}.{alias.name}"
                    module.imports.setdefault(bound, []).append(target)
        _Plain().visit(tree)
        for statement in tree.body:
            names = list(_bound(statement))
            for name in names:
                module.names.setdefault(name, []).append(statement)
            if not names:
                module.effects.append(statement)
        return module


class _Plain(ast.NodeTransformer):
    """Removes from a tree what cannot change a result."""

    def visit(self, node: ast.AST) -> ast.AST:
        super().visit(node)
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                kept = [statement for statement in body if not self._idle(statement)]
                if not isinstance(node, ast.ClassDef):  # there, annotations make fields
                    kept = [_without_annotation(statement) for statement in kept]
                # A body of nothing but a docstring stays a body.
                setattr(node, name, kept or (body and [ast.Pass()]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func  # an error's words are for people; its kind may be caught
        elif isinstance(node, ast.Assert):
            node.msg = None
        return node

    @staticmethod
    def _idle(node: ast.stmt) -> bool:
        """Return whether a statement is an import, a docstring, a log message or for mypy."""
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(ast.Constant()):
                return True
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                return True
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("logger" | "logging"), method))):
                return method in _LOG_METHODS
        return False


def _without_annotation(node: ast.stmt) -> ast.stmt:
    """Return an assignment to a local variable without its annotation."""
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value)
    return node


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the module's names that a statement at the top level, or a part of one, binds."""
    parts: Iterable[ast.AST] = ast.iter_child_nodes(node)
    # What a function, a class or a comprehension binds within is no name of the module.
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name
            return
        case ast.Name(name, ast.Store()):
            yield name
        case ast.Lambda():
            return
        case ast.comprehension():
            parts = (node.iter, *node.ifs)
    for part in parts:
        yield from _bound(part)
    # The block of a script is an entry that nothing mentions.
    if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
        yield "__main__"


def _chain(node: ast.AST) -> tuple[str, ...] | None:
    """Return ``("a", "b", "c")`` for ``a.b.c``, or None for another expression."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def _mentions(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield each name that a tree mentions, with the attributes that follow it."""
    if chain := _chain(node):
        yield chain
        return
    for child in ast.iter_child_nodes(node):
        yield from _mentions(child)


def _resolve(module: _Module, mention: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the definitions of the package that a mention in a module means, by module and name."""
    root, *attributes = mention
    if root in module.names:
        yield module.name, root
    # A name may be imported in several places of a module, each time as something else.
    for target in module.imports.get(root, ()):
        if target == "threedrs" or target.startswith("threedrs."):
            yield from _lookup([*target.split("."), *attributes])


def _lookup(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the definitions that a dotted name means; a module alone means all that it holds."""
    here, parts = _split(names)
    module = _module(here)
    if parts:
        yield from _resolve(module, tuple(parts))
    else:
        yield from ((here, name) for name in module.names)


def _split(names: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the module of the package that a dotted name starts with, or "", and the rest."""
    if names[0] != "threedrs":
        return "", names
    length = 1
    while length < len(names) and file_of(".".join(names[: length + 1])):
        length += 1
    return ".".join(names[:length]), names[length:]


def _full(name: str) -> str:
    return f"threedrs.{name}"


@cache
def file_of(name: str) -> Path | None:
    """Return the file of a module of the package, by its dotted name; None where there is none."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _module(name: str) -> _Module:
    file = file_of(name)
    if file is None:
        raise LookupError(f"{name} is not in the package")
    return _Module.parse(name, file)


@cache
def _digest(module: _Module, name: str) -> str:
    """Return the digest of a definition, which names what it mentions and does not cover it."""
    text = "\n".join(_dump(statement, module) for statement in module.names[name])
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(node: object, module: _Module) -> str:
    """Return a tree as text that is the same under every version of Python and every import."""
    if isinstance(node, list):
        return f"[{','.join(_dump(child, module) for child in node)}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    chain = _chain(node)
    if chain and (chain[0] in module.imports or chain[0] in module.names):
        # Where a definition of the package stands, and how it is imported, does not count.
        targets = [t.split(".") for t in module.imports.get(chain[0], [chain[0]])]
        meant = {".".join(_split([*target, *chain[1:]])[1]) for target in targets}
        return f"name({','.join(sorted(meant))})"
    fields = (
        f"{name}={_dump(value, module)}"
        for name, value in ast.iter_fields(node)
        if value not in (None, []) and name not in ("kind", "type_comment", "ctx")
    )
    return f"{type(node).__name__}({','.join(fields)})"
