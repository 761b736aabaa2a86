"""envs/*.yaml, pyproject.toml and the lock name the same packages and versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from fixtures.repository import ROOT


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


LOCK = {
    plain(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
}


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda p: p.name)
def test_pins_are_the_locks(path: Path) -> None:
    pins = next(
        entry["pip"]
        for entry in yaml.safe_load(path.read_text())["dependencies"]
        if isinstance(entry, dict)
    )
    assert pins
    for pin in pins:
        name, version = pin.split("==")
        assert LOCK[plain(name)] == version


def test_the_lock_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    missing = {plain(re.match(r"[\w.-]+", line)[0]) for line in wanted} - set(LOCK)
    assert not missing
