"""envs/*.yaml, pyproject.toml, the containers and the locks name the same packages and versions."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fixtures.repository import ROOT


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text()
    return {plain(name): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


LOCK = pins("requirements.lock")
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent)


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.name)
def test_pins_are_the_locks(path: Path) -> None:
    named = next(
        entry["pip"]
        for entry in yaml.safe_load(path.read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    assert named
    for pin in named:
        name, version = pin.split("==")
        assert LOCK[plain(name)] == version


# Imports what stands on standard input, with the packages alone that the pins bring.
WITH_PINS_ALONE = """
import re, sys
from importlib import metadata
from importlib.machinery import PathFinder
from packaging.requirements import Requirement
here, wanted = set(), {*sys.argv[1:], "pip", "setuptools"}
while wanted - here:
    name = (wanted - here).pop()
    here.add(name)
    try:
        needs = [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:  # of another system
        continue
    used = [need for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    wanted |= {re.sub("[-_.]+", "-", need.name).lower() for need in used}
class Pinned:  # what is not among them is not found, as packages ask for optional ones
    tops = metadata.packages_distributions()
    def find_spec(self, name, path=None, target=None):
        of = {re.sub("[-_.]+", "-", each).lower() for each in self.tops.get(name, ())}
        if not of or of & {*here, "threedrs"}:
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Pinned()
exec(sys.stdin.read())
"""


def rule_scripts(environment: str) -> set[Path]:
    """Return the scripts of the rules that name a conda environment."""
    found = set()
    for rules in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^(?:rule|checkpoint) ", rules.read_text(), flags=re.MULTILINE):
            script = re.search(r'"\.\./scripts/(\w+\.py)"', rule)
            if script and f"envs/{environment}" in rule:
                found.add(ROOT / "workflow/scripts" / script[1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.name)
def test_what_runs_in_an_environment_imports_no_other_package(path: Path) -> None:
    """Snakemake itself runs in that of data.yaml (docs/CONTAINERS.md)."""
    files = rule_scripts(path.name)
    assert files
    files |= {ROOT / "workflow/rules/common.smk"} if path.stem == "data" else set()
    lines = [line for file in files for line in file.read_text().splitlines()]
    imports = [line for line in lines if re.match(r"(from|import) \S+", line) and "(" not in line]
    pins = [plain(line.split("==")[0]) for line in re.findall(r"- (\S+==\S+)", path.read_text())]
    done = subprocess.run(
        [sys.executable, "-c", WITH_PINS_ALONE, *pins],
        input="\n".join(imports),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_the_lock_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    missing = {plain(re.match(r"[\w.-]+", line)[0]) for line in wanted} - set(LOCK)
    assert not missing


def test_the_docs_lock_has_what_the_docs_add_and_nothing_twice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    docs = pins("requirements-docs.lock")
    wanted = project["optional-dependencies"]["docs"]
    assert {plain(re.match(r"[\w.-]+", line)[0]) for line in wanted} <= set(docs)
    assert not set(docs) & set(LOCK)


def test_the_containers_install_what_set_up_installs() -> None:
    """Both recipes stand on one pinned image and run setup.sh, which reads the lock."""
    docker, apptainer = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    (image,) = re.findall(r"^FROM (\S+)$", docker, re.MULTILINE)
    assert re.findall(r"^From: (\S+)$", apptainer, re.MULTILINE) == [image]
    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", image)  # what pyproject.toml requires
    for recipe in (docker, apptainer):
        assert re.search(r"TORCH=\S.* sh \./setup\.sh", recipe)
        assert "pip install" not in recipe
    copied = re.findall(r"^    (\S+) /threedrs/$", apptainer, re.MULTILINE)
    assert all((ROOT / name).exists() for name in copied)
    assert {"requirements.lock", "pyproject.toml", "setup.sh", "src"} <= set(copied)
    assert ".venv" in (ROOT / ".dockerignore").read_text().split()


@pytest.mark.skipif(not HADOLINT, reason="hadolint comes with `make docs`")
def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run(
        [HADOLINT, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
