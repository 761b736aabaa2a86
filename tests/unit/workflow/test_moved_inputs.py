"""Inputs that were moved make nothing stale while names and bytes are the same."""

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threedrs.workflow import moved_inputs
from threedrs.workflow.moved_inputs import compare_by_content, missing_records, unhashed


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


class Records:
    """Snakemake's records of one job with one output, as far as inputs are concerned."""

    def __init__(self, inputs: list[Path]) -> None:
        small = [p for p in inputs if p.is_file() and p.stat().st_size <= moved_inputs.HASHED_BYTES]
        self.record = SimpleNamespace(
            input=sorted(map(str, inputs)),
            input_checksums={str(path): checksum(path) for path in small},
        )
        self.written: list[Any] = []

    def metadata(self, output: str) -> Any:
        return self.record

    def _get_key(self, output: str) -> str:
        return output

    def _write_record(self, key: str, record: Any) -> None:
        self.written.append(key)

    def _input(self, job: Any) -> list[str]:
        return sorted(map(str, job.input))

    def _input_changed(self, job: Any, file: Any = None) -> bool:
        return self.record.input != self._input(job)

    def input_checksums(self, job: Any, path: str) -> set[str | None]:
        return {self.record.input_checksums.get(path)}


compare_by_content(Records)
compare_by_content(Records)  # twice is once


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for scene in ("a", "b"):
        (root / "scans" / scene).mkdir(parents=True)
        (root / "scans" / scene / f"{scene}.txt").write_text(f"axes of {scene}")
        (root / "scans" / scene / "notes.txt").write_text(f"notes on {scene}")
        (root / "posed_images" / scene).mkdir(parents=True)
    return root


def inputs(root: Path) -> list[Path]:
    return [*root.glob("scans/*/*"), *root.glob("posed_images/*")]


def job(*paths: Path, large: bool = True) -> Any:
    """Return a job whose rule has the parameter `large`, or not."""
    rule = SimpleNamespace(params={"large": unhashed} if large else {})
    return SimpleNamespace(output=["out"], input=paths, rule=rule)


def changed(records: Any, *paths: Path, large: bool = True) -> bool:
    return bool(records._input_changed(job(*paths, large=large)))


def test_moved_data_is_followed_once(data: Path, tmp_path: Path) -> None:
    records = Records(inputs(data))
    moved = Path(shutil.move(data, tmp_path / "a disk" / "z"))
    assert not changed(records, *inputs(moved))
    assert not changed(records, *inputs(moved))
    assert records.written == ["out"]
    for path in moved.glob("scans/*/*"):  # newer files are compared by these
        assert records.input_checksums(job(*inputs(moved)), str(path)) == {checksum(path)}


def test_another_spelling_of_the_same_place(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(inputs(data))
    monkeypatch.chdir(data.parent)
    assert not changed(records, *inputs(Path("data")))


@pytest.mark.parametrize("change", ["bytes", "name", "more", "fewer", "swapped"])
def test_other_data_in_another_place_is_a_change(data: Path, tmp_path: Path, change: str) -> None:
    records = Records(inputs(data))
    other = Path(shutil.copytree(data, tmp_path / "other"))
    file = other / "scans/a/a.txt"
    if change == "bytes":
        file.write_text("axes of A")
    elif change == "name":
        file.rename(file.with_name("c.txt"))
    elif change == "more":
        (other / "scans/a/more.txt").write_text("")
    elif change == "fewer":
        file.unlink()
    else:
        (other / "scans/a/notes.txt").write_text("notes on b")
        (other / "scans/b/notes.txt").write_text("notes on a")
    for path in inputs(other):
        os.utime(path, (0, 0))  # it counts even where all is older than the results
    assert changed(records, *inputs(other))
    assert records.written == []


def test_what_has_no_checksum_is_told_apart_by_size_and_date(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_inputs, "HASHED_BYTES", 9)  # as many as the text of a.txt has
    folder, file = data / "posed_images/a", data / "scans/a/a.txt"
    os.utime(folder, (5, 7.5))
    os.utime(file, (5, 8))
    assert unhashed([file, folder, data / "none"]) == [("a", 0, 7)]
    file.write_text("more than nine bytes")
    os.utime(file, (5, 8))
    assert ("a.txt", 20, 8) in unhashed([file, folder])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_has_no_checksum_is_followed_only_where_size_and_date_are_a_parameter(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(moved_inputs, "HASHED_BYTES", 9)
    source = data / ("scans/a/a.txt" if kind == "file" else "posed_images/a")
    if kind == "file":
        source.write_text("more than nine bytes")
    other = tmp_path / "v2" / source.name
    other.parent.mkdir()
    if kind == "file":
        other.write_text("other bytes, older than the result")
    else:
        other.mkdir()
    os.utime(other, (0, 0))
    assert changed(Records([source]), other, large=False)
    assert not changed(Records([source]), other)  # where it is, the parameter tells them apart


def test_the_rules_that_follow_by_name_have_all_of_these_files_in_their_parameter() -> None:
    text = (Path(__file__).parents[3] / "workflow/rules/scenes.smk").read_text()
    rule = text.partition("rule build_scenes:")[2].partition("\nrule ")[0]
    large = rule.partition("large=")[2].partition("frames=CONFIG")[0]
    for read in ('"frames")', "coverage_files(wildcards.shard)", "selected_frames()"):
        assert read in large


def test_other_data_is_read_once_for_all_questions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake asks for each input, and one that differs has none of them read again."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    last = other / "scans/b/notes.txt"
    last.write_text("other notes on b")
    records, read = Records(inputs(data)), []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
    for _ in range(2):
        for path in inputs(other):
            records.input_checksums(job(*inputs(other)), str(path))
        assert changed(records, *inputs(other))
    assert 1 <= len(read) <= 4  # there are four files
    assert records.written == []


def test_records_of_a_job_without_inputs_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Snakemake asks for each output. 520 generated rooms are 3,120 outputs of one job, so reading
    # all of their records each time came to ten million reads, and the DAG took minutes.
    records, read = Records([]), []
    monkeypatch.setattr(records, "metadata", read.append)
    assert not changed(records)
    assert read == []


def test_results_that_came_without_their_records(tmp_path: Path) -> None:
    results, records = tmp_path / "results", tmp_path / ".snakemake/metadata"
    assert missing_records(results, records) is None  # nothing was made yet
    results.mkdir()
    (results / "code.json").write_text("{}")
    line = missing_records(results, records)
    assert line
    assert "cp -a" in line
    records.mkdir(parents=True)
    assert missing_records(results, records)
    running = records.parent / "incomplete/x"
    running.parent.mkdir()
    running.touch()
    assert missing_records(results, records) is None  # the first jobs run
    running.unlink()
    (records / "x").touch()
    assert missing_records(results, records) is None
