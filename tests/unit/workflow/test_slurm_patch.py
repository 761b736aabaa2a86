"""The executor plugin keeps its jobs while Slurm does not answer."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import snakemake_executor_plugin_slurm

from threedrs.workflow.slurm import patch_status_query


def test_the_names_that_are_replaced_are_those_of_the_plugin() -> None:
    for name in ("query_job_status", "get_min_job_age"):
        assert callable(getattr(snakemake_executor_plugin_slurm, name))
    assert callable(snakemake_executor_plugin_slurm.Executor.check_active_jobs)


def stand_in(answers: list[dict[str, str] | None], ages: list[int | None]) -> Any:
    """Return a module that asks as the plugin does, with these answers."""
    plugin: Any = SimpleNamespace()

    async def query_job_status(command: str, logger: Any) -> Any:
        answer = answers.pop(0)
        return answer, None if answer is None else 0.1

    class Executor:
        async def check_active_jobs(self, active_jobs: list[str]) -> Any:
            states, _ = await plugin.query_job_status("squeue -h", logging.getLogger())
            if states is not None:
                for job in active_jobs:
                    if states[job] == "RUNNING":
                        yield job

    plugin.query_job_status, plugin.Executor = query_job_status, Executor
    plugin.get_min_job_age = lambda: ages.pop(0)
    return plugin


def test_no_job_is_forgotten() -> None:
    plugin = stand_in(
        [{"1": "RUNNING", "2": "RUNNING"}, None, None, {"1": "COMPLETED", "2": "RUNNING"}],
        [None, 600, None],
    )
    patch_status_query(plugin)
    patch_status_query(plugin)  # twice is once
    executor, jobs, rounds = plugin.Executor(), ["1", "2"], []

    async def one_round() -> list[str]:
        return [job async for job in executor.check_active_jobs(jobs)]

    for _ in range(4):
        jobs = asyncio.run(one_round())
        rounds.append(jobs)
    assert rounds == [["1", "2"], ["1", "2"], ["1", "2"], ["2"]]
    assert [plugin.get_min_job_age() for _ in range(3)] == [None, 600, 600]


def test_without_the_plugin_nothing_happens() -> None:
    patch_status_query(None)
