"""A submission that succeeded is never repeated, whatever `sbatch` prints."""

from pathlib import Path

import pytest

from threedrs.workflow import slurm_submit
from threedrs.workflow.slurm_submit import submit

ARGUMENTS = ["--parsable", "--job-name", "run", "--comment", "rule_boxes_wildcards_train"]
OURS = "41|rule_boxes_wildcards_val\\n42|rule_boxes_wildcards_train\\n"
LATE = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(slurm_submit, "BETWEEN", 0.0)


def say(folder: Path, program: str, out: str, error: str = "", status: int = 0) -> None:
    path = folder / program
    path.write_text(
        f"#!/bin/sh\necho {program} >>{folder}/calls\nprintf '{out}'\n"
        f"printf '{error}' >&2\nexit {status}\n"
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("42\\n", "42"),
        ("42;main\\n", "42;main"),
        ("Welcome, 7 users since 2019\\n42\\n", "42"),
        ("42;main\\nYou have 130.5 GiB left, 3 jobs and 12 files\\n", "42;main"),
        ("Kl\\374ster\\n42\\n", "42"),  # Latin-1
        ("2026\\n42\\n", "42"),  # a banner that looks like a number: Slurm knows which one is ours
        ("\\n42\\n2026\\n", "42"),
        ("Submitted\\n", "42"),  # a site that swallows the number
    ],
)
def test_the_number_is_found(tmp_path: Path, said: str, number: str) -> None:
    say(tmp_path, "sbatch", said)
    say(tmp_path, "squeue", OURS)
    done = submit(ARGUMENTS)
    assert (done.returncode, done.stdout, done.stderr) == (0, number, "")
    assert (tmp_path / "calls").read_text().count("sbatch") == 1


def test_a_request_that_was_answered_too_late(tmp_path: Path) -> None:
    say(tmp_path, "sbatch", "", LATE, 1)
    say(tmp_path, "squeue", OURS)
    assert submit(ARGUMENTS).stdout == "42"
    say(tmp_path, "squeue", "41|rule_boxes_wildcards_val\\n")
    done = submit(ARGUMENTS)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", LATE)
    assert (tmp_path / "calls").read_text().count("sbatch") == 2


def test_a_late_answer_of_another_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is looked for where it was sent to, and its cluster is told."""
    say(tmp_path, "sbatch", "", LATE, 1)
    ours = "42|rule_boxes_wildcards_train"
    (tmp_path / "squeue").write_text(
        f"""#!/bin/sh
case "$*" in
*--clusters=big*) echo '{ours}' ;;
*--clusters=all*) echo 'CLUSTER: a'; echo 'CLUSTER: b'; echo '{ours}' ;;
esac
"""
    )
    (tmp_path / "squeue").chmod(0o755)
    for option in (["--clusters", "big"], ["--clusters=big"], ["-M", "big"], ["-Mbig"]):
        assert submit([*ARGUMENTS, *option, "-D", "/"]).stdout == "42;big"
    assert submit([*ARGUMENTS, "-M", "all"]).stdout == "42;b"
    monkeypatch.setenv("SBATCH_CLUSTERS", "big")
    assert submit(ARGUMENTS).stdout == "42;big"


@pytest.mark.parametrize("squeue", [OURS.splitlines()[0][:27], ""])
def test_a_refusal_stays_one(tmp_path: Path, squeue: str) -> None:
    refusal = "sbatch: error: Batch job submission failed: Invalid qos specification"
    say(tmp_path, "sbatch", "", refusal, 1)
    say(tmp_path, "squeue", squeue)
    done = submit(ARGUMENTS)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", refusal)
    assert (tmp_path / "calls").read_text().split() == ["sbatch", "squeue"]


def test_a_job_that_has_ended_already_keeps_its_number(tmp_path: Path) -> None:
    say(tmp_path, "sbatch", "2026\\n42\\n")
    say(tmp_path, "squeue", "")
    assert submit(ARGUMENTS).stdout == "42"


def test_no_answer_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_submit, "SECONDS", 0.2)
    path = tmp_path / "sbatch"
    path.write_text("#!/bin/sh\nexec sleep 20\n")
    path.chmod(0o755)
    say(tmp_path, "squeue", "")
    done = submit(ARGUMENTS)
    assert done.returncode == 1
    assert "no answer within" in done.stderr


def test_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = submit(ARGUMENTS)
    assert done.returncode == 127
    assert "sbatch" in done.stderr
