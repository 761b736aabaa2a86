"""Archives of the published folder: joined, unpacked to their place, and hostile ones refused."""

import errno
import gzip
import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fixtures.archives import content, split, write_tar, write_zip
from threedrs.errors import DataError, user_message
from threedrs.inputs.archives import JoinedFiles, _Members, archive_folder, find_archive, unpack
from threedrs.io.files import sha256_of_file

FILES = {"scene0000_00/00000.jpg": b"image" * 3000, "scene0000_00/00000.txt": b"1 0 0\n"}


def message_of(path: Path, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        unpack(find_archive(path), root)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.parent) in message
    assert not (root / "scannet/posed_images").exists()
    assert not list(root.rglob(".*"))
    return message


@pytest.mark.parametrize("above", ["", "posed_images/", "./posed_images/", "scannet/posed_images/",
                                   "data/scannet/posed_images/"])  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "parts", "gz parts", "zip parts"])
def test_an_archive_holds_its_folder_or_its_content(tmp_path: Path, above: str, kind: str) -> None:
    files = {above + name: data for name, data in FILES.items()} | {"__MACOSX/._x": b"junk"}
    path = tmp_path / f"posed_images.{kind.split()[0]}"
    if "zip" in kind:
        write_zip(path, files)
    else:
        write_tar(path, files, "w:gz" if "gz" in kind else "w")
    if "parts" in kind:
        path = split(path, 5, "_part_{}")[2]  # any part stands for all
    out = unpack(find_archive(path), tmp_path / "data")
    assert out == tmp_path / "data/scannet/posed_images"
    assert content(out) == FILES
    assert unpack(find_archive(path), tmp_path / "data") is None  # left as it is
    assert [p.name for p in out.parent.iterdir()] == ["posed_images"]


def test_names_say_the_folder() -> None:
    known = {
        "mask.zip": "mask",
        "metadata.tar": "metadata",
        "pcd_with_object_aabbs.tar.gz": "pcd_with_object_aabbs",
        "posed_images.part.aa": "posed_images",
        "posed_images_part_ae": "posed_images",
        "posed_images.tar.gz.part_ab": "posed_images",
        "mask": None,
        "mask.rar": None,
        "other.zip": None,
        "README.md": None,
    }
    assert {name: archive_folder(name) for name in known} == known


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    parts = split(write_tar(tmp_path / "posed_images.tar", FILES), 5)
    parts[1].rename(tmp_path / "aside")
    assert "posed_images.part.ab: this part of the archive is missing" in message_of(
        parts[0], tmp_path / "data"
    )
    (tmp_path / "aside").rename(parts[1])
    parts[-1].unlink()
    assert "the part of it that is missing at the end" in message_of(parts[0], tmp_path / "data")
    for part in parts[1:4]:
        part.unlink()
    assert "is one part of a split archive" in message_of(parts[0], tmp_path / "data")
    (tmp_path / "posed_images.part.aa").rename(tmp_path / "posed_images.part.ac")
    assert "posed_images.part.aa: this part of the archive is missing" in message_of(
        tmp_path / "posed_images.part.ac", tmp_path / "data"
    )


def test_a_tar_cut_between_two_files_is_not_whole(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "posed_images.tar", FILES)
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1]
    path.write_bytes(path.read_bytes()[: second.offset])
    assert "the archive has no end" in message_of(path, tmp_path / "data")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "parts"])
@pytest.mark.parametrize("damage", ["flip", "zeros", "gap", "gap in the last"])
def test_damage_behind_the_first_file_is_seen(tmp_path: Path, kind: str, damage: str) -> None:
    files = {f"scene{number}/x.jpg": os.urandom(3000) for number in range(6)}
    path = write_tar(tmp_path / "posed_images.tar", files)
    with tarfile.open(path) as archive:
        header = archive.getmembers()[3].offset
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[header + 10] ^= 255
    elif damage == "zeros":  # of one header: the end of a tar is two such blocks
        data[header : header + 512] = bytes(512)
    elif damage == "gap":
        del data[header - 700 : header]
    else:
        with tarfile.open(path) as archive:
            last = archive.getmembers()[-1].offset_data
        del data[last + 1000 : last + 1700]
    path.write_bytes(data)
    if kind == "tar.gz":
        path = path.rename(tmp_path / "posed_images.tar.gz")
        path.write_bytes(gzip.compress(data))
    elif kind == "parts":
        path = split(path, 3)[0]
    assert "is damaged after" in message_of(path, tmp_path / "data")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_cannot_be_written_are_the_archives_fault(tmp_path: Path, kind: str) -> None:
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path / f"posed_images.{kind}", {"x" * 256: b"x"})
    assert "File name too long" in message_of(path, tmp_path / "data")
    path = write(tmp_path / f"posed_images.{kind}", {"a": b"x", "a/b": b"x"})
    assert "cannot be unpacked" in message_of(path, tmp_path / "data")
    path = write(tmp_path / f"posed_images.{kind}", {"a": b"x", "./a": b"x"})
    assert "cannot be unpacked" in message_of(path, tmp_path / "data")


