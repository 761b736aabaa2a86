"""``threedrs scene``: a look into a scene store."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into a scene store.", no_args_is_help=True)


@app.callback()
def scene() -> None:
    """Look into a scene store."""


@app.command()
def show(
    store: Annotated[Path, typer.Argument(help="A scene store, results/scenes/<scene>.zarr.")],
    out: Annotated[
        Path | None, typer.Option(help="The picture to write (.png or .jpg); default <scene>.png.")
    ] = None,
    rrd: Annotated[
        Path | None, typer.Option(help="Also a recording for the Rerun viewer (.rrd).")
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            help="Data root with the scene's mesh, for the coverage; of the demo results/demo."
        ),
    ] = Path("data"),
) -> None:
    r"""Write a picture of a scene: its frames, and from above with ground-truth and detector boxes.

    With --rrd also points, boxes and cameras in 3D; that needs `pip install -e '.\[rerun]'`.
    """
    from threedrs.scannet.layout import DataLayout
    from threedrs.scenes.facts import caption, scene_facts
    from threedrs.scenes.store import SceneStore
    from threedrs.visualization.rerun_export import write_recording
    from threedrs.visualization.scene_plot import scene_picture

    opened = SceneStore.open(store)
    scan = DataLayout(root=data).scan(opened.scene)
    row = scene_facts(opened, scan, opened.attributes.get("notes", []))
    picture = out or Path(f"{opened.scene}.png")
    if rrd is not None:
        write_recording(opened, rrd)
    scene_picture(opened, caption(row), picture)
    typer.echo(caption(row))
    for note in row["notes"]:
        typer.echo(f"note: {note}")
    written = [picture] if rrd is None else [picture, rrd]
    typer.echo(f"{' and '.join(map(str, written))}: written")
