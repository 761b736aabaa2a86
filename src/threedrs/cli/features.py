"""``threedrs features``: check a feature store, look at a scene's features."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check and show teacher features.", no_args_is_help=True)

Store = Annotated[
    Path, typer.Argument(help="A shard of features, results/features/<teacher>/<shard>.zarr.")
]


@app.command()
def verify(store: Store) -> None:
    """Recompute all checksums of a feature store; exit status 1 and a line for each problem."""
    from threedrs.teachers.store import FeatureStore, verify_store

    problems = verify_store(store)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{store}: ok, {len(FeatureStore.open(store).scenes)} scenes")


@app.command()
def show(
    store: Store,
    scene: Annotated[str, typer.Argument(help="The scene, e.g. scene0000_00.")],
    out: Annotated[Path | None, typer.Option(help="The PNG to write; default <scene>.png.")] = None,
    scene_store: Annotated[
        Path | None,
        typer.Option(help="The scene's store; without it results/scenes/<scene>.zarr."),
    ] = None,
) -> None:
    """Write a picture: frames above their features' first three principal components."""
    from threedrs.io.files import check_scene_name
    from threedrs.scenes.store import SceneStore
    from threedrs.teachers.store import FeatureStore
    from threedrs.visualization.feature_plot import features_picture

    check_scene_name(scene, "SCENE")
    path = scene_store or Path("results/scenes") / f"{scene}.zarr"
    picture = out or Path(f"{scene}.png")
    features_picture(FeatureStore.open(store), SceneStore.open(path), picture)
    typer.echo(f"{picture}: written")
