"""A published data set of the Hub: its folders and archives arrive where they belong."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.hf_api import RepoFile
from typer.testing import CliRunner

from fixtures.archives import content, split, write_tar, write_zip
from threedrs.cli import app
from threedrs.errors import ConfigError, DataError
from threedrs.inputs import download

MASK = "scene0000_00.mask.npz"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the data set's files."""
    repo = tmp_path / "hub"
    repo.mkdir()

    def listed(api: object, name: str, repo_type: str, recursive: bool) -> Iterator[RepoFile]:
        assert (name, repo_type, recursive) == ("lab/data", "dataset", True)
        for path in repo.rglob("*"):
            if path.is_file():
                name = path.relative_to(repo).as_posix()
                yield RepoFile(path=name, size=path.stat().st_size, oid="")

    def fetch(entry: download.Download, name: str, size: int) -> str:
        assert size == (repo / name).stat().st_size
        target = Path(entry.to) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo / name, target)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_tree", listed)
    monkeypatch.setattr(download, "fetch", fetch)
    return repo


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_folders_without_what_stands_above_them(repo: Path, tmp_path: Path) -> None:
    for name in (f"mask/{MASK}", "scannet/posed_images/scene0000_00/00000.jpg", "README.md"):
        write(repo / name, name.encode())
    write(repo / "metadata/scannet_train_gt_box.json", b"{}")
    split(write_tar(repo / "processed.tar", {"processed/a.json": b"[]" * 2000}), 3)
    root = tmp_path / "data"
    said = CliRunner().invoke(app, ["download", "lab/data", "--root", str(root)])
    assert said.exit_code == 0, said.output
    assert f"{root}/processed: unpacked from processed.part.aa" in said.output.replace("\n", "")
    found = content(root)
    kept = [name for name in found if not name.startswith("downloads/")]
    assert sorted(kept) == [
        "metadata/scannet_train_gt_box.json",
        "processed/a.json",
        f"scannet/mask/{MASK}",
        "scannet/posed_images/scene0000_00/00000.jpg",
    ]
    assert found["processed/a.json"] == b"[]" * 2000


def test_only_what_is_asked_for(repo: Path, tmp_path: Path) -> None:
    write_zip(repo / "mask.zip", {f"mask/{MASK}": b"x"})
    write_zip(repo / "metadata.zip", {"a.json": b"{}"})
    root = tmp_path / "data"
    lines = download.fetch_published("lab/data", root, ["mask"])
    assert lines == [f"{root}/scannet/mask: unpacked from mask.zip"]
    (again,) = download.fetch_published("lab/data", root, ["mask"])
    assert again.endswith(
        "scannet/mask: is there and left as it is; move it away to unpack it again"
    )
    with pytest.raises(
        ConfigError, match=r"--only metdata: is not a folder.*did you mean metadata"
    ):
        download.fetch_published("lab/data", root, ["mask", "metdata"])
    with pytest.raises(DataError, match="lab/data: holds none of posed_images"):
        download.fetch_published("lab/data", root, ["posed_images"])


def test_archives_that_are_here_already(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "mask.zip", {MASK: b"x"})
    said = CliRunner().invoke(app, ["unpack", str(path), "--root", str(tmp_path / "data")])
    assert said.exit_code == 0
    assert content(tmp_path / "data") == {f"scannet/mask/{MASK}": b"x"}


def test_a_file_that_is_there_has_the_size_of_the_hubs(tmp_path: Path) -> None:
    """One that the user has copied may be cut; ours are put in place when they are whole."""
    entry = download.Download(repo="lab/data", files=("mask.zip",), to=str(tmp_path))
    (tmp_path / "mask.zip").write_bytes(b"four")
    assert download.fetch(entry, "mask.zip", 4) == hashlib.sha256(b"four").hexdigest()
    with pytest.raises(DataError, match=r"has 4 bytes, the file of lab/data has 5; delete"):
        download.fetch(entry, "mask.zip", 5)


def test_two_archives_of_one_folder_are_refused(tmp_path: Path) -> None:
    one, other = (write_zip(tmp_path / f"mask.{kind}", {MASK: b"x"}) for kind in ("zip", "tar"))
    root = ["--root", str(tmp_path / "data")]
    with pytest.raises(ConfigError, match=r"mask\.zip and .*mask\.tar both make mask; name one of"):
        CliRunner().invoke(app, ["unpack", str(one), str(other), *root], catch_exceptions=False)
    assert not (tmp_path / "data").exists()
    parts = split(other, 2)
    said = CliRunner().invoke(app, ["unpack", *map(str, parts), *root])
    assert said.exit_code == 0, said.output


def test_a_file_that_arrives_with_other_bytes_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.bin"

    def receive(entry: download.Download, name: str) -> str:
        file.write_bytes(b"cut of")
        return hashlib.sha256(b"cut off").hexdigest()

    monkeypatch.setattr(download, "_fetch_file", receive)
    entry = download.Download(repo="lab/data", files=("a.bin",), to=str(tmp_path))
    with pytest.raises(DataError, match=r"a\.bin: arrived with SHA-256 \w+, the Hub says \w+; run"):
        download.fetch(entry, "a.bin")
    assert not file.exists()


def test_two_archives_of_one_folder_on_the_hub_are_not_chosen_between(
    repo: Path, tmp_path: Path
) -> None:
    write_zip(repo / "mask.zip", {MASK: b"x"})
    split(write_tar(repo / "mask.tar", {MASK: b"x" * 3000}), 2)
    write_zip(repo / "metadata.zip", {"a.json": b"{}"})
    root = tmp_path / "data"
    with pytest.raises(
        DataError, match=r"^lab/data: mask\.part\.aa and mask\.zip make mask; downl"
    ):
        download.fetch_published("lab/data", root)
    assert not root.exists()
    (line,) = download.fetch_published("lab/data", root, ["metadata"])
    assert "unpacked from metadata.zip" in line
