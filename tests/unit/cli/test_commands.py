"""All commands: help, the version, completion, and mistyped names that cost no import of torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import threedrs
from threedrs.cli import app, names

GROUP = typer.main.get_command(app)


def _commands(group=GROUP, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))
        else:
            yield (*above, name)


COMMANDS = [*_commands()]
# Of the commands that say what they found, not only which file they wrote.
REPORTING = {
    *("ask", "awareness", "chat", "doctor", "eval", "features verify", "instructions convert"),
    *("plan", "scene build", "scene show", "score", "sens info", "verify"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_help_that_fits_40_columns(command: tuple[str, ...]) -> None:
    found = CliRunner().invoke(app, [*command, "-h"], terminal_width=40)
    assert found.exit_code == 0
    # Long options leave their texts ten columns, which is the least.
    assert max(map(len, found.stdout.splitlines())) <= 44
    assert ("--json" in found.stdout) == (" ".join(command) in REPORTING)


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"threedrs {threedrs.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ask 3", ["3drs"]),
        ("chat 3drs scene0001", ["scene0001_00"]),
        ("score scan", ["scan2cap", "scanqa", "scanrefer"]),
        ("features verify ", ["vggt"]),
        ("eval --on sq", ["sqa3d"]),
    ],
)
def test_the_shell_completes_names(
    named_results: Path, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]
) -> None:
    (named_results / "results/features/vggt/train-000.zarr").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(named_results)
    words = f"threedrs {typed}"
    environment = {
        "_THREEDRS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    found = CliRunner().invoke(app, [], env=environment, prog_name="threedrs")
    assert sorted(found.stdout.split()) == offered


READ = "results/scenes/scene0000_00.zarr/zarr.json"
ROWS, META = "results/p.jsonl", "results/p.meta.json"
SQA3D = "benchmark/sqa_task/balanced/v1_balanced_questions_val_scannetv2.json"
# Each ends before torch is loaded: in a process of its own, where its import fails.
MISTYPED = [
    ("ask 3drz scene0000_00 x", "did you mean 3drs? results/train holds trained runs 3drs"),
    ("ask 3drs scene0000_0 x", "did you mean scene0000_00? results/scenes holds scene stores"),
    ("ask results/train/3drs scene0000_00 x", "holds one; give results/train/3drs/model"),
    ("ask results/train scene0000_00 x", "is not a checkpoint but holds one"),
    ("chat 3drs scene0000_00 --boxes all", "choose one of: gt, pred"),
    ("chat 3drs results/scenes/scene000_00.zarr", "did you mean results/scenes/scene000"),
    ("awareness 3drz --out x", "did you mean 3drs?"),
    ("awareness 3drs --out x --scenes results/scene", "did you mean results/scenes?"),
    ("model merge 3drs x", "holds no adapter"),
    ("publish 3drz", "did you mean 3drs?"),
    ("scene show scene0009", "did you mean scene0002_00?"),
    ("features verify vgtt", "did you mean vggt?"),
    ("features show vgtt scene0000_00", "did you mean vggt?"),
    ("features export results/features/vggt/train-0.zarr --out x", "did you mean results/feat"),
    ("score scanq x --out y", "did you mean scanqa?"),
    ("score scanqa x.jsonl --out y", "x.jsonl"),
    ("sens info x.sens", "x.sens"),
    ("sens export x.sens y", "x.sens"),
    ("instructions convert scanq val --data . --out x", "did you mean scanqa?"),
    ("predictions export x.jsonl --records y --out z", "x.jsonl: is not there; put it"),
    ("import-rgbd x y.sens", "x: is not there"),
    ("verify --results reslts", "reslts: is not a folder; did you mean results?"),
    ("features show vggt scene0000_00 --out f.gif", "--out f.gif: give a name that ends in .jpg"),
    ("scene show scene0000_00 --data result", "result: is not there; did you mean results?"),
    ("scene show scene0000_00 --out f.tif", "--out f.tif: give a name that ends in .jpg or .png"),
    ("unpack x.tar", "x.tar"),
    ("eval results/train/3drs", "holds one; give results/train/3drs/model"),
    ("eval results/features", "config.json: cannot be read (No such file or directory)"),
    (f"score scanqa {READ} --out {READ}", "is a file that is read; give another name"),
    (f"predictions export {READ} --records {READ} --out ./{READ}", "is a file that is read"),
    (f"predictions import {READ} --records {READ} --out {READ}", "is a file that is read"),
    (f"instructions export {READ} --out {READ}", "is a file that is read"),
    (f"score scanqa {READ} --out y --per-question {READ}", "is a file that is read"),
    (f"score scanqa {READ} --out y --per-question ./y", "--per-question y: is --out too; give"),
    (f"score scanqa {ROWS} --out {META}", "p.meta.json: is a file that is read"),
    (f"predictions export {ROWS} --records {READ} --out results/p.json", "p.meta.json: is a file"),
    (f"awareness 3drs --out {READ} --left-out {READ}", "is a file that is read"),
    (f"instructions convert sqa3d val --data . --out {SQA3D}", "is a file that is read"),
    ("eval 3drz", "run threedrs eval from the repository's folder"),
]
_RUN_ALL = """
import sys, json

