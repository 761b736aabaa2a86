"""``threedrs score``: the file it writes, what it prints, how it fails."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from threedrs.cli import main
from threedrs.cli.evaluate import score
from threedrs.errors import ConfigError, DataError
from threedrs.evaluation.score import score_file
from threedrs.io.files import sha256_of_file
from threedrs.metrics import meteor
from threedrs.tasks.prediction import Prediction, write_predictions
from threedrs.tasks.registry import TASKS

app = typer.Typer()
app.command()(score)


def predictions(folder, run="3drs", benchmark="scanqa", count=6):
    path = folder / run / benchmark / "predictions.jsonl"
    path.parent.mkdir(parents=True)
    rows = [
        {
            "format_version": 1,
            "id": f"q{index}",
            "benchmark": benchmark,
            "scene": f"scene{index % 3:04d}_00",
            "question_type": ["what", "is"][index % 2],
            "prediction": ["a brown chair", "yes"][index % 2],
            "references": ["a brown chair", "brown"],
            "scores": None,
            "boxes": [],
            "gt": [],
        }
        for index in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_writes_the_metrics_file_and_prints_a_table(tmp_path):
    path, out = predictions(tmp_path), tmp_path / "metrics.json"
    meta = {"format_version": 1, "n": 6, "inputs": {"model": "abc"}}
    path.with_name("predictions.meta.json").write_text(json.dumps(meta))
    result = run("scanqa", path, "--out", out, "--no-meteor", "--bootstrap", 50)
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert list(written) == [
        "format_version",
        "run",
        "benchmark",
        "n",
        "metrics",
        "by_type",
        "alike",
        "left_out",
        "provenance",
    ]
    assert (written["format_version"], written["run"], written["n"]) == (1, "3drs", 6)
    assert tuple(written["metrics"]) == TASKS["scanqa"].metrics
    assert written["metrics"]["em"]["value"] == 50.0
    assert written["metrics"]["em"]["low"] <= 50.0 <= written["metrics"]["em"]["high"]
    assert written["metrics"]["meteor"]["value"] is None
    assert written["metrics"]["meteor"]["unavailable"] == "left out on request"
    assert written["by_type"]["what"]["n"] == 3
    assert written["by_type"]["what"]["metrics"]["em"]["value"] == 100.0
    provenance = written["provenance"]
    assert provenance["predictions_sha256"] == sha256_of_file(path)
    assert provenance["predictions_meta"] == meta
    assert provenance["settings"]["bootstrap"] == 50
    for text in ("ScanQA", "3drs", "bleu4", "50.0", "meteor is unavailable: left out on request"):
        assert text in result.output


def test_without_java_the_rest_is_still_given(tmp_path, monkeypatch):
    monkeypatch.setattr(meteor.shutil, "which", lambda name: None)
    out = tmp_path / "metrics.json"
    assert run("scanqa", predictions(tmp_path), "--out", out, "--run", "x").exit_code == 0
    written = json.loads(out.read_text())
    assert written["run"] == "x"
    assert "needs Java" in written["metrics"]["meteor"]["unavailable"]
    assert written["metrics"]["meteor"]["value"] is None
    assert written["metrics"]["rouge_l"]["value"] > 0


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    path = predictions(tmp_path)
    for name in ("a", "b"):
        assert run("scanqa", path, "--out", tmp_path / name, "--no-meteor").exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loose_file_is_named_after_itself(tmp_path):
    path = predictions(tmp_path).rename(tmp_path / "mine.jsonl")
    out = tmp_path / "metrics.json"
    assert run("scanqa", path, "--out", out, "--no-meteor", "--bootstrap", 0).exit_code == 0
    written = json.loads(out.read_text())
    assert written["run"] == "mine"
    assert written["metrics"]["em"] == {"value": 50.0, "low": None, "high": None}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["scanqq"], ConfigError, "unknown benchmark 'scanqq'"),
        (["sqa3d"], DataError, "line 1: is a row of 'scanqa', expected 'sqa3d'"),
        (["scanqa", "--bootstrap", "-1"], ConfigError, "bootstrap is -1"),
    ],
)
def test_it_fails_with_one_line_and_no_file(tmp_path, arguments, error, message):
    path, out = predictions(tmp_path), tmp_path / "metrics.json"
    benchmark, *options = arguments
    result = run(benchmark, path, "--out", out, "--no-meteor", *options)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not out.exists()


@pytest.mark.parametrize("name", ["question_type", "prediction"])
def test_half_a_surrogate_pair_is_named(tmp_path, name):
    path = predictions(tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3][name] = "\ud800"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = run("scanqa", path, "--out", tmp_path / "metrics.json").exception
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path}: line 4: {name}: holds half a surrogate pair")


@pytest.mark.parametrize(
    ("out", "named", "message"),
    [
        ("folder", "folder", "a folder stands where a file is expected (Is a directory)"),
        ("file/m.json", "file", "a file stands where a folder is expected (File exists)"),
        ("file/x/m.json", "file/x", "a file stands where a folder is expected (Not a directory)"),
    ],
)
def test_a_folder_for_a_file_and_the_reverse(tmp_path, monkeypatch, capsys, out, named, message):
    path = predictions(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    arguments = ["threedrs", "score", "scanqa", path, "--no-meteor", "--out", tmp_path / out]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    remedy = "give another path or move away what stands there, and run the same again"
    assert said == f"threedrs: error: {tmp_path / named}: {message}; {remedy}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3drs", "file", "folder"]


def test_scoring_and_comparing_import_no_package_that_takes_long():
    program = (
        "import sys, threedrs.cli.evaluate, threedrs.evaluation.aggregate, "
        "threedrs.evaluation.score, threedrs.evaluation.tables; "
        "heavy = ('torch', 'open3d', 'transformers', 'scipy.stats', 'scipy.optimize'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_empty_answers_are_counted_but_those_that_no_model_was_asked_for(tmp_path):
    path, out = tmp_path / "predictions.jsonl", tmp_path / "metrics.json"
    rows = [
        Prediction(id=f"{i}", benchmark="scan2cap", scene="scene0000_00", prediction="",
                   references=("a chair",))
        for i in range(10)
    ]  # fmt: skip
    write_predictions(path, rows)
    meta = {"format_version": 1, "n": 10, "counts": {"without_model": 4}}
    path.with_name("predictions.meta.json").write_text(json.dumps(meta))
    alike = score_file("scan2cap", path, out, bootstrap=0, meteor=False)["alike"]
    assert alike == {"most_frequent": "", "count": 6, "of": 6}


def test_predictions_other_than_their_meta_file_says_are_not_scored(tmp_path):
    path = predictions(tmp_path)
    meta = {"format_version": 1, "n": 6, "predictions_sha256": sha256_of_file(path)}
    path.with_name("predictions.meta.json").write_text(json.dumps(meta))
    arguments = ["scanqa", path, "--out", tmp_path / "metrics.json", "--no-meteor"]
    assert run(*arguments).exit_code == 0
    path.write_text(path.read_text().replace("brown", "green", 1))
    error = run(*arguments).exception
    assert isinstance(error, DataError)
    assert "is not the file that predictions.meta.json describes" in str(error)
