"""Where the workflow is started: another folder, another clone's environment, a nameless user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.checkout import SMALL, Checkout, counted_jobs
from fixtures.repository import ROOT
from threedrs.config.yaml_files import merged

pytestmark = pytest.mark.slow
OUTER = """
configfile: "mine.yaml"

module threedrs:
    snakefile:
        "{checkout}/Snakefile"
    config:
        config["threedrs"]

use rule * from threedrs as threedrs_*

rule mine:
    default_target: True
    input:
        "results/report/index.html",
        rules.threedrs_scores.input,
    output:
        "mine.txt",
    shell:
        "cp {{input[0]}} {{output}}"
"""


def test_from_elsewhere_with_another_clones_environment(checkout: Checkout, tmp_path: Path) -> None:
    """`-s`, another clone's PYTHONPATH, no HOME to write to, no name, LANG=C, umask 077."""
    with (checkout.folder / "Snakefile").open("a") as stream:
        stream.write("\nimport threedrs\nprint('code:', threedrs.__file__, file=sys.stderr)\n")
    elsewhere = tmp_path / "it's a R&D folder"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "snakemake", "-s", str(checkout.folder / "Snakefile")]
    command += ["-n", "-q", "rules", "--configfile", str(SMALL), "--", "all"]
    if os.geteuid() == 0 and shutil.which("setpriv"):  # still allowed to read everything
        may = "+dac_override,+dac_read_search"
        user = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups"]
        command = [*user, "--inh-caps", may, "--ambient-caps", may, *command]
    done = subprocess.run(
        command,
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "LANG": "C", "HOME": "/", "PYTHONPATH": f"{ROOT}/src"},
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"code: {checkout.folder}/src/threedrs/__init__.py" in done.stderr
    assert "total" in done.stdout + done.stderr
    (checkout.folder / "config/config.yaml").unlink()
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "config: config/config.yaml is neither in this folder nor in" in done.stderr


def test_moved_data_and_results_without_their_records(
    finished: Checkout, checkout: Checkout
) -> None:
    """Data in another folder plans nothing; one other byte plans what reads it."""
    for name in ("results", ".snakemake"):
        shutil.copytree(
            finished.folder / name, checkout.folder / name, symlinks=True, dirs_exist_ok=True
        )
    moved = checkout.folder / "moved here"
    shutil.copytree(checkout.folder / "results/demo", moved)  # with new dates of folders
    (checkout.folder / "results/demo").rename(checkout.folder / "results/away")
    root = ("--config", f"data={{root: {moved}}}")
    assert checkout.planned(*root) == set()
    (scan,) = [*moved.glob("**/scans/*/*.aggregation.json")][:1]
    scan.write_text(scan.read_text() + "\n")
    assert {job.split()[0] for job in checkout.planned(*root)} >= {"boxes"}
    shutil.rmtree(checkout.folder / ".snakemake")
    said = checkout.snakemake("all", "-n", "-q", "rules")
    assert "came without .snakemake/metadata" in said.stdout


def test_a_finished_study_is_recognised_in_another_folder(
    finished: Checkout, checkout: Checkout
) -> None:
    """Copied with new dates (cp -r) it is; without its records a line says what to copy."""
    for name in ("results", ".snakemake/metadata"):
        shutil.copytree(finished.folder / name, checkout.folder / name, copy_function=shutil.copy)
    by_date = {"scene_report"}  # its inputs are folders
    assert checkout.planned() <= by_date
    shutil.rmtree(checkout.folder / ".snakemake/metadata")
    said = checkout.snakemake("all", "-n", "-q", "rules")
    assert "copy .snakemake too (cp -a), or, if the results are of this" in said.stdout
    assert checkout.snakemake("--touch", "--cores", "1", "all").returncode == 0
    assert checkout.planned() <= by_date


def test_another_workflow_uses_this_one_as_a_module(
    finished: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results are those of the rules used alone, so only the other workflow's rule runs."""
    for name in ("results", ".snakemake/metadata"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    (tmp_path / "src").symlink_to(finished.folder / "src")
    monkeypatch.chdir(finished.folder)
    (tmp_path / "mine.yaml").write_text(json.dumps({"threedrs": merged([SMALL], "eval")}))
    (tmp_path / "Snakefile").write_text(OUTER.format(checkout=finished.folder))
    profile = ("--workflow-profile", str(finished.folder / "profiles/default"))
    said = Checkout(tmp_path).snakemake("-n", "-q", "rules", *profile, config=None)
    assert said.returncode == 0, said.stdout
    assert counted_jobs(said.stdout) == {"mine": 1}
    said = Checkout(tmp_path).snakemake("threedrs_answers", "--cores", "1", config=None)
    assert said.returncode == 1
    assert "threedrs_answers: there is nothing to make, as no split of data.scenes" in said.stdout


def test_a_number_of_the_command_line_is_a_number(finished: Checkout) -> None:
    """Snakemake itself has each value within a section as a text."""
    jobs = finished.planned_jobs("--config", "data={max_bad_fraction: 0.5}")
    assert jobs == {"check_limit": 2, "all": 1}
