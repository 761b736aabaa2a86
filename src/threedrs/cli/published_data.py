"""What comes from the Hub and goes there: ``download``, ``unpack`` and ``publish``."""

from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.names import RUNS, check_file, completion
from threedrs.cli.shared import progress, say
from threedrs.errors import ConfigError

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
    """Download published data and unpack it under the data root.

    The same command goes on where an earlier one stopped.
    """
    from threedrs.inputs.download import fetch_published

    for line in fetch_published(repo, root, tuple(filter(None, only.split(",")))):
        say(line)


def unpack(
    archives: Annotated[
        list[Path], typer.Argument(help="Archives; one part of a split one, beside its others.")
    ],
    root: Root = Path("data"),
) -> None:
    """Unpack archives of the published data under the data root."""
    from threedrs.inputs.archives import Archive, find_archive
    from threedrs.inputs.download import unpacked

    for path in archives:
        check_file(path)
    found: dict[str, Archive] = {}
    for archive in map(find_archive, archives):
        # Several parts of one archive are the same archive.
        first = found.setdefault(archive.folder, archive)
        if first != archive:
            raise ConfigError(
                f"{first.files[0]} and {archive.files[0]} both make {archive.folder}; name one of "
                "them"
            )
    for archive in found.values():
        say(unpacked(archive, root))


def publish(
    run: Annotated[
        str,
        typer.Argument(
            help="A trained and scored run, e.g. 3drs.", autocompletion=completion(RUNS.names)
        ),
    ],
    repo: Annotated[
        str | None, typer.Option(help="Name on the Hub, OWNER/NAME or NAME; default: the run's.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For everybody to see; default: private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write the folder, and upload nothing.")
    ] = False,
    results: Annotated[Path, typer.Option(help="The results folder.")] = Path("results"),
) -> None:
    """Upload a run's model to the Hugging Face Hub.

    It takes your own token (`hf auth login`, or HF_TOKEN). The card holds each score with its
    interval, the training's settings, licences, commit, hashes and counts of the data.
    """
    if run not in RUNS.names(results):
        raise ConfigError(f"{run}: is not a trained run; {RUNS.advice(run, results)}")

    from threedrs.report.publication import check_token, upload, write_publication

    if not dry_run:  # asked first, as all files of the model are read next
        check_token()
    with progress() as show:
        show(f"reading the model of {run}")
        folder = write_publication(run, results)
    say(f"{folder}: written; README.md there is the card")
    if not dry_run:
        say(f"uploaded to {upload(folder, repo or run, public)}")
