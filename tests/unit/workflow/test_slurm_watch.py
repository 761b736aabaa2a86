"""No job is waited for for ever, and none is given up that may still run; Slurm's texts are given.

tests/workflow/test_slurm_faults.py has the same on a real Slurm.
"""

import asyncio
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm

from threedrs.workflow import slurm_watch
from threedrs.workflow.slurm_watch import LOST, JobWatch, end_mark, patch_executor

GONE = ("scontrol", "", "slurm_load_jobs error: Invalid job id specified", 1)
DISABLED = ("sacct", "", "Slurm accounting storage is disabled", 1)


class Cluster:
    """Programs of Slurm that say what they are told to, and a Snakemake with two jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        jobs = [SimpleNamespace(jobid=number, attempt=1) for number in (1, 2)]
        self.executor: Any = SimpleNamespace(
            run_uuid="run",
            tmpdir=folder,
            workflow=SimpleNamespace(execution_settings=SimpleNamespace(latency_wait=0)),
            logger=SimpleNamespace(warning=self.said.append),
        )
        self.jobs = [SimpleNamespace(job=job, external_jobid=f"1{job.jobid}") for job in jobs]
        self.plugin: Any = SimpleNamespace(
            _status_lookup_ids=snakemake_executor_plugin_slurm._status_lookup_ids
        )
        self.watch = JobWatch(self.plugin, executor=self.executor, jobs=self.jobs)
        self.say(*GONE)
        self.say(*DISABLED)

    def say(self, program: str, out: str, error: str = "", status: int = 0) -> None:
        path = self.folder / program
        path.write_text(f"#!/bin/sh\nprintf '{out}'\nprintf '{error}' >&2\nexit {status}\n")
        path.chmod(0o755)

    def states(self) -> dict[str, str] | None:
        return asyncio.run(self.watch.states())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Cluster(tmp_path)


def test_the_names_that_are_replaced_are_those_of_the_plugin() -> None:
    names = ("query_job_status", "get_min_job_age", "get_submit_command")
    for name in (*names, "validate_or_get_slurm_job_id"):
        assert callable(getattr(snakemake_executor_plugin_slurm, name))
    for name in ("check_active_jobs", "get_job_exec_suffix", "run_jobs"):
        assert callable(getattr(snakemake_executor_plugin_slurm.Executor, name))


def test_a_job_that_is_gone_is_lost_after_three_answers(cluster: Cluster) -> None:
    cluster.say("squeue", "11|RUNNING|None\\n")
    seen = [cluster.states() for _ in range(3)]
    assert [states and states["12"] for states in seen] == ["not listed", "not listed", LOST]
    assert [states and states["11"] for states in seen] == ["RUNNING"] * 3
    (line,) = cluster.said
    assert "job 12 is in the memory of neither controller nor accounting" in line


def test_a_mark_counts_at_once_and_that_of_an_earlier_attempt_does_not(cluster: Cluster) -> None:
    cluster.say("squeue", "")
    end_mark(cluster.executor, SimpleNamespace(jobid=2, attempt=0)).touch()
    assert cluster.states() == {"11": "not listed", "12": "not listed"}
    end_mark(cluster.executor, cluster.jobs[1].job).touch()
    assert cluster.states() == {"11": "not listed", "12": "COMPLETED"}


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("CANCELLED by 1000|main\\n", "CANCELLED"),  # the plugin alone waits for ever for this one
        ("PREEMPTED|main\\n", "CANCELLED"),  # and for this one
        ("OUT_OF_MEMORY|main\\n", "OUT_OF_MEMORY"),
        ("COMPLETED|main\\n", "COMPLETED"),
        ("RUNNING|main\\n", "not listed"),
        ("", "not listed"),
    ],
)
def test_accounting_has_the_last_word(cluster: Cluster, text: str, state: str) -> None:
    cluster.say("squeue", "11|RUNNING|None\\n")
    cluster.say("sacct", text)
    states = cluster.states()
    assert states is not None
    assert states["12"] == state


def test_a_job_that_only_accounting_believes_in_is_lost(cluster: Cluster) -> None:
    """Slurm calls it a runaway job; no controller knows it, that of its cluster included."""
    cluster.say("squeue", "11|RUNNING|None\\n")
    cluster.say("sacct", "RUNNING|main\\n")
    seen = [(cluster.states() or {})["12"] for _ in range(3)]
    assert seen == ["not listed"] * 2 + [LOST]


# The controllers of two clusters. Each has a job 12, and ours runs on `big`.
SQUEUE = """#!/bin/sh
case "$*" in
*--clusters=big*) printf 'CLUSTER: big\\n12|RUNNING|None\\n' ;;
*) echo '11|RUNNING|None' ;;
esac
"""
OTHERS = "JobId=12 JobName=of-another-user JobState=FAILED"
SCONTROL = f"""#!/bin/sh
case "$*" in
*--clusters=big*) echo 'JobId=12 JobState=RUNNING' ;;
*) echo '{OTHERS}' ;;
esac
"""


def script(folder: Path, program: str, text: str) -> None:
    (folder / program).write_text(text)
    (folder / program).chmod(0o755)


def test_a_job_on_another_cluster_is_asked_about_there(cluster: Cluster) -> None:
    script(cluster.folder, "squeue", SQUEUE)
    script(cluster.folder, "scontrol", SCONTROL)
    cluster.watch.clusters["12"] = "big"
    assert [cluster.states() for _ in range(5)] == [{"11": "RUNNING", "12": "RUNNING"}] * 5
    # It has left squeue's list, and only its own controller is asked how it stands.
    script(cluster.folder, "squeue", "#!/bin/sh\necho '11|RUNNING|None'\n")
    assert (cluster.states() or {})["12"] == "RUNNING"


def test_accounting_names_the_cluster_that_a_job_runs_on(cluster: Cluster) -> None:
    script(cluster.folder, "squeue", SQUEUE)
    elsewhere = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    script(cluster.folder, "scontrol", SCONTROL.replace(f"echo '{OTHERS}'", elsewhere))
    cluster.say("sacct", "RUNNING|big\\n")
    assert [(cluster.states() or {})["12"] for _ in range(5)] == ["RUNNING"] * 5
    assert cluster.said == []
    assert cluster.watch.clusters == {"12": "big"}


def test_a_cluster_that_does_not_answer_is_named(cluster: Cluster) -> None:
    cluster.watch.clusters["12"] = "big"
    script(
        cluster.folder,
        "squeue",
        '#!/bin/sh\ncase "$*" in *=big*) echo away >&2; exit 1 ;; esac\necho "11|RUNNING|None"\n',
    )
    assert [cluster.states() for _ in range(4)] == [None] * 4
    (line,) = cluster.said
    assert "`squeue --clusters=big` does not answer (away)" in line
    assert "`sinfo --clusters=big`" in line


def test_a_job_that_only_scontrol_knows_is_not_lost(cluster: Cluster) -> None:
    cluster.say("squeue", "11|RUNNING|None\\n")
    cluster.say("scontrol", "JobId=12 JobName=renamed JobState=PENDING Reason=Priority\\n")
    assert [cluster.states() for _ in range(5)] == [{"11": "RUNNING", "12": "PENDING"}] * 5


def test_a_task_of_an_array_is_found_by_the_number_of_its_array(cluster: Cluster) -> None:
    cluster.jobs[1].external_jobid = "20_3"
    cluster.say("squeue", "11|RUNNING|None\\n20|PENDING|Resources\\n")
    assert cluster.states() == {"11": "RUNNING", "20": "PENDING"}


def test_a_controller_that_does_not_answer_loses_no_job(cluster: Cluster) -> None:
    cluster.say("squeue", "11|RUNNING|None\\n")
    cluster.say("scontrol", "", "Unable to contact slurm controller (connect failure)", 1)
    assert [(cluster.states() or {})["12"] for _ in range(6)] == ["not listed"] * 6
    silent = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    cluster.say("squeue", "", silent, 1)
    assert [cluster.states() for _ in range(6)] == [None] * 6
    (line,) = cluster.said  # and not one a look
    assert "`squeue` does not answer (slurm_load_jobs error: Unable to contact" in line
    assert "(connect failure)); the jobs go on" in line
    cluster.watch.silent_since = cluster.watch.told = time.monotonic() - 360
    cluster.states()
    assert "(connect failure)), for 6 minutes now; the jobs go on" in cluster.said[-1]


def test_every_few_minutes_a_line_says_what_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.say("squeue", "11|RUNNING|None\\n12|PENDING|AssocGrpCpuLimit\\n")
    cluster.states()
    assert cluster.said == []
    cluster.watch.told = time.monotonic() - slurm_watch.TELL_EVERY
    cluster.states()
    cluster.states()
    assert cluster.said == [
        "threedrs: Slurm: waiting for 2 jobs: 1 RUNNING, 1 PENDING (AssocGrpCpuLimit)"
    ]


def test_filters_and_languages_of_the_user_do_not_reach_slurm(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.say("squeue", "")
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    monkeypatch.setenv("LC_ALL", "tr_TR.ISO-8859-9")
    (cluster.folder / "squeue").write_text(
        '#!/bin/sh\necho "11|RUNNING|None"\nprintf "Kl\\374ster\\n"\n'
        'echo "12|$LC_ALL$SQUEUE_PARTITION|None"\n'
    )
    assert cluster.states() == {"11": "RUNNING", "12": "C.UTF-8"}


def test_no_job_is_forgotten_where_the_plugin_would() -> None:
    """The plugin's own loop around answers of which some are missing."""
    plugin: Any = SimpleNamespace(
        get_submit_command=lambda *a, **k: "sbatch --parsable",
        validate_or_get_slurm_job_id=lambda number, said: number,
    )

    class Executor:
        next_seconds_between_status_checks = 180.0
        run_jobs = None

        async def check_active_jobs(self, active_jobs: list[str]) -> Any:
            states, _ = await plugin.query_job_status("squeue -h", logging.getLogger())
            for job in active_jobs:
                if states[job] == "RUNNING":
                    yield job

    plugin.Executor = Executor
    patch_executor(plugin)
    patch_executor(plugin)  # twice is once
    answers = [{"1": "RUNNING", "2": "RUNNING"}, None, None, {"1": "COMPLETED", "2": "RUNNING"}]

    async def states(watch: JobWatch) -> dict[str, str] | None:
        return answers.pop(0)

    executor, jobs, rounds = plugin.Executor(), ["1", "2"], []

    async def one_round() -> list[str]:
        return [job async for job in executor.check_active_jobs(jobs)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobWatch, "states", states)
        for _ in range(4):
            jobs = asyncio.run(one_round())
            rounds.append(jobs)
    assert rounds == [["1", "2"], ["1", "2"], ["1", "2"], ["2"]]
    assert executor.next_seconds_between_status_checks == slurm_watch.LONGEST_SLEEP
    assert plugin.get_submit_command().endswith("-m threedrs.workflow.slurm_submit --parsable")


