"""The processes of one inference run, as a launcher starts them; alone without one.

They share no tensors, only a few words: who may go on, and what the first one found out. So gloo
does, on GPUs too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from threedrs.distributed.rendezvous import rank_variables
from threedrs.errors import MachineError

# One rank may have scenes left for hours after another is done.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class AnsweringRanks:
    """This process among those of the run."""

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.from_first(None)

    def from_first(self, value: Any) -> Any:
        """Return the first rank's ``value`` on every rank.

        Raises:
            MachineError: another rank is gone.
        """
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        try:
            distributed.barrier()
            distributed.broadcast_object_list(values, src=0)
        except RuntimeError as error:
            raise MachineError(
                "another rank stopped, see its message; finished scenes are kept, run it again"
            ) from error
        return values[0]


@contextmanager
def joined_ranks() -> Iterator[AnsweringRanks]:
    """Yield this process's place; with several, within a process group.

    Raises:
        MachineError: under srun, Slurm does not say where the first node is.
    """
    given = rank_variables(os.environ)
    count = int(given["WORLD_SIZE"])
    if count == 1:
        yield AnsweringRanks()
        return
    from torch import distributed

    os.environ.update(given)
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield AnsweringRanks(
            rank=int(given["RANK"]), local_rank=int(given["LOCAL_RANK"]), count=count
        )
    finally:
        distributed.destroy_process_group()