def test_a_full_disk_is_not_the_archives_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "posed_images.tar", FILES)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_Members, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        unpack(find_archive(path), tmp_path / "data")
    assert caught.value.filename == str(tmp_path / "data/scannet/posed_images")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damage_is_one_line(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"posed_images.{kind}"
    files = {name: os.urandom(3000) for name in FILES}
    if kind == "zip":
        write_zip(path, files)
    else:
        write_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        if kind == "tar":  # without checksums of content; of a header there is one
            data[10] ^= 255
        else:
            data[1500] ^= 255
    changed = {"cut": data[:2000], "flip": data, "empty": b"", "text": b"hello"}[damage]
    path.write_bytes(changed)
    assert "download" in message_of(path, tmp_path / "data")


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "posed_images/../../evil", "a\\..\\evil"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_name_leads_out(tmp_path: Path, name: str, kind: str) -> None:
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path / f"posed_images.{kind}", FILES | {name: b"x"})
    assert "a name that leads out of the folder" in message_of(path, tmp_path / "data")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "posed_images.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("posed_images/x")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "is a link, a device or a sparse file" in message_of(path, tmp_path / "data")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "posed_images.zip", {"x": b"/etc/passwd"}, mode=0o120777)
    assert "'x' is a link or a device" in message_of(path, tmp_path / "data")


def test_a_file_of_another_size_than_its_header(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "posed_images.zip", {"x": bytes(5000)})
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    data[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    assert "cannot be unpacked" in message_of(path, tmp_path / "data")


def test_more_than_the_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threedrs.inputs import archives

    path = write_tar(tmp_path / "posed_images.tar", FILES)

    class Usage:
        free = 100

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: Usage)
    assert "a larger disk" in message_of(path, tmp_path / "data")


def test_an_unknown_or_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its name says no folder of the published data"):
        find_archive(tmp_path / "other.zip")
    with pytest.raises(DataError, match=r"mask\.zip: is missing"):
        find_archive(tmp_path / "mask.zip")


def test_joined_files_read_as_one(tmp_path: Path) -> None:
    data, paths = os.urandom(1000), []
    for number, (start, stop) in enumerate([(0, 1), (1, 400), (400, 400), (400, 1000)]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data[start:stop])
    with JoinedFiles(paths) as joined, io.BufferedReader(joined, 64) as stream:
        assert stream.read() == data
        for offset in (0, 1, 399, 400, 999, 1000):
            stream.seek(offset)
            assert stream.read(300) == data[offset : offset + 300]
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == data[-10:]


@pytest.mark.parametrize("field", [28, 30, 32])  # lengths of name, extra field and comment
@pytest.mark.parametrize(("count", "entry"), [(4, 1), (50, 9)])
@pytest.mark.parametrize("more", [1, 2, 255])
def test_a_zip_whose_directory_loses_files_is_not_whole(
    tmp_path: Path, field: int, count: int, entry: int, more: int
) -> None:
    """A length that is too large swallows the entries behind it, and zipfile says nothing."""
    files = {f"{number}.jpg": bytes([number]) * 50 for number in range(count)}
    path = write_zip(tmp_path / "posed_images.zip", files)
    data = bytearray(path.read_bytes())
    start = [found.start() for found in re.finditer(b"PK\x01\x02", data)][entry]
    data[start + field + 1] = more  # times 256 bytes
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"posed_images\.zip: .*download it again"):
        unpack(find_archive(path), tmp_path / "data")
    assert content(tmp_path / "data") == {}


def test_a_failing_disk_is_one_line_that_names_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(write_tar(tmp_path / "mask.tar", {"a": bytes(30_000)}), 3)
    archive = find_archive(parts[0])

    class FailingFile(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError(errno.EIO, "Input/output error")

    opened = Path.open

    def fail_third(path: Path, *arguments: Any, **options: Any) -> Any:
        return FailingFile(path) if path == parts[2] else opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail_third)
    with pytest.raises(OSError, match="Input/output error") as caught:
        unpack(archive, tmp_path / "data")
    message = user_message(caught.value)
    assert message is not None
    assert message.startswith(f"{parts[2]}: cannot be read or written (Input/output error)")
    assert "copy the file to another disk, and run the same again" in message
    with pytest.raises(OSError, match="Input/output error") as caught:
        sha256_of_file(parts[2])
    assert (user_message(caught.value) or "").startswith(f"{parts[2]}: cannot be read")