def test_the_cluster_that_sbatch_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = JobWatch(SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(slurm_watch, "JobWatch", lambda plugin: watch)
    plugin: Any = SimpleNamespace(
        get_submit_command=lambda *a, **k: "sbatch --parsable",
        validate_or_get_slurm_job_id=snakemake_executor_plugin_slurm.validate_or_get_slurm_job_id,
        Executor=type("Executor", (), {"check_active_jobs": None, "run_jobs": None}),
    )
    patch_executor(plugin)
    assert plugin.validate_or_get_slurm_job_id("41", "41\n") == "41"
    assert plugin.validate_or_get_slurm_job_id("42", "42;big\n") == "42"
    assert watch.clusters == {"42": "big"}


def test_the_folder_of_marks_is_there_before_threads_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that both find none would make one each, and marks in the first are lost."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()

    class Executor:
        _tmpdir: str | None = None
        tmpdir = snakemake_executor_plugin_slurm.Executor.tmpdir
        check_active_jobs = None

        def run_jobs(self, jobs: list[str]) -> None:
            self.found = self._tmpdir, jobs

    plugin: Any = SimpleNamespace(
        get_submit_command=None, validate_or_get_slurm_job_id=None, Executor=Executor
    )
    patch_executor(plugin)
    executor = Executor()
    executor.run_jobs(["first", "second"])
    folder, jobs = executor.found
    assert jobs == ["first", "second"]
    mark = end_mark(executor, SimpleNamespace(jobid=1, attempt=1))
    assert mark.parent == Path(str(folder)).resolve()


def test_without_the_plugin_nothing_happens() -> None:
    patch_executor(None)
