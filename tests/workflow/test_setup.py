"""Set-up says what to do where it cannot go on; its programs are stand-ins."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.repository import ROOT

PYTHON = """#!/bin/sh
# Makes a virtual environment whose pip wants CUDA and whose uv reaches no index.
test "$1 $2" = "-m venv" || exit 0
mkdir -p .venv/bin
cat >.venv/bin/pip <<'END'
#!/bin/sh
case "$*" in *dry-run*) echo '"name": "nvidia-x"';; esac
END
printf '#!/bin/sh\\necho "error: dns error: failed to lookup address" >&2; exit 2\\n' >.venv/bin/uv
chmod +x .venv/bin/*
"""


# What any Debian with a C++ compiler has (apt needs libidn2, mount needs libudev).
EVERYWHERE = re.compile(r"ld-linux|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|idn2|udev)\.so")


def set_up(folder: Path, torch: str = "cpu") -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True)
    for name in ("setup.sh", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    python = folder.parent / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return subprocess.run(
        ["sh", "./setup.sh"],
        cwd=folder,
        env={**os.environ, "PYTHON": str(python), "TORCH": torch},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["my project", "it's", "R&D", "a(1)", "a$b"])
def test_a_folder_that_scripts_cannot_be_started_in(tmp_path: Path, name: str) -> None:
    done = set_up(tmp_path / name)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"setup: {tmp_path / name}: holds a space or a sign of the shell")
    assert "move the folder" in line
    assert not (tmp_path / name / ".venv").exists()


def test_no_way_to_the_index_of_torch(tmp_path: Path) -> None:
    done = set_up(tmp_path / "project")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("setup: the CPU build of torch==")
    assert "https://download.pytorch.org" in line
    assert ".venv/bin/pip install torch==" in line


def test_torch_for_gpus_where_there_is_none(tmp_path: Path) -> None:
    """As where a container is built."""
    said = set_up(tmp_path / "project", torch="cuda").stdout
    assert "setup: for NVIDIA GPUs, installing torch==" in said


def test_set_up_asks_for_the_libraries_that_open3d_takes_from_the_system() -> None:
    """A machine with a desktop has them all, a container has none."""
    spec = importlib.util.find_spec("open3d")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = [*folder.glob("libOpen3D.so*"), *folder.glob("pybind*.so")]
    listed = subprocess.run(
        ["readelf", "--dynamic", *files], capture_output=True, text=True, check=True
    )
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", listed.stdout))
    taken = {name for name in needed if not EVERYWHERE.match(name)}
    taken -= {file.name for file in folder.rglob("*.so*")}
    asked = re.findall(r"^have_library '(\S+)'", (ROOT / "setup.sh").read_text(), re.MULTILINE)
    assert "libGL.so.1" in taken
    assert not [name for name in taken if not any(re.match(each, name) for each in asked)]
