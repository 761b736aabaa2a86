"""Processes killed at many points of the small demo, and what the same command makes of it.

    python tests/workflow/kill_matrix.py        # 66 kills, 12 minutes on two cores

fixtures/kill_chain.py says what is checked, fixtures/kill_points.py has the points, test_kills.py
runs a few, and docs/RELIABILITY.md has the outcome of all.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fixtures.checkout import make_checkout
from fixtures.kill_chain import run_chain
from fixtures.kill_points import CHAINS, points_of
from fixtures.same_results import differences


def main() -> int:
    """Run the matrix in a temporary folder and print its table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--undisturbed", type=Path, help="checkout with the small demo's results")
    undisturbed = parser.parse_args().undisturbed
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        if undisturbed is None:
            undisturbed = Path(place, "undisturbed")
            said = make_checkout(undisturbed).snakemake("--cores", "2", "all")
            assert said.returncode == 0, said.stdout[-6000:]
        met: dict[tuple[str, str], dict[str, str]] = {}
        kills = 0
        for victim in ("worker", "snakemake"):
            checkout = make_checkout(Path(place, victim))
            for target, stages in CHAINS.items():
                chain = run_chain(checkout, ["--cores", "2", target], points_of(stages, victim))
                for outcome in chain:
                    if outcome.point is None:
                        continue
                    kills += outcome.hit
                    row = met.setdefault((outcome.point.job, outcome.point.when), {})
                    row[victim] = "same results" if outcome.hit else "not met"
                    print(victim, outcome.point.job, outcome.point.when, row[victim], flush=True)
            found = differences(checkout.folder / "results", undisturbed / "results")
            assert not found, found
        print("| job | killed | the job | Snakemake |\n|---|---|---|---|")
        for (job, when), row in met.items():
            cells = [row.get(victim, "not met") for victim in ("worker", "snakemake")]
            print(f"| `{job}` | {when} | {' | '.join(cells)} |")
        print(f"{kills} kills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
