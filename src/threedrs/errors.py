"""Exceptions for what a user can put right.

Each message is one readable line that names the file, the thing in it and the remedy; the command
line and the workflow scripts print it without a traceback and exit with status 1.
"""

import difflib
import errno
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_MISPLACED = {
    errno.EISDIR: "a folder stands where a file is expected",
    errno.ENOTDIR: "a file stands where a folder is expected",
    errno.EEXIST: "a file stands where a folder is expected",
}
# What `threedrs.io.files` writes to before it renames it.
_TEMPORARY = re.compile(r"(?<![^/])\.([^/]+)\.\d+\.tmp(?![^/])")
_FAILING = (errno.EIO, errno.ESTALE)


class ThreedrsError(ValueError):
    """Base of all errors whose cause lies in the input, the configuration or the machine."""


class ConfigError(ThreedrsError):
    """The configuration is wrong; the message lists every problem found."""


class DataError(ThreedrsError):
    """An input file is missing, malformed, or contradicts another input file."""


class StoreError(ThreedrsError):
    """A scene store or feature store is unreadable, damaged, or of another format version."""


class CheckpointError(ThreedrsError):
    """A model checkpoint or a training checkpoint cannot be used."""


class MachineError(ThreedrsError):
    """The machine lacks something that was asked for (a GPU, Java, disk space, a package)."""


def raise_all(errors: Iterable[ThreedrsError]) -> None:
    """Raise the ``errors``, if any: one as it is, several as a ConfigError with a line for each."""
    found = [*errors]
    if len(found) == 1:
        raise found[0]
    if found:
        raise ConfigError("\n".join(map(str, found)))


def problems_of(check: Callable[[], object], key: str = "") -> list[str]:
    """Return what ``check`` finds wrong, a line each, with ``key`` before it."""
    try:
        check()
    except (ThreedrsError, OSError) as error:  # such as a folder that this user cannot enter
        return [f"{key}{line}" for line in (user_message(error) or str(error)).splitlines()]
    return []


def _dead_link(error: OSError) -> Path | None:
    """Return the link without a target that is, or is above, what an error names, if any."""
    path = Path(str(error.filename2 or error.filename or ""))
    above = (one for one in (path, *path.parents) if one.is_symlink() and not one.exists())
    with suppress(OSError):  # of a name that is too long, or below a folder without permission
        return next(above, None)
    return None


def _leads_nowhere(link: Path) -> str:
    return f"is a link to {link.readlink()}, which is missing; put it there or mend the link"


def _is_working_folder_gone() -> bool:
    # The error itself names nothing, as those of a lost socket do not.
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def write_problem(error: OSError) -> str:
    """Return the clause for what cannot be written: what the system says, and the remedy."""
    link = _dead_link(error)
    if link is not None:
        return f"cannot be written, as {link} {_leads_nowhere(link)}, and run the same again"
    remedy = "make the folder writable for this user, or results/ a link to one that is"
    if error.errno in _FULL:
        remedy = "free space there, or make results/ a link to a larger disk"
    return f"cannot be written ({error.strerror or error}); {remedy}, and run the same again"


