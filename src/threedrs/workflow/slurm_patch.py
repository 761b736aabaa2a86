"""Waiting while Slurm does not answer.

Version 2.8 of Snakemake's executor plugin forgets the jobs that it has submitted once a question
about their state fails, and then waits for ever; a Slurm controller that is restarted, or too busy
for its time limit, is enough. Here such a question leaves all jobs as they were known.
"""

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any


class _SilentError(Exception):
    """Slurm has not answered."""


def outlast_silence(plugin: ModuleType | None) -> None:
    """Let the executor plugin keep its jobs when Slurm does not answer, and ask again later.

    Args:
        plugin: ``snakemake_executor_plugin_slurm``; None where it is not in use.
    """
    if plugin is None or hasattr(plugin.Executor, "outlasts_silence"):
        return
    ask, age, check = (
        plugin.query_job_status,
        plugin.get_min_job_age,
        plugin.Executor.check_active_jobs,
    )
    known: list[int] = []  # how long Slurm remembers jobs; asked before each question

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str], float]:
        states, seconds = await ask(command, logger)
        if states is None:
            logger.warning(
                f"Slurm does not answer `{command.split()[0]}`; jobs go on, asking again later."
            )
            raise _SilentError
        return states, seconds

    def get_min_job_age() -> int | None:
        found = age()
        if found is not None:
            known[:] = [found]
        return known[0] if known else None

    async def check_active_jobs(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        try:
            async for job in check(self, active_jobs):
                yield job
        except _SilentError:  # nothing has been reported or handed on yet
            for job in active_jobs:
                yield job

    plugin.query_job_status = query_job_status  # type: ignore[attr-defined]
    plugin.get_min_job_age = get_min_job_age  # type: ignore[attr-defined]
    plugin.Executor.check_active_jobs = check_active_jobs
    plugin.Executor.outlasts_silence = True
