"""How `make test` spreads tests over workers, goes on after a crash, and spares the collector."""

import gc
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController


class FileAtATime(LoadFileScheduling):
    """A worker takes a file at a time, and one worker takes all files of the one Slurm cluster.

    xdist's own schedulers that keep files or groups together do not survive a crashed worker:
    they run the test that crashed it again, hand out finished files as empty work, ask a
    replacement for tests before it has collected any (a KeyError), and send tests to a worker that
    has just died (an OSError). `--dist loadgroup` shares this code. The overrides here mend these
    four.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "slurm" if Path(file).match("tests/workflow/test_slurm*.py") else file

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker away, and return the test that it was running, or None.

        The caller reports that test as failed; the worker's other tests are handed out again.
        """
        files = self.assigned_work.pop(node)
        if self.collection is None:
            # Nothing is handed out before as many workers as were started have collected.
            # A dead one must not stand in for one that still collects.
            self.registered_collections.pop(node, None)
        # A worker runs its tests in order, so the first unfinished one is what it was running.
        crashed = None
        for tests in files.values():
            for test, finished in tests.items():
                if crashed is None and not finished:
                    crashed = test
                    tests[test] = True  # run again, it would take the next worker with it
        self.workqueue.update(
            {file: tests for file, tests in files.items() if not all(tests.values())}
        )
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

    def _assign_work_unit(self, node: WorkerController) -> None:
        with suppress(OSError):  # remove_node() is about to hand the dead worker's tests out again
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:
            return  # It still collects; schedule() asks again when it is done.
        super()._reschedule(node)
        # A worker starts a test when it knows the next one, or that there is none: a replacement
        # that got the last test of a file would wait for ever.
        if not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)


@pytest.hookimpl(optionalhook=True)  # pytest may run without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileAtATime | None:
    """Give `--dist loadfile` this scheduler; None leaves any other way to xdist."""
    return FileAtATime(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker more than cores, as the tests of Slurm wait more than they compute.

    Not where markers leave tests out, so those of Slurm too.
    """
    return len(os.sched_getaffinity(0)) + (not config.option.markexpr)


# A worker imports the package and its libraries while it collects; the garbage collector would look
# through their million objects again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what the tests make, and not at what was imported."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes long start first, so that no worker is left with it at the end.

    That is Slurm's tests, which are one worker's, the workflow's others, and then the files with
    the most slow tests.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def start(item: pytest.Item) -> tuple[bool, bool, int]:
        of_slurm = item.path.match("tests/workflow/test_slurm*.py")
        return not of_slurm, not item.path.match("tests/workflow/*"), -slow[item.path]

    items.sort(key=start)
