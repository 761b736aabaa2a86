"""Two groups of runs are compared at the steps and on the benchmarks that all of them have."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.benchmark_scripts import run_script

Compare = Callable[..., str]


def write_run(results: Path, run: str, losses: list[float], scores: dict[str, float]) -> None:
    lines = ["train: 4 samples, 2 packs"]
    for number, loss in enumerate(losses, start=1):
        step = 20 * number
        lines.append(
            f"train: step {step}/600 loss {loss:.4f} text {2 * loss:.4f} grounding 1.0000 "
            "supervision 0.0000 99.0 samples/s ETA 1.0 min"
        )
    log = results / "logs" / "train" / f"{run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(lines) + "\n")
    for benchmark, score in scores.items():
        file = results / "eval" / run / benchmark / "metrics.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"metrics": {"em": {"value": score}}}))


@pytest.fixture
def compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Compare:
    """Return the script on the runs below ``tmp_path``; it returns what the script prints."""

    def run(*options: str) -> str:
        results = ["--results", str(tmp_path)]
        run_script(monkeypatch, "compare_groups", "a-", "b-", *results, *options)
        return capsys.readouterr().out

    return run


def test_means_deviations_and_welch_interval(tmp_path: Path, compare: Compare) -> None:
    for seed, losses in enumerate(([1.0, 3.0, 9.0], [3.0, 5.0, 9.0])):
        write_run(tmp_path, f"a-seed{seed}", losses, {"sqa3d": 40.0 + 4.0 * seed})
    for seed, losses in enumerate(([2.0, 2.0], [4.0, 4.0])):  # they stopped earlier
        write_run(tmp_path, f"b-seed{seed}", losses, {"sqa3d": 50.0 + 4.0 * seed})
    said = compare("--rows", "2").splitlines()
    assert len(said) == 5 + 1 + 3 + 1  # one window of two rows, three losses; one metric
    # Means 2 and 4 against 2 and 4: both deviate by sqrt(2), each mean has a variance of 1, so the
    # difference has a standard error of sqrt(2) and 2 degrees of freedom: t = 4.3027.
    assert said[2].startswith("| 20 to 40 | loss | 3.000 ± 1.414 | 3.000 ± 1.414 |")
    assert said[2].endswith("| +0.000 (-6.085 to 6.085) |")
    assert said[3].startswith("| 20 to 40 | text | 6.000 ± 2.828 |")
    # Twice the deviation, so twice the half width: 12.170.
    assert said[8].endswith("| 42.0 ± 2.8 | 52.0 ± 2.8 | +10.0 (-2.2 to 22.2) |")


def test_a_benchmark_that_a_run_lacks_is_left_out(tmp_path: Path, compare: Compare) -> None:
    for run in ("a-seed1", "a-seed2", "b-seed1"):
        write_run(tmp_path, run, [1.0], {"sqa3d": 40.0})
    write_run(tmp_path, "b-seed2", [1.0], {})
    assert "benchmark" not in compare()


def test_a_group_of_one_run_is_refused(
    tmp_path: Path, compare: Compare, capsys: pytest.CaptureFixture
) -> None:
    write_run(tmp_path, "a-seed1", [1.0], {})
    with pytest.raises(SystemExit, match="2"):
        compare()
    assert "fewer than two logs of a- and b-" in capsys.readouterr().err
