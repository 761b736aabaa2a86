"""Why Slurm refused or ended jobs, from the logs."""

from pathlib import Path

import pytest

from threedrs.workflow.slurm import explain_failures

ENDED = """
[Sun Nov 22 19:22:33 2026]
Error in rule {rule}:
    message: SLURM-job '{number}' failed, SLURM status is: '{state}'. Detailed failure reason \
unavailable (status command is not 'sacct').For further error details see the cluster/cloud log.
    jobid: {job}
    input: a.json, b.json
    output: c.json
    log: results/logs/{rule}.log, {log} (check log file(s) for error details)
    external_jobid: {number}
"""
REFUSED = """
Error in rule {rule}:
    message: SLURM sbatch failed. The error message was '{said}'.
    sbatch call:
        sbatch --parsable --comment rule_{rule} -p nosuch --wrap="python -m snakemake"
For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: {job}
    log: results/logs/{rule}.log (check log file(s) for error details)
"""


def explained(folder: Path, text: str) -> list[str]:
    log = folder / "snakemake.log"
    log.write_text(text)
    return explain_failures([log])


@pytest.mark.parametrize(
    ("state", "said", "expected"),
    [
        ("CANCELLED", "error: *** JOB 7 ON node1 CANCELLED AT 2026-11-22 ***", "was cancelled"),
        ("TIMEOUT", "", "reached its time limit: raise runtime"),
        ("CANCELLED", "*** JOB 7 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "time limit"),
        ("OUT_OF_MEMORY", "", "raise mem_mb"),
        ("FAILED", "error: StepId=7.0 exceeded memory limit (2 > 1), being killed", "mem_mb"),
        ("FAILED", "error: Detected 1 oom_kill event in StepId=7.0", "mem_mb"),
        ("FAILED", "error: Some were killed by the cgroup out-of-memory handler.", "mem_mb"),
        ("FAILED", "srun: error: node1: tasks 0,2-3: Out Of Memory", "mem_mb"),
        ("NODE_FAIL", "", "lost its node"),
        ("ERROR", "", "was forgotten by Slurm"),
        ("ERROR", "error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE TO PREEMPTION ***", "preempted"),
    ],
)
def test_how_a_job_ended(tmp_path: Path, state: str, said: str, expected: str) -> None:
    log = tmp_path / "7.log"
    log.write_text(f"Building DAG of jobs...\n{said}\n")
    text = ENDED.format(rule="train", number=7, state=state, job=3, log=log)

    (line,) = explained(tmp_path, text)

    assert line.startswith("threedrs: Slurm: train: job 7 ")
    assert expected in line
    assert line.endswith("run the same command to go on")


def test_the_log_of_an_attempt_before_does_not_count(tmp_path: Path) -> None:
    rule, own = tmp_path / "train.log", tmp_path / "8.log"
    rule.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\n")
    text = ENDED.format(rule="train", number=8, state="NODE_FAIL", job=3, log=own)
    (line,) = explained(tmp_path, text.replace("results/logs/train.log", str(rule)))
    assert "train: job 8 lost its node" in line


def test_a_stage_that_failed_by_itself_needs_no_line(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    log.write_text("train: results/mix.jsonl: is missing\n")
    text = ENDED.format(rule="train", number=7, state="FAILED", job=3, log=log)
    assert explained(tmp_path, text) == []
    log.write_text("train: step 5: the GPU is out of memory; lower train.pack\n")
    assert explained(tmp_path, text) == []
    log.unlink()
    assert explained(tmp_path, text) == []


@pytest.mark.parametrize(
    ("said", "why", "setting"),
    [
        (
            "sbatch: error: invalid partition specified: nosuch\nsbatch: error: Batch job "
            "submission failed: Invalid partition name specified",
            "(Invalid partition name specified)",
            "slurm_partition",
        ),
        (
            "sbatch: error: Batch job submission failed: Invalid account or account/partition "
            "combination specified",
            "(Invalid account or account/partition combination specified)",
            "slurm_account",
        ),
        (
            "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: "
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "user's size and/or time limits))",
            "lower jobs",
        ),
        (
            "sbatch: error: Batch job submission failed: Requested time limit is invalid "
            "(missing or exceeds some limit)",
            "time limit is invalid",
            "runtime",
        ),
        (
            "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job "
            "submission failed: Requested node configuration is not available",
            "(Requested node configuration is not available)",
            "mem_mb",
        ),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "qos", "qos"),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller "
            "(connect failure)",
            "Unable to contact",
            "when `sinfo` does",
        ),
        ("sbatch: error: the plugin of this site says no", "says no", "the settings of jobs"),
    ],
)
def test_a_refusal_names_the_setting(tmp_path: Path, said: str, why: str, setting: str) -> None:
    text = "".join(REFUSED.format(rule="boxes", said=said, job=job) for job in (1, 2))
    (line,) = explained(tmp_path, text)
    assert line.startswith("threedrs: Slurm: boxes (2 jobs): submission refused ")
    assert why in line
    assert "slurm/config.yaml" in line
    assert setting in line.split("slurm/config.yaml")[1]


def test_an_account_that_the_executor_refuses_itself(tmp_path: Path) -> None:
    text = (
        "Error in rule boxes:\n    message: Job submission failed with exception: The given "
        "account nobody appears to be invalid. Available accounts:\nphysics\n    jobid: 4\n"
    )
    (line,) = explained(tmp_path, text)
    assert "(The given account nobody appears to be invalid. Available accounts:)" in line
    assert "slurm_account" in line


def test_a_later_attempt_that_ended_well_counts(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    failed = [
        ENDED.format(rule="boxes", number=7, state="OUT_OF_MEMORY", job=job, log=log)
        for job in (1, 2)
    ]
    again = ENDED.format(rule="boxes", number=9, state="TIMEOUT", job=2, log=log)
    text = failed[0] + "Finished jobid: 1 (Rule: boxes)\n" + failed[1] + again
    (line,) = explained(tmp_path, text)
    assert "job 9 reached its time limit" in line


def test_no_log_no_lines(tmp_path: Path) -> None:
    assert explain_failures([]) == []
    assert explain_failures([tmp_path / "none.log"]) == []
    assert explained(tmp_path, "Building DAG of jobs...\nNothing to be done\n") == []
