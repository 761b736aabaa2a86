"""The commands of docs/RECIPES.md work as they are typed, on the small demo."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.checkout import SMALL, Checkout, copy_finished
from fixtures.forked_jobs import forked_python
from fixtures.repository import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/RECIPES.md").read_text(encoding="utf-8")
START, *SECTIONS = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)
RECIPES = dict(zip(SECTIONS[::2], SECTIONS[1::2], strict=True))
# What a recipe says when it has worked: the new run is planned, the scores are there.
SAYS = {
    "3DRS on four A100s": "4 GPUs of 85 GB",
    "Another teacher": "Training run 3drs-pointmap",
    "Your own benchmark": "Scores of 3drs on my_qa",
    "Your own backbone": "Training run 3drs-mine",
    "Evaluate a checkpoint only": "ScanQA, run 3drs-model-first2",
    "ScanQA only": "Training mix full",
    "Own capture to answers": "image: found.png",
}


def commands(text: str) -> str:
    """Return the shell blocks of a recipe, as one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def write_commands(folder: Path) -> Path:
    """Write `snakemake` and `threedrs`, which the recipes type most, as forks."""
    folder.mkdir()
    for name in ("snakemake", "threedrs"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {forked_python()} -m {name} "$@"\n')
        command.chmod(0o755)
    return folder


def type_recipe(text: str, folder: Path) -> str:
    """Type the commands of a recipe in a checkout, and return what they say."""
    packages = folder / "packages"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(text)],
        cwd=folder,
        env={
            **os.environ,
            "FILES": str(SMALL),
            "PATH": f"{folder}/commands:{ROOT}/.venv/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder}/src:{packages}",
            # pip installs beside the environment that runs the tests, and asks no registry.
            "PIP_TARGET": str(packages),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def demo(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_finished(finished, tmp_path_factory.mktemp("recipes") / "checkout").folder
    (folder / "tests").symlink_to(ROOT / "tests")
    write_commands(folder / "commands")
    return folder


def test_the_start_names_the_demo_too() -> None:
    assert commands(START).startswith("export FILES=config/paper.yaml ")
    assert "FILES=config/config.yaml" in START


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_typed(name: str, demo: Path) -> None:
    source = demo / "src"
    try:
        # The heading of a narrow table goes over two lines.
        assert SAYS[name] in " ".join(type_recipe(RECIPES[name], demo).split())
    finally:  # a benchmark is added to the package itself
        shutil.rmtree(source)
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("*.egg-info"))
