"""Commands for the published data folder: ``download`` and ``unpack``."""

from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.shared import say

Root = Annotated[Path, typer.Option(help="The data root, `data.root` of the configuration.")]


def download(
    repo: Annotated[
        str,
        typer.Argument(
            help="Data set on the Hub, e.g. OliverHuang1998/3DRS or zd11024/Video-3D-LLM_data."
        ),
    ],
    root: Root = Path("data"),
    only: Annotated[
        str, typer.Option(help="Folders of it, with commas: mask,metadata; default: all.")
    ] = "",
) -> None:
    """Download published data and unpack its archives to where the tree wants them.

    The same command goes on where an earlier one stopped.
    """
    from threedrs.inputs.download import fetch_published

    for line in fetch_published(repo, root, tuple(filter(None, only.split(",")))):
        say(line)


def unpack(
    archives: Annotated[
        list[Path], typer.Argument(help="Archives; of a split one any part, all beside it.")
    ],
    root: Root = Path("data"),
) -> None:
    """Unpack archives of the published data to where the tree wants them."""
    from threedrs.errors import ConfigError
    from threedrs.inputs.archives import Archive, find_archive
    from threedrs.inputs.download import unpacked

    found: dict[str, Archive] = {}
    for archive in map(find_archive, archives):
        # Two parts of one archive are the same archive.
        first = found.setdefault(archive.folder, archive)
        if first != archive:
            raise ConfigError(
                f"{first.files[0]} and {archive.files[0]} both make {archive.folder}; name one of "
                "them"
            )
    for archive in found.values():
        say(unpacked(archive, root))
