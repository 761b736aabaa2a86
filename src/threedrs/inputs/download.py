"""Published data and weights from the Hugging Face Hub, on request: resumed and checksummed.

Through `huggingface_hub`, with the user's own token from its usual place (HF_TOKEN, or what
`hf auth login` stored); nothing is downloaded unless the config's ``download`` lists it. An
interrupted or killed download goes on where it stopped. A file whose SHA-256 the config gives is
compared with it, also when it is there already.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError, DataError, one_line, raise_all
from threedrs.io.files import sha256_of_file


@dataclass(frozen=True, kw_only=True)
class Download:
    """One entry of the config's ``download``.

    Attributes:
        repo: owner/name on the Hub.
        files: files of the repository to take, with their folders.
        to: folder to put them in, folders kept.
        type: model or dataset.
        revision: commit, tag or branch; a commit makes the run reproducible.
        sha256: file -> its SHA-256 in hexadecimal; files not named are checked by size only.
    """

    repo: str
    files: tuple[str, ...]
    to: str
    type: str = "model"
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any]) -> "Download":
        """Return one entry of the config, validated by its schema.

        Raises:
            ConfigError: a name leads out of the folder, or a checksum is of no listed file.
        """
        found = cls(**{**entry, "files": tuple(entry["files"])})
        raise_all(found._problems())
        return found

    def _problems(self) -> Iterator[ConfigError]:
        for name in self.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                yield ConfigError(f"download of {self.repo}: {name} leads out of {self.to}")
        for name in self.sha256:
            if name not in self.files:
                yield ConfigError(f"download of {self.repo}: sha256 names {name}, files does not")

    def paths(self) -> list[Path]:
        """Return where the files will be."""
        return [Path(self.to) / name for name in self.files]


def downloads(config: Mapping[str, Any]) -> list[Download]:
    """Return the entries of the config's ``download``.

    Raises:
        ConfigError: as `Download.from_config`; or two entries give the same file. It has a line
            for each problem.
    """
    found: list[Download] = []
    problems: list[ConfigError] = []
    for entry in config["download"]:
        try:
            found.append(Download.from_config(entry))
        except ConfigError as error:
            problems.append(error)
    counts = Counter(path for download in found for path in download.paths())
    twice = [path for path, count in counts.items() if count > 1]
    problems += [ConfigError(f"download: two entries give {path}") for path in twice]
    raise_all(problems)
    return found


def fetch(download: Download, name: str) -> str:
    """Download one file unless it is there, check it, and return its SHA-256.

    Raises:
        DataError: the Hub cannot be reached, refuses access, lacks the file, or the checksum
            differs.
    """
    path = Path(download.to) / name
    if not path.is_file():
        _fetch_file(download, name)
    digest = sha256_of_file(path)
    wanted = download.sha256.get(name)
    if wanted is not None and digest != wanted.lower():
        raise DataError(
            f"{path}: has SHA-256 {digest}, download.sha256 says {wanted}; delete the file and run "
            "again, or correct the config"
        )
    return digest


def _fetch_file(download: Download, name: str) -> None:
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
    try:
        metadata = get_hf_file_metadata(url)
    except GatedRepoError as error:
        raise DataError(
            f"{what}: access is gated; accept its terms on its page, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{what}: there is no such repository, or it is private; check the name, then "
            "`hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{what}: there is no revision {download.revision}") from error
    except EntryNotFoundError as error:
        raise DataError(f"{what}: the repository holds no such file") from error
    except (httpx.TransportError, OfflineModeIsEnabled) as error:
        raise DataError(
            f"{what}: the Hub cannot be reached and the file is not here yet; connect this "
            f"machine, or copy the file to {path}"
        ) from error
    except Exception as error:  # what the Hub answers else
        raise DataError(f"{what}: failed ({one_line(error)}); run again") from error
    try:
        _receive(url, path, metadata.etag or metadata.commit_hash or "", metadata.size)
    except Exception as error:  # network, disk
        raise DataError(
            f"{what}: failed ({one_line(error)}); run again, the download goes on where it stopped"
        ) from error


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
