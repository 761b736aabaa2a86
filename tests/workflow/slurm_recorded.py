"""The longer faults on a real Slurm, recorded: ``python tests/workflow/slurm_recorded.py``.

Prints rows of the table in docs/RELIABILITY.md, section "On a Slurm cluster". The row with accounts
needs the packages slurmdbd and mariadb-server-core beside those of the tests. Some ten minutes on
two cores.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fixtures.checkout import SMALL, Checkout, make_checkout
from fixtures.demo_results import check_results
from fixtures.slurm_cluster import (
    GPUS,
    short_memory,
    slurm_cluster,
    start_accounting,
    start_controller,
    stop_controller,
)
from fixtures.slurm_jobs import explained, slurm_jobs, snakemake, submitted, wait_until

LONG = 900.0
STEPS = 150
TRAINING = Path("results/train/3drs")
TWO_MINUTES = (
    *("--set-resources", "train:runtime=2", "train:slurm_extra='--signal=USR1@30'", "--"),
    f"{TRAINING}/train.json",
)


def row(fault: str, outcome: str, started: float) -> None:
    print(f"| {fault} | {outcome} | {time.monotonic() - started:.0f} s |", flush=True)


def whole_demo(checkout: Checkout) -> None:
    """Run everything; never more GPUs than there are, and then nothing is left to do."""
    started, most, busy = time.monotonic(), 0, 0
    with snakemake(checkout, "--", "all") as run:
        while run.process.poll() is None:
            nodes = subprocess.check_output(["scontrol", "-d", "show", "node"], text=True)
            used = map(int, re.findall(r"GresUsed=gpu:(?:\(null\):)?(\d+)", nodes))
            most, busy = max(most, sum(used)), max(busy, len(slurm_jobs("RUNNING")))
            time.sleep(0.5)
        assert run.process.returncode == 0, run.said()[-5000:]
        jobs = sum(submitted(run.log()).values())
    check_results(checkout.folder)
    assert 0 < most <= GPUS, most
    assert checkout.planned_jobs() == {}
    text = f"{jobs} jobs, at most {busy} at once and {most} of {GPUS} GPUs"
    row("none: the whole small demo", text, started)


def time_limit_of_training(checkout: Checkout) -> None:
    """A limit of two minutes, warned of before: a retry, then the same command, goes on."""
    config = yaml.safe_load(SMALL.read_text())
    config["train"] |= {"epochs": 1000, "max_steps": STEPS}
    config["execution"]["save_every"] = 100
    path = checkout.folder / "limit.yaml"
    path.write_text(yaml.safe_dump(config))
    started, calls, jobs, saved = time.monotonic(), [], 0, []
    while not calls or (calls[-1] and len(calls) < 20):
        with snakemake(checkout, *TWO_MINUTES, config=path) as run:
            calls.append(run.ended(LONG))
            assert set(submitted(run.log())) == {"train 3drs"}, run.said()
            jobs += submitted(run.log())["train 3drs"]
            # Said where it is tried again, and at the end where it is not.
            saved += re.findall(r": stopped by SIGUSR1, saved at step (\d+)", run.said())
    assert calls[-1] == 0
    assert saved, "training was too quick to meet its limit"
    log = (checkout.folder / TRAINING / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))
    counts = f"calls of Snakemake: {len(calls)}, jobs: {jobs}; saved at step {', '.join(saved)}"
    text = f"{counts}; each of {STEPS} steps once in the log"
    row("training reaches `runtime` (2 min), signal from the profile", text, started)


def time_limit_of_a_stage(checkout: Checkout, cluster: Path) -> None:
    """A stage without a warning is ended; the line names the setting."""
    started, file = time.monotonic(), "results/instructions/scanqa_val.jsonl"
    (checkout.folder / file).unlink()
    (cluster / "hold").touch()
    limit = ("--retries", "0", "--set-resources", "convert_instructions:runtime=1", "--", file)
    with snakemake(checkout, *limit) as run:
        wait_until(lambda: slurm_jobs("TIMEOUT"), run, LONG)
        (cluster / "hold").unlink()
        assert run.ended(LONG) == 1
    (line,) = explained(run.said())
    assert "reached its time limit; raise runtime" in line
    with snakemake(checkout, "--", file) as run:
        assert run.ended() == 0
        assert sum(submitted(run.log()).values()) == 1
    row("a stage reaches `runtime` (1 min)", f"`{line}`; then 1 job", started)


def controller_away(checkout: Checkout, cluster: Path) -> None:
    """Slurm's controller ends and starts again while a job runs."""
    started, file = time.monotonic(), "results/instructions/scanqa_val.jsonl"
    (checkout.folder / file).unlink()
    (cluster / "hold").touch()
    with snakemake(checkout, "--", file) as run:
        wait_until(lambda: slurm_jobs("RUNNING"), run)
        stop_controller()
        time.sleep(20)
        assert run.process.poll() is None, run.said()
        start_controller()
        (cluster / "hold").unlink()
        assert run.ended(LONG) == 0, run.said()
        assert sum(submitted(run.log()).values()) == 1
    row("slurmctld is away for 20 s", "the job and Snakemake go on; 1 job", started)


def forgotten_with_accounting(checkout: Checkout, cluster: Path) -> None:
    """A job is cancelled and forgotten while Snakemake sleeps; accounting knows how it ended."""
    started, file = time.monotonic(), "results/instructions/scanqa_val.jsonl"
    (checkout.folder / file).unlink(missing_ok=True)
    start_accounting(cluster)
    (cluster / "hold").touch()
    with short_memory(2), snakemake(checkout, "--retries", "0", "--", file) as run:
        wait_until(lambda: slurm_jobs("RUNNING"), run)
        (job,) = slurm_jobs("RUNNING")
        os.kill(run.process.pid, signal.SIGSTOP)
        subprocess.run(["scancel", job.number], check=True)
        wait_until(lambda: not slurm_jobs(), run)
        os.kill(run.process.pid, signal.SIGCONT)
        (cluster / "hold").unlink()
        assert run.ended() == 1, run.said()
    (line,) = explained(run.said())
    assert f"job {job.number} was cancelled" in line, line
    row("cancelled and forgotten (MinJobAge 2 s), accounting on", f"`{line}`", started)


def main() -> None:
    """Run all of it on one cluster."""
    with tempfile.TemporaryDirectory() as place, slurm_cluster() as cluster:
        checkout = make_checkout(Path(place, "checkout"))
        whole_demo(checkout)
        controller_away(checkout, cluster)
        time_limit_of_a_stage(checkout, cluster)
        time_limit_of_training(checkout)
        forgotten_with_accounting(checkout, cluster)


if __name__ == "__main__":
    main()