@contextmanager
def name_full_disk(path: Path) -> Iterator[None]:
    """Add ``path`` to the error of a full or failing disk, as a stream's does not name its file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *_FAILING) or error.filename not in (None, str(path)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def one_line(error: BaseException, most: int = 200) -> str:
    """Return all that a foreign error says, on one line that is cut at ``most`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def counted(count: int, noun: str) -> str:
    """Return a number of things as people say it, e.g. ``1 job`` or ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the question for the known name that a mistyped one is nearest to, or nothing.

    Names are near from a similarity of ``cutoff`` on, between 0 and 1.
    """
    near = difflib.get_close_matches(name, [*known], n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""


def check_arguments() -> None:
    """Check that the command line of this process is text, and that no argument is empty.

    Raises:
        ConfigError: an argument has bytes that are not of the locale's encoding, or is empty.
    """
    # Of an empty path Python makes the working folder, which nobody means by it.
    if "" in sys.argv[1:]:
        raise ConfigError(
            "command line: an argument is empty; perhaps a variable of the shell has no value"
        )
    # Such a name could be opened, but not written into a result or a log, or shown.
    for argument in sys.argv[1:]:
        if any("\udc80" <= letter <= "\udcff" for letter in argument):
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise ConfigError(
                f"command line: {shown}: has bytes that are not {sys.getfilesystemencoding()}; "
                "give the file or folder another name"
            )


def nearest_path(path: Path) -> str:
    """Return the question for the path that a mistyped one is nearest to, or nothing.

    They differ in one name, the first that is not there. A path that is there, though perhaps of
    another kind, has none.
    """
    missing = next((part for part in [*path.parents[::-1], path] if not part.exists()), None)
    if missing is None:
        return ""
    rest = path.relative_to(missing)
    try:
        # Hidden files, such as locks, are nobody's to name.
        there = [entry for entry in missing.parent.iterdir() if not entry.name.startswith(".")]
        beside = [entry.name for entry in there if (entry / rest).exists()]
    except OSError:
        return ""
    near = difflib.get_close_matches(missing.name, beside, n=1)
    return f"did you mean {missing.with_name(near[0]) / rest}?" if near else ""


def choose_one(name: str, known: Iterable[str]) -> str:
    """Return the advice for a name that is not among ``known``: all of them, and the nearest."""
    names = [*known]
    advice = (f"choose one of: {', '.join(names)}", did_you_mean(name, names))
    return "; ".join(filter(None, advice))


def user_message(error: BaseException) -> str | None:
    """Return the one line that the user should see of ``error``, or None if it is a bug.

    Besides the errors of this package, these are errors of the machine. A full disk, a folder that
    may not be written to, or a file in the place of a folder can show in any line that writes, too
    little memory in any line at all. So they are translated here, where a process ends, and not
    where they are raised.
    """
    if isinstance(error, ThreedrsError):
        return str(error)
    if _is_lack_of_memory(error):
        said = one_line(error) if str(error).strip() else "no memory left"
        return (
            f"memory ran out ({said}); give the job more of it (mem_mb in the profile's "
            "set-resources, or fewer --cores at a time), and run the same again"
        )
    if not isinstance(error, OSError):
        return None
    # A rename is from a temporary file to the one that the user knows.
    name = _TEMPORARY.sub(r"\1", str(error.filename2 or error.filename or "a file of the results"))
    said = error.strerror or str(error)
    if error.errno in (*_FULL, errno.EROFS):
        return f"{name}: {write_problem(error)}"
    if error.errno in _FAILING:
        problem = (
            f"cannot be read or written ({said}), so its disk or file server fails; have it "
            "checked, or copy the file to another disk"
        )
    elif isinstance(error, PermissionError):  # which of the two was tried, the system does not say
        problem = (
            f"cannot be read or written ({said}); make the file readable or make the folder "
            "writable for this user"
        )
    elif (link := _dead_link(error)) is not None:
        # Of a folder's place the system says that a file stands there.
        name, problem = str(link), _leads_nowhere(link)
    elif isinstance(error, FileNotFoundError) and _is_working_folder_gone():
        name, problem = "the working folder", "was removed; change into one that is there"
    elif error.errno in _MISPLACED:
        problem = (
            f"{_MISPLACED[error.errno]} ({said}); give another path or move away what stands there"
        )
    else:
        return None
    return f"{name}: {problem}, and run the same again"


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def one_line_errors(prefix: str, say: Callable[[str], None] = _print_error) -> Iterator[None]:
    """End the process with one line and status 1 where the block fails for a user's reason.

    The line begins with ``prefix``, the command, stage or rank. A bug passes through with its
    traceback.
    """
    try:
        yield
    except Exception as error:  # a full disk or too little memory can end any line of any command
        line = user_message(error)
        if line is None:
            raise
        say(f"{prefix}: {line}")
        sys.exit(1)


def _is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python, numpy, the system, or torch on the CPU could not get memory."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    torch_says = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return torch_says or isinstance(error, MemoryError)


def without_remedy(message: str) -> str:
    """Return a message without its remedy, for a caller that says another one or needs none."""
    return message.partition("; ")[0]
