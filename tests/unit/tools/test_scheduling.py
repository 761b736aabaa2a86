"""A crashed worker ends in a failed test of that name, the others run, and skips have reasons."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fixtures.repository import ROOT

TESTS = ROOT / "tests"
CRASH = "import os\ndef test_crash(): os._exit(9)\n"
SKIPPED = 'import pytest\n@pytest.mark.skip(reason="needs a GPU")\ndef test_gpu(): pass\n'


def passing(*names: str) -> str:
    return "".join(f"def test_{name}(): pass\n" for name in names)


def run_pytest(folder: Path, workers: int) -> subprocess.CompletedProcess[str]:
    """Run the tests in ``folder`` as `make test` would, with this number of workers."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    # This test may itself run in a worker, whose settings must not reach the inner session.
    environment = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # each worker would import them all
    options = ["-p", "xdist", "-p", "scheduling", "-p", "no:cacheprovider"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    options += project["tool"]["pytest"]["ini_options"]["addopts"].split()
    options += ["-v", "--numprocesses", str(workers)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--dist", "loadfile", "--no-loadscope-reorder"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "files", "crashing"),
    [
        (
            2,
            {
                "test_a.py": passing("before") + CRASH + passing("after"),
                "test_b.py": passing("one", "two"),
                "test_c.py": passing("three", "four") + SKIPPED,
            },
            ["test_a.py::test_crash"],
        ),
        # Two workers are lost at the same time: while one replacement collects, the other worker's
        # tests are handed out again.
        (
            2,
            {
                "test_a.py": CRASH + passing("after"),
                "test_b.py": CRASH + passing("one", "two"),
                "test_c.py": passing("three"),
            },
            ["test_a.py::test_crash", "test_b.py::test_crash"],
        ),
        # The only worker is lost at the end of a file; files of one test each are left.
        (
            1,
            {
                "test_a.py": passing("before") + CRASH,
                "test_b.py": passing("one"),
                "test_c.py": passing("two"),
            },
            ["test_a.py::test_crash"],
        ),
    ],
)
def test_a_crashed_worker_is_a_failed_test(
    tmp_path: Path, workers: int, files: dict[str, str], crashing: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    said = run_pytest(tmp_path, workers)
    assert "INTERNALERROR" not in said.stdout
    assert said.returncode == 1, said.stdout
    assert sorted(re.findall(r"^FAILED (\S+)", said.stdout, re.MULTILINE)) == crashing
    assert f"crashed while running '{crashing[0]}'" in said.stdout
    expected = {
        f"{file}::{test}" for file, text in files.items() for test in re.findall(r"def (\w+)", text)
    }
    passed = re.findall(r"\] PASSED (\S+)", said.stdout)
    skipped = {name for name in expected if name.endswith("test_gpu")}
    assert sorted(passed) == sorted(expected - skipped - set(crashing))
    reasons = re.findall(r"^SKIPPED \[1\] (.*)$", said.stdout, re.MULTILINE)
    assert reasons == ["test_c.py:4: needs a GPU"] * len(skipped)
