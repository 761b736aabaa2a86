"""How tests are spread over workers, and the checkouts of the workflow that they run in."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fixtures.checkout import Checkout, keep_code_hashes, make_checkout
from fixtures.meteor_program import stand_in_for_java
from fixtures.shared_folder import VARIABLE, shared_folder
from scheduling import (  # noqa: F401  # hooks of pytest
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

# On a busy machine an example may take any time.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure() -> None:
    """Make, before any worker is started, what they share."""
    if VARIABLE not in os.environ:
        stand_in_for_java(shared_folder())
        # What is compiled under pytest names its modules, which other processes of this user cannot
        # load: each would find it in torch's cache, warn, and compile again.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(shared_folder() / "compiled")


@pytest.fixture(autouse=True)
def torchs_own_linear() -> Iterator[None]:
    """Give torch its linear function back.

    A model that DeepSpeed builds in parts (ZeRO-3) leaves another one for the rest of the process,
    and so for every test that the same worker runs later.
    """
    yield
    if torch := sys.modules.get("torch"):
        torch.nn.functional.linear = torch._C._nn.linear


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout without results."""
    return make_checkout(tmp_path / "checkout")


def made_once(shared: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this name that one worker makes, and all only read."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, mark = shared / name, shared / f"{name}.complete"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            mark.touch()
    return folder


def run_demo(folder: Path) -> None:
    """Run the whole small demo in a new checkout."""
    said = make_checkout(folder).snakemake("--cores", "2", "all")
    assert said.returncode == 0, said.stdout[-6000:]
    (folder / "said.txt").write_text(said.stdout)
    keep_code_hashes(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the whole small demo has been run once, by one worker for all.

    Nothing but dry runs is done in it, and nothing in it is changed.
    """
    return Checkout(made_once(tmp_path_factory.getbasetemp(), "finished-demo", run_demo))


def draw_rooms(folder: Path) -> None:
    """Write five rooms; imported here, as few tests draw."""
    from threedrs.demo.write import write_demo

    write_demo(folder, 5, 3, frames=44, processes=1)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of three train rooms and two val rooms, which a test copies."""
    return made_once(tmp_path_factory.getbasetemp(), "five-rooms", draw_rooms)
