"""Published data and weights from the Hugging Face Hub, on request: resumed and checksummed.

Through `huggingface_hub`, with the user's own token from its usual place (HF_TOKEN, or what
`hf auth login` stored); nothing is downloaded unless the config's ``download`` lists it. An
interrupted download goes on where it stopped. A file whose SHA-256 the config gives is compared
with it, also when it is there already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threedrs.errors import ConfigError, DataError
from threedrs.files import sha256_of_file


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
        for name in found.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ConfigError(f"download of {found.repo}: {name} leads out of {found.to}")
        for name in found.sha256:
            if name not in found.files:
                raise ConfigError(f"download of {found.repo}: sha256 names {name}, files does not")
        return found

    def paths(self) -> list[Path]:
        """Return where the files will be."""
        return [Path(self.to) / name for name in self.files]


def downloads(config: Mapping[str, Any]) -> list[Download]:
    """Return the entries of the config's ``download``.

    Raises:
        ConfigError: as `Download.from_config`; or two entries give the same file.
    """
    found = [Download.from_config(entry) for entry in config["download"]]
    paths = [path for download in found for path in download.paths()]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"download: two entries give {path}")
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
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"download of {download.repo}: {name}"
    try:
        hf_hub_download(
            download.repo,
            name,
            repo_type=download.type,
            revision=download.revision,
            local_dir=download.to,
        )
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
    except LocalEntryNotFoundError as error:
        raise DataError(
            f"{what}: the Hub cannot be reached and the file is not here yet; connect this "
            f"machine, or copy the file to {Path(download.to) / name}"
        ) from error
    except EntryNotFoundError as error:
        raise DataError(f"{what}: the repository holds no such file") from error
    except Exception as error:  # network, disk, and what the Hub answers else
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{what}: failed ({reason}); run again, the download goes on where it stopped"
        ) from error