class Refused:
    def find_spec(name, *rest):
        assert name != "torch", "torch is loaded"

sys.meta_path.insert(0, Refused)
from typer.testing import CliRunner
from threedrs.cli import app
for line in json.load(sys.stdin):
    found = CliRunner().invoke(app, line.split())
    print(json.dumps([type(found.exception).__name__, str(found.exception)]))
"""


def test_mistyped_names_are_said_without_torch(named_results: Path) -> None:
    (named_results / "results/features/vggt/train-000.zarr").mkdir(parents=True, exist_ok=True)
    for file in (ROWS, META, SQA3D):
        (named_results / file).parent.mkdir(parents=True, exist_ok=True)
        (named_results / file).touch()
    asked = [line for line, _ in MISTYPED]
    found = subprocess.run(
        [sys.executable, "-c", _RUN_ALL],
        **{"cwd": named_results, "input": json.dumps(asked), "env": {**os.environ}},
        capture_output=True,
        text=True,
        check=True,
    )
    for (line, message), said in zip(MISTYPED, found.stdout.splitlines(), strict=True):
        kind, text = json.loads(said)
        assert kind in ("ConfigError", "DataError", "StoreError", "CheckpointError", "SensError"), (
            f"{line}: {kind} {text}"
        )
        assert message in text, line
        assert "\n" not in text


def test_what_is_not_made_yet_has_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "my room").mkdir()
    for step in (8, 40):  # of another configuration's run
        (tmp_path / f"results/train/small/checkpoints/step-{step:08d}").mkdir(parents=True)
    (tmp_path / "config/config.yaml").write_text("runs: {cosine: {}}")
    for find, given, remedy in (
        (names.find_model, "cosine", "this run is not trained yet; run `snakemake --cores all mo"),
        (
            names.find_model,
            "small",
            "trained up to step 40 so far; .* models`, .* goes on from there",
        ),
        (names.find_model, "3drs", "results/train holds no trained runs yet; `snakemake --cores"),
        (names.find_scene, "scene0000_00", "holds no scene stores yet; `snakemake --cores all sc"),
        (names.find_shards, "vggt", "`snakemake --cores all features` makes them"),
        (names.find_scene, "./config", "is not a scene store; if it is a capture, `threedrs scene"),
        (names.find_scene, "./my room", "`threedrs scene build './my room' NAME.zarr` makes one"),
    ):
        with pytest.raises(threedrs.errors.ThreedrsError, match=remedy):
            find(given)


def test_a_long_list_is_said_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        (tmp_path / f"results/scenes/scene{number:04}_00.zarr").mkdir(parents=True)
    with pytest.raises(threedrs.errors.StoreError) as error:
        names.find_scene("scene0030_00")
    assert "holds 20 scene stores, scene0000_00 to scene0019_00" in str(error.value)
