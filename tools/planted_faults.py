"""Plants twenty faults one after another, and says of each whether its tests find it.

    python tools/planted_faults.py [--only NAME]

The faults stand in `FAULTS`, over all packages, each as another text in one place and with the
tests that are to find it. They are planted in a copy of the working tree. Run it before and after
tests are cut or made cheaper: a suite that is quicker and finds less is worth less. It takes some
four minutes on one core. The status is 1 if a fault is not found, or if a test fails without one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_FAILED = 1  # the status of pytest; another one means that the tests could not run
PASSED = 0


@dataclass(frozen=True)
class Fault:
    """Another text in one place of the package, and the tests that are to fail with it."""

    name: str
    file: str  # below src/threedrs
    old: str  # stands there once
    new: str
    tests: str  # a file below tests/unit, whose fast tests are to find it, or one test


FAULTS = (
    Fault(
        "BLEU punishes long answers, not short ones",
        "metrics/captions.py",
        "1.0 - 1.0 / ratio",
        "1.0 - ratio",
        "metrics/test_captions.py",
    ),
    Fault(
        "boxes that do not meet have an IoU",
        "scannet/boxes.py",
        "np.clip(upper_NM3 - lower_NM3, 0.0, None)",
        "np.abs(upper_NM3 - lower_NM3)",
        "scannet/test_boxes.py",
    ),
    Fault(
        "the last of equally good frames is chosen",
        "scenes/coverage.py",
        "int(gain_F.argmax())",
        "len(gain_F) - 1 - int(gain_F[::-1].argmax())",
        "scenes/test_coverage.py",
    ),
    Fault(
        "caps of the mix admit one sample too many",
        "instructions/balance.py",
        "self._counts[key] >= self._limits",
        "self._counts[key] > self._limits",
        "instructions/test_balance.py",
    ),
    Fault(
        "the 3D loss has no weight",
        "models/packing.py",
        "weight * self.supervision",
        "self.supervision",
        "models/test_student_losses.py",
    ),
    Fault(
        "a suffix attends to the suffixes before it",
        "models/packing.py",
        "(owner_S[:, None] == owner_S).tril()",
        "(owner_S[:, None] >= owner_S).tril()",
        "models/test_packing.py",
    ),
    Fault(
        "positions of a suffix go on from the suffix before it",
        "models/packing.py",
        "ids_T[self.prefix_length :] -= skipped_K[self.owner_S]",
        "pass",
        "models/test_packing.py",
    ),
    Fault(
        "a resumed run begins with its first samples again",
        "training/loop.py",
        "run.batches_after(first_step)",
        "run.batches_after(0)",
        "training/test_loop_trouble.py::test_a_stop_in_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for[2]",
    ),
    Fault(
        "two processes hold one lock",
        "workflow/locks.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "workflow/test_locks.py",
    ),
    Fault(
        "the hash of code does not see how a function is written",
        "workflow/code_hash.py",
        "sorted(code.values())",
        "sorted(code)",
        "workflow/test_code_hash.py",
    ),
    Fault(
        "jobs are forgotten while Slurm does not answer",
        "workflow/slurm_watch.py",
        "for job in active_jobs:",
        "for job in ():",
        "workflow/test_slurm_watch.py",
    ),
    Fault(
        "deviations over seeds are divided by n, not n - 1",
        "evaluation/aggregate.py",
        "statistics.stdev(",
        "statistics.pstdev(",
        "evaluation/test_aggregate.py",
    ),
    Fault(
        "Holm's correction counts one comparison less",
        "evaluation/compare.py",
        "(len(p_values) - rank)",
        "(len(p_values) - rank - 1)",
        "evaluation/test_compare.py",
    ),
    Fault(
        "sizes of boxes are half sizes",
        "scannet/boxes.py",
        "[(lower + upper) / 2, upper - lower]",
        "[(lower + upper) / 2, (upper - lower) / 2]",
        "scannet/test_boxes.py",
    ),
    Fault(
        "an archive writes outside of its folder",
        "inputs/archives.py",
        ' or ".." in member.split("/")',
        "",
        "inputs/test_archives.py",
    ),
    Fault(
        "a saved checkpoint has a tensor of another name",
        "models/backbones/llava.py",
        '("model.mm_projector.", "projector.")',
        '("model.projector.", "projector.")',
        "models/checkpoint/test_load_save.py",
    ),
    Fault(
        "the second new token has no row in the vocabulary",
        "models/checkpoint/matching.py",
        "result_TD[first_new : first_new + 2]",
        "result_TD[first_new : first_new + 1]",
        "models/checkpoint/test_matching.py",
    ),
    Fault(
        "a download that arrives with other bytes is kept",
        "inputs/download.py",
        "if published is not None and digest != published:",
        "if False:",
        "inputs/test_published_downloads.py",
    ),
    Fault(
        "pages print what strangers wrote as HTML",
        "visualization/templates.py",
        "autoescape=True",
        "autoescape=False",
        "scenes/test_report.py",
    ),
    Fault(
        "the farthest key is proposed for a mistyped one",
        "errors.py",
        "difflib.get_close_matches(name, [*known], n=1, cutoff=cutoff)",
        "[*known][-1:]",
        "config/test_section.py",
    ),
)


def run_tests(tree: Path, tests: str) -> int:
    """Run a fault's tests in the tree against its own package; return the status of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", f"tests/unit/{tests}"]
    if "::" not in tests:
        command += ["-m", "not slow"]
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=False
    ).returncode


def plant(tree: Path, fault: Fault) -> str:
    """Run the fault's tests with the fault in the tree, and return what came of it."""
    file = tree / "src" / "threedrs" / fault.file
    right = file.read_text()
    if right.count(fault.old) != 1:
        return "does not fit"
    file.write_text(right.replace(fault.old, fault.new))
    try:
        status = run_tests(tree, fault.tests)
    finally:
        file.write_text(right)
    return {TESTS_FAILED: "found", PASSED: "not found"}.get(status, f"pytest ended with {status}")


def main() -> int:
    """Print a row a fault; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="faults whose name holds this text")
    only = parser.parse_args().only or ""
    chosen = [fault for fault in FAULTS if only in fault.name]
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        tree = Path(place, "tree")
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "results", "__pycache__"))
        for tests in sorted({fault.tests for fault in chosen}):
            if run_tests(tree, tests) != PASSED:
                print(f"{tests}: fails without a fault; mend that first", file=sys.stderr)
                return 1
        print("| fault | in `src/threedrs` | tests in `tests/unit` | |\n|---|---|---|---|")
        found = 0
        for fault in chosen:
            outcome = plant(tree, fault)
            found += outcome == "found"
            row = (fault.name, f"`{fault.file}`", f"`{fault.tests}`", outcome)
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{found} of {len(chosen)} found")
    return int(found != len(chosen))


if __name__ == "__main__":
    sys.exit(main())
