"""Downloads as part of a real run, against a server on this machine that speaks the Hub's calls."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.checkout import SMALL, Checkout
from fixtures.fake_hub import CONTENT, DIGEST, FILE, Hub, fake_hub

WRONG = "0" * 64
TOKEN = "hf_made_for_a_test"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server; this machine's own token and cache are out of reach."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with fake_hub() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.address)
        yield state


def write_config(checkout: Checkout, *entries: str) -> Path:
    """The small demo with these entries under ``download``."""
    path = checkout.folder / "downloads.yaml"
    rows = "".join(f"  - {entry}\n" for entry in entries)
    path.write_text(f"{SMALL.read_text()}\ndownload:\n{rows}")
    return path


def entry(repo: str, to: str, digest: str | None = None) -> str:
    checked = f", sha256: {{{FILE}: '{digest}'}}" if digest else ""
    return f"{{repo: {repo}, files: [{FILE}], to: {to}{checked}}}"


def log_lines(checkout: Checkout, number: int) -> list[str]:
    return (checkout.folder / f"results/logs/download/{number}.log").read_text().splitlines()


def test_a_file_arrives_and_refusals_are_one_line_each(
    checkout: Checkout, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["data/good", "data/wrong", "data/locked"]
    config = write_config(
        checkout,
        entry("lab/data", places[0], DIGEST),
        entry("lab/data", places[1], WRONG),
        entry("lab/locked", places[2], DIGEST),
    )
    targets = [f"{place}/{FILE}" for place in places]
    said = checkout.snakemake("--cores", "2", *targets, config=config)
    assert said.returncode != 0
    assert (checkout.folder / targets[0]).read_bytes() == CONTENT
    assert not (checkout.folder / targets[1]).exists()
    assert not (checkout.folder / targets[2]).exists()
    assert f"{FILE}: SHA-256 {DIGEST}" in " ".join(log_lines(checkout, 0))
    (wrong,) = log_lines(checkout, 1)
    assert f"{targets[1]}: has SHA-256 {DIGEST}, download.sha256 says {WRONG}; delete the" in wrong
    (locked,) = log_lines(checkout, 2)
    assert "download of lab/locked: features/a.bin: there is no such repository" in locked
    assert "or it is private; check the name, then `hf auth login`" in locked
    assert "Traceback" not in said.stdout

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.asked.clear()
    said = checkout.snakemake("--cores", "1", targets[0], targets[2], config=config)
    assert said.returncode == 0, said.stdout[-3000:]
    assert (checkout.folder / targets[2]).read_bytes() == CONTENT
    assert all("/lab/locked/" in path for _, path, _ in hub.asked)
    assert {headers["authorization"] for _, _, headers in hub.asked} == {f"Bearer {TOKEN}"}


def test_an_interrupted_run_goes_on_where_the_download_stopped(
    checkout: Checkout, hub: Hub
) -> None:
    config = write_config(checkout, entry("lab/data", "data/models", DIGEST))
    target, hub.stall = f"data/models/{FILE}", True
    command = [sys.executable, "-m", "snakemake", "--cores", "1", target]
    running = subprocess.Popen(
        [*command, "--configfile", str(config)],
        cwd=checkout.folder,
        env=os.environ | {"PYTHONPATH": str(checkout.folder / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # As a terminal starts it: pytest itself may run where interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 300
        while not any(
            part.stat().st_size >= 10_000_000 for part in (checkout.folder / "data").rglob("*.part")
        ):
            assert time.monotonic() < deadline, "no part of the file arrived"
            assert running.poll() is None, "the run ended by itself"
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)  # as Ctrl-C does
        assert running.wait(300) != 0
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert not (checkout.folder / target).exists()
    hub.stall = False
    hub.released.set()
    hub.asked.clear()
    said = checkout.snakemake("--cores", "1", target, config=config)
    assert said.returncode == 0, said.stdout[-3000:]
    assert (checkout.folder / target).read_bytes() == CONTENT
    (start,) = hub.starts()
    assert 10_000_000 <= start <= len(CONTENT) // 2


def test_offline_with_the_file_there_already(
    checkout: Checkout, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    config = write_config(checkout, entry("lab/data", "data/models", DIGEST))
    file = checkout.folder / "data" / "models" / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    said = checkout.snakemake("--cores", "1", f"data/models/{FILE}", config=config)
    assert said.returncode == 0, said.stdout[-3000:]
    assert file.read_bytes() == CONTENT
    assert hub.asked == []
