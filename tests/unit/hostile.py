"""For tests with hostile files: little memory, and the one line in which reading them must end."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from threedrs.errors import ThreedrsError

BYTES = 2**30


@contextmanager
def little_memory(most: int = BYTES) -> Iterator[None]:
    """Let this process take ``most`` bytes of address space more at most; Linux only.

    What a hostile file asks for then fails instead of being given.
    """
    limits = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def one_line(
    call: Callable[[], Any], path: Path, error: type[ThreedrsError] = ThreedrsError, most: int = 400
) -> str:
    """Return the ``error`` of ``call``: a line that names ``path``, with ``most`` letters more."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < len(str(path)) + most
    return message
