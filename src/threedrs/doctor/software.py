"""Is this the Python and are these the packages that pyproject.toml asks for?"""

import importlib.metadata
import platform
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from threedrs.doctor.finding import Finding, Setting


def check_python(setting: Setting) -> Iterator[Finding]:
    """Compare Python's version with ``requires-python``."""
    wanted = _project(setting.root).get("requires-python", "")
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Finding(check="python", status="ok", message=version)
        return
    yield Finding(
        check="python",
        status="error",
        message=f"{version}, pyproject.toml asks for {wanted}",
        remedy="install such a Python and run `make setup`",
    )


def check_packages(setting: Setting) -> Iterator[Finding]:
    """Compare the installed packages with pyproject.toml's ranges and with the lock."""
    project = _project(setting.root)
    if not project:
        yield Finding(
            check="packages",
            status="warning",
            message=f"{setting.root / 'pyproject.toml'} is missing",
            remedy="run threedrs doctor from the repository's folder",
        )
        return
    outside, others = [], []
    for text in project["dependencies"]:
        wanted = Requirement(text)
        found = _installed(wanted.name)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            outside.append(
                f"{wanted.name} {found or 'missing'} (needs {wanted.specifier or 'any'})"
            )
    lock = setting.root / "requirements.lock"
    if lock.is_file():
        for name, version in re.findall(r"^([\w.-]+)==(\S+)$", lock.read_text(), re.MULTILINE):
            found = _installed(name)
            if found != version and not any(line.startswith(f"{name} ") for line in outside):
                others.append(f"{name} {found or 'missing'} (locked: {version})")
    if outside:
        yield Finding(
            check="packages",
            status="error",
            message="; ".join(outside),
            remedy="run `make setup`",
        )
    if others:
        yield Finding(
            check="packages",
            status="warning",
            message=f"not as tested: {'; '.join(others)}",
            remedy="run `make setup` for the versions of requirements.lock",
        )
    if not outside and not others:
        yield Finding(check="packages", status="ok", message="as in requirements.lock")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _project(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    if not file.is_file():
        return {}
    with file.open("rb") as stream:
        return tomllib.load(stream)["project"]
