"""Where the workflow is started: another folder, another clone's environment, a nameless user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.checkout import SMALL, Checkout
from fixtures.repository import ROOT

pytestmark = pytest.mark.slow


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
