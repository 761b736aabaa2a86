"""A benchmark script ends in one line where results are missing, which says what makes them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.benchmark_scripts import run_script
from threedrs.tasks.registry import headline_columns

MAKES = "`snakemake --cores all --configfile FILE -- results/{}`"
Ended = Callable[..., str]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Ended:
    """Return a script's call on the results below ``tmp_path``; it returns the one line."""

    def run(script: str, *arguments: str) -> str:
        with pytest.raises(SystemExit, match="1"):
            run_script(monkeypatch, script, *arguments, "--results", str(tmp_path))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{script}: ")
        return line

    return run


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{json.dumps(value)}\n")


def test_a_run_that_lacks_a_benchmark_is_named_with_it(tmp_path: Path, ended: Ended) -> None:
    columns = headline_columns()
    scores = {"n": 1, "metrics": {column.metric: {"value": 1.0} for column in columns}}
    for run in ("3drs", "baseline"):
        for column in columns:
            write(tmp_path / "eval" / run / column.benchmark / "metrics.json", scores)
    write(
        tmp_path / "trivial_answers.json",
        {"format_version": 1, "benchmarks": {column.benchmark: {} for column in columns}},
    )
    place = "eval/baseline/scan2cap/metrics.json"
    (tmp_path / place).unlink()
    line = ended("learning")
    assert f": run baseline is not evaluated on scan2cap: {tmp_path / place}: is not there" in line
    assert MAKES.format(place) in line


@pytest.mark.parametrize(
    ("call", "place"),
    [
        (("learning",), None),
        (("colour_alone", "3drs"), "instructions/scanrefer_val.jsonl"),
        (("own_room", "3drs"), "train/3drs/config.json"),
        (("person_check", "score", "here"), "instructions/scanqa_val.jsonl"),
    ],
)
def test_an_empty_folder_gets_a_command(
    tmp_path: Path, ended: Ended, call: tuple[str, ...], place: str | None
) -> None:
    line = ended(*call)
    assert (MAKES.format(place) if place else f"{tmp_path}: has no evaluated run") in line


def test_answers_that_are_missing_are_named(tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions/scanrefer_val.jsonl").touch()
    line = ended("colour_alone", "3drs")
    assert "run 3drs is not evaluated on scanrefer: " in line
    assert MAKES.format("eval/3drs/scanrefer/predictions.jsonl") in line


def test_a_mistyped_run_is_asked_about(tmp_path: Path, ended: Ended) -> None:
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions/scanrefer_val.jsonl").touch()
    write(tmp_path / "eval/baseline/scanrefer/predictions.jsonl", {})
    there = tmp_path / "eval/baseline/scanrefer/predictions.jsonl"
    assert f"did you mean {there}? Or make it: " in ended("colour_alone", "basline")


def test_a_missing_summary_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="1"):
        run_script(monkeypatch, "same_recipe", "--summary", str(tmp_path / "summary.json"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"same_recipe: {tmp_path / 'summary.json'}: cannot be read")
