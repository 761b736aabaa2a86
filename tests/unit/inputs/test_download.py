"""Downloads against a server on this machine that speaks the Hub's calls."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.fake_hub import CONTENT, DIGEST, Hub, fake_hub
from threedrs.errors import ConfigError
from threedrs.inputs.download import downloads

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from threedrs.inputs.download import Download, fetch
from threedrs.errors import ThreedrsError
entry = {"repo": sys.argv[1], "files": [sys.argv[2]], "to": sys.argv[3], "type": sys.argv[4]}
if len(sys.argv) > 5:
    entry["sha256"] = {sys.argv[2]: sys.argv[5]}
try:
    print(fetch(Download(**entry), sys.argv[2]))
except ThreedrsError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with fake_hub() as state:
        yield state


def run(hub: Hub, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Fetch ``features/a.bin`` in a process of its own; return its status and what it said."""
    repo, file, kind, *rest = arguments
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repo, file, str(folder / "to"), kind, *rest],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(folder / "home"),
            "HF_TOKEN": "hf_made_for_a_test",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "no_proxy": "127.0.0.1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_a_file_arrives_with_the_users_token_and_is_not_fetched_twice(
    hub: Hub, tmp_path: Path
) -> None:
    assert run(hub, tmp_path, "lab/data", "features/a.bin", "dataset", DIGEST) == (0, DIGEST)
    assert (tmp_path / "to" / "features" / "a.bin").read_bytes() == CONTENT
    method, path, headers = hub.asked[0]
    assert (method, path) == ("HEAD", "/datasets/lab/data/resolve/main/features/a.bin")
    assert headers["authorization"] == "Bearer hf_made_for_a_test"
    count = len(hub.asked)
    assert run(hub, tmp_path, "lab/data", "features/a.bin", "dataset", DIGEST) == (0, DIGEST)
    assert len(hub.asked) == count


def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.break_off = True
    status, said = run(hub, tmp_path, "lab/data", "features/a.bin", "model", DIGEST)
    assert status == 0, said
    assert DIGEST in said.splitlines()
    (start,) = hub.starts()
    assert 0 < start <= len(CONTENT) // 2


def test_a_wrong_checksum_stops(hub: Hub, tmp_path: Path) -> None:
    status, said = run(hub, tmp_path, "lab/data", "features/a.bin", "model", "0" * 64)
    assert status == 1
    assert f"has SHA-256 {DIGEST}, download.sha256 says {'0' * 64}; delete the file" in said


@pytest.mark.parametrize(
    ("repo", "file", "message"),
    [
        ("lab/gated", "features/a.bin", "access is gated; accept its terms"),
        ("lab/private", "features/a.bin", "there is no such repository, or it is private"),
        ("lab/data", "features/b.bin", "the repository holds no such file"),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, tmp_path: Path, repo: str, file: str, message: str
) -> None:
    status, said = run(hub, tmp_path, repo, file, "model")
    assert status == 1
    assert said.startswith(f"error: download of {repo}: {file}: {message}")
    assert "Traceback" not in said


@pytest.mark.parametrize("offline", ["nobody listens", "HF_HUB_OFFLINE"])
def test_offline(hub: Hub, tmp_path: Path, offline: str) -> None:
    changes = {"HF_HUB_OFFLINE": "1"}
    if offline == "nobody listens":
        changes = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    status, said = run(hub, tmp_path, "lab/data", "features/a.bin", "model", **changes)
    assert status == 1
    assert "the Hub cannot be reached and the file is not here yet; connect this machine" in said
    (tmp_path / "to" / "features").mkdir(parents=True, exist_ok=True)
    (tmp_path / "to" / "features" / "a.bin").write_bytes(CONTENT)
    answer = run(hub, tmp_path, "lab/data", "features/a.bin", "model", DIGEST, **changes)
    assert answer == (0, DIGEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["../a.bin"]}, "../a.bin leads out of data"),
        ({"files": ["/etc/a.bin"]}, "/etc/a.bin leads out of data"),
        ({"sha256": {"b.bin": "0" * 64}}, "sha256 names b.bin, files does not"),
    ],
)
def test_bad_entries(change: dict[str, Any], message: str) -> None:
    entry = {"repo": "lab/data", "files": ["a.bin"], "to": "data", **change}
    with pytest.raises(ConfigError) as error:
        downloads({"download": [entry]})
    assert message in str(error.value)


def test_two_entries_of_one_file_are_refused() -> None:
    entry = {"repo": "lab/data", "files": ["a.bin"], "to": "data"}
    with pytest.raises(ConfigError, match=r"two entries give data/a\.bin"):
        downloads({"download": [entry, {**entry, "repo": "lab/other"}]})
