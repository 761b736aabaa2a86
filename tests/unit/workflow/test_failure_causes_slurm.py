"""Why Slurm refused or ended a job, from what the executor plugin says of it and from its log."""

from pathlib import Path

import pytest

from threedrs.workflow.failure_causes import find_cause

ENDED = (
    "SLURM-job '{number}' failed, SLURM status is: '{state}'. Detailed failure reason unavailable "
    "(status command is not 'sacct').For further error details see the cluster/cloud log."
)
REFUSED = """SLURM sbatch failed. The error message was '{said}'.
    sbatch call:
        sbatch --parsable --comment rule_boxes -p nosuch --wrap="python -m snakemake"
"""


def slurm_reason(said: str, logs: list[Path]) -> str | None:
    """What Slurm did to a job, or None where it did nothing."""
    cause = find_cause("train a", logs, 0.0, said)
    is_slurms = cause.text.startswith("Slurm: ")
    return f"{cause.text.removeprefix('Slurm: ')}; {cause.remedy}" if is_slurms else None


@pytest.mark.parametrize(
    ("state", "said", "expected"),
    [
        ("CANCELLED", "error: *** JOB 7 ON node1 CANCELLED AT 2026-11-22 ***", "was cancelled"),
        ("TIMEOUT", "", "reached its time limit; raise runtime"),
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

    reason = slurm_reason(ENDED.format(number=7, state=state), [tmp_path / "train.log", log])

    assert reason is not None
    assert reason.startswith("job 7 ")
    assert expected in reason
    assert reason.endswith("run the same command to go on")


@pytest.mark.parametrize(
    "said",
    [
        "[Errno 2] No such file or directory: 'sacct'For further error details see the log.",
        "Failed to run sinfo for retrieval of cluster partitions: sinfo: error: Unknown host\n"
        "sinfo: fatal: Could not establish a configuration source\n",
    ],
)
def test_a_machine_without_slurm(said: str) -> None:
    assert slurm_reason(f"Job submission failed with exception: {said}", []) == (
        "this machine belongs to no cluster of Slurm's; run the same on a login node of the "
        "cluster, or on this machine alone with `snakemake --cores all` and no profile"
    )


def test_the_log_of_an_attempt_before_does_not_count(tmp_path: Path) -> None:
    rule, own = tmp_path / "train.log", tmp_path / "8.log"
    rule.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0\n")
    reason = slurm_reason(ENDED.format(number=8, state="NODE_FAIL"), [rule, own])
    assert reason == "job 8 lost its node; run the same command to go on"


def test_a_stage_that_failed_by_itself_needs_no_line(tmp_path: Path) -> None:
    log, message = tmp_path / "7.log", ENDED.format(number=7, state="FAILED")
    log.write_text("train: results/mix.jsonl: is missing\n")
    assert slurm_reason(message, [log]) is None
    log.write_text("train: step 5: the GPU is out of memory; lower train.pack\n")
    assert slurm_reason(message, [log]) is None
    log.unlink()
    assert slurm_reason(message, [log]) is None
    assert slurm_reason("", []) is None


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
def test_a_refusal_names_the_setting(said: str, why: str, setting: str) -> None:
    reason = slurm_reason(REFUSED.format(said=said), [])
    assert reason is not None
    assert reason.startswith("submission refused ")
    assert why in reason
    assert setting in reason.split("slurm/config.yaml: ")[1]


def test_an_account_that_the_executor_refuses_itself() -> None:
    reason = slurm_reason(
        "Job submission failed with exception: The given account nobody appears to be invalid. "
        "Available accounts:\nphysics\n",
        [],
    )
    assert reason is not None
    assert "(The given account nobody appears to be invalid. Available accounts:)" in reason
    assert "slurm_account" in reason
