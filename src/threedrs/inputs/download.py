"""Published data and weights from the Hugging Face Hub, on request: resumed and checksummed.

Through `huggingface_hub`, with the user's own token from its usual place (HF_TOKEN, or what
`hf auth login` stored). Nothing is downloaded that neither the config's ``download`` lists nor the
command ``threedrs download`` is asked for. An interrupted or killed download goes on where it
stopped. A file whose SHA-256 the config gives is compared with it, also when it is there already.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from threedrs.config.section import Section
from threedrs.config.value_types import Text, unique
from threedrs.errors import ConfigError, DataError, choose_one, counted, one_line, raise_all
from threedrs.inputs.archives import (
    PLACES,
    Archive,
    archive_folder,
    archive_stem,
    find_archive,
    unpack,
)
from threedrs.io.files import sha256_of_file

_SHA256 = re.compile("[0-9a-f]{64}")


class Download(Section):
    """Files from the Hugging Face Hub, with your own token (`hf auth login`)."""

    place = "download"
    repo: Annotated[str, Field(pattern="^[^/]+/[^/]+$")]
    """owner/name on the Hub."""
    type: Literal["model", "dataset"] = "model"
    """Kind of the repository."""
    revision: Text = "main"
    """Commit, tag or branch. A commit makes the run reproducible."""
    files: Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(unique)]
    """Files of the repository to take, with their folders."""
    to: Text
    """Folder to put them in."""
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]] = Field(default={})
    """File -> its SHA-256. Files that are not named are checked by size as they arrive, and large
    ones by the checksum that the Hub gives."""

    def paths(self) -> list[Path]:
        """Return where the files will be."""
        return [Path(self.to) / name for name in self.files]

    def problems(self) -> Iterator[str]:
        """Yield a line for each name that leads out of the folder or is not listed."""
        for name in self.files:
            if not is_inside(name):
                yield f"download of {self.repo}: {name} leads out of {self.to}"
        for name in self.sha256:
            if name not in self.files:
                yield f"download of {self.repo}: sha256 names {name}, files does not"


def is_inside(name: str) -> bool:
    """Whether a name of a repository's file stays below the folder that it is put into."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def downloads(config: Mapping[str, Any]) -> list[Download]:
    """Return the entries of the config's ``download``.

    Raises:
        ConfigError: a name leads out of its folder, a checksum is of no listed file, or two entries
            give the same file. It has a line for each problem.
    """
    found = [Download(**entry) for entry in config["download"]]
    problems = [line for entry in found for line in entry.problems()]
    counts = Counter(path for entry in found for path in entry.paths())
    twice = [path for path, count in counts.items() if count > 1]
    problems += [f"download: two entries give {path}" for path in twice]
    raise_all(ConfigError(line) for line in problems)
    return found


def fetch(download: Download, name: str, size: int | None = None) -> str:
    """Download one file unless it is there, of ``size`` bytes if given; return its SHA-256.

    Raises:
        DataError: the Hub cannot be reached, refuses access, lacks the file, or the size or
            checksum differs.
    """
    path = Path(download.to) / name
    if size is not None and path.is_file() and path.stat().st_size != size:
        raise DataError(
            f"{path}: has {path.stat().st_size} bytes, the file of {download.repo} has {size}; "
            "delete it or move it away, and run the same again"
        )
    published = None if path.is_file() else _fetch_file(download, name)
    digest = sha256_of_file(path)
    wanted = download.sha256.get(name)
    if wanted is not None and digest != wanted.lower():
        raise DataError(
            f"{path}: has SHA-256 {digest}, download.sha256 says {wanted}; delete the file and run "
            "again, or correct the config"
        )
    if published is not None and digest != published:
        path.unlink()
        raise DataError(
            f"{path}: arrived with SHA-256 {digest}, the Hub says {published}; run the same again"
        )
    return digest


def _fetch_file(download: Download, name: str) -> str | None:
    """Receive a file, and return the SHA-256 that the Hub gives of it; None: it gives none."""
    import httpx
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"download of {download.repo}: {name}"
    path = Path(download.to) / name
    url = hf_hub_url(download.repo, name, repo_type=download.type, revision=download.revision)
    offline = (
        "the Hub cannot be reached and the file is not here yet; connect this machine, or copy the "
        f"file to {path}"
    )
    answers = {
        GatedRepoError: "access is gated; accept its terms on its page, then `hf auth login`",
        RepositoryNotFoundError: "there is no such repository, or it is private; check the name, "
        "then `hf auth login`",
        RevisionNotFoundError: f"there is no revision {download.revision}",
        EntryNotFoundError: "the repository holds no such file",
        httpx.TransportError: offline,
        OfflineModeIsEnabled: offline,
    }
    try:
        metadata = get_hf_file_metadata(url)
    except Exception as error:
        said = (answer for kind, answer in answers.items() if isinstance(error, kind))
        other = f"failed ({one_line(error)}); run again"
        raise DataError(f"{what}: {next(said, other)}") from error
    try:
        _receive(url, path, metadata.etag or metadata.commit_hash or "", metadata.size)
    except Exception as error:  # network, disk
        raise DataError(
            f"{what}: failed ({one_line(error)}); run again, the download goes on where it stopped"
        ) from error
    # The Hub's tag of a large file is the SHA-256 of its content, of a small one something else.
    tag = metadata.etag or ""
    return tag if _SHA256.fullmatch(tag) else None


