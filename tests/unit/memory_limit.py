"""Little memory for a test, so that what a hostile file asks for fails instead of being given."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BYTES = 2**30


@contextmanager
def little_memory(most: int = BYTES) -> Iterator[None]:
    """Let this process take ``most`` bytes of address space more at most; Linux only."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