def _receive(url: str, path: Path, version: str, size: int | None) -> None:
    """Receive the rest of a file into a part beside ``path``; put it in place when it is whole.

    `hf_hub_download` would do, but starts a killed download over. The part's name holds the
    file's ``version`` on the Hub: a part of another one is of no use and is removed.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(version.encode()).hexdigest()[:16]
    part = path.with_name(f".{path.name}.{digest}.part")
    for other in path.parent.glob(f".{path.name}.*.part"):
        if other != part or (size is not None and other.stat().st_size > size):
            other.unlink()
    with part.open("ab") as stream:
        http_get(
            url,
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=path.name,
        )
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def fetch_published(repo: str, root: Path, only: Collection[str] = ()) -> list[str]:
    """Download the folders of the published data that a data set holds; return a line for each.

    With ``only`` these alone. Folders as they are and archives of them both arrive where the tree
    wants them. Archives are kept in ``root/downloads``, so that an interrupted run goes on. They
    are of no use afterwards.

    Raises:
        ConfigError: ``only`` names no folder of the published data.
        DataError: as `fetch` and `threedrs.inputs.archives.unpack`; or nothing is to be had.
    """
    raise_all(
        ConfigError(
            f"--only {name}: is not a folder of the published data; {choose_one(name, PLACES)}"
        )
        for name in only
        if name not in PLACES
    )
    sizes = _file_sizes(repo)
    loose, archives = _published_files(sizes, only)
    if not loose and not archives:
        wanted = ", ".join(only) or "the published folders"
        raise DataError(f"{repo}: holds none of {wanted}; check the name on the Hub")
    for folder, names in archives.items():
        # Parts differ in their letters alone.
        several = [*{archive_stem(name): name for name in reversed(names)}.values()]
        if len(several) > 1:
            raise DataError(
                f"{repo}: {' and '.join(sorted(several))} make {folder}; download the one that you "
                "want from its page, and run `threedrs unpack FILE`"
            )
    lines = []
    for to, names in loose.items():
        entry = Download(repo=repo, type="dataset", files=tuple(names), to=str(root / to))
        for name in names:
            fetch(entry, name, sizes[name])
        lines.append(f"{root / to}: {counted(len(names), 'file')}")
    for names in archives.values():
        entry = Download(repo=repo, type="dataset", files=tuple(names), to=str(root / "downloads"))
        for name in names:
            fetch(entry, name, sizes[name])
        lines.append(unpacked(find_archive(root / "downloads" / names[0]), root))
    return lines


def unpacked(archive: Archive, root: Path) -> str:
    """Unpack an archive, and return a line that says where to, or that the folder is there."""
    out = unpack(archive, root)
    place = root / PLACES[archive.folder]
    if out is None:
        return f"{place}: is there and left as it is; move it away to unpack it again"
    return f"{place}: unpacked from {archive.files[0].name}"


def _file_sizes(repo: str) -> dict[str, int]:
    """Return the files of a data set on the Hub, and how many bytes each has."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        entries = HfApi().list_repo_tree(repo, repo_type="dataset", recursive=True)
        return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
    except Exception as error:  # no such data set, no access, no network
        raise DataError(
            f"download of {repo}: its files cannot be listed ({one_line(error)}); check the name "
            "and the network, and `hf auth login` where it asks for that"
        ) from error


def _published_files(
    names: Collection[str], only: Collection[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the files of folders by where they go, and those of archives by folder."""
    loose: dict[str, list[str]] = {}
    archives: dict[str, list[str]] = {}
    for name in sorted(filter(is_inside, names)):
        folder = archive_folder(Path(name).name)
        if folder is not None and (not only or folder in only):
            archives.setdefault(folder, []).append(name)
            continue
        # The folders may stand there as in the tree, or without the `scannet/` above them.
        for top, place in PLACES.items():
            to = next((t for t in (place, top) if name.startswith(f"{t}/")), None)
            if to is not None and (not only or top in only):
                above = "." if to == place else str(Path(place).parent)
                loose.setdefault(above, []).append(name)
    return loose, archives
