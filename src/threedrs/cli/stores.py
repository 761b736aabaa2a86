"""``threedrs scene`` and ``threedrs features``: look into a store, check a store."""

from pathlib import Path
from typing import Annotated

import typer

scene_app = typer.Typer(help="Look into a scene store.", no_args_is_help=True)
features_app = typer.Typer(help="Check, show and export teacher features.", no_args_is_help=True)


@scene_app.callback()
def scene() -> None:
    """Look into a scene store."""


@scene_app.command("show")
def show_scene(
    store: Annotated[Path, typer.Argument(help="A scene store, results/scenes/<scene>.zarr.")],
    out: Annotated[
        Path | None, typer.Option(help="The image to write (.png or .jpg); default <scene>.png.")
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
    r"""Write an image of a scene: its frames, and from above with ground-truth and detector boxes.

    With --rrd also points, boxes and cameras in 3D; that needs `pip install -e '.\[rerun]'`.
    """
    from threedrs.io.images import save_image
    from threedrs.scannet.layout import DataLayout
    from threedrs.scenes.report import caption, scene_facts
    from threedrs.scenes.store import SceneStore
    from threedrs.visualization.rerun_export import write_recording
    from threedrs.visualization.scene_plot import plot_scene

    opened = SceneStore.open(store)
    scan = DataLayout(root=data).scan(opened.scene)
    row = scene_facts(opened, scan, opened.attributes.get("notes", []))
    image = out or Path(f"{opened.scene}.png")
    if rrd is not None:
        write_recording(opened, rrd)
    save_image(plot_scene(opened, caption(row)), image)
    typer.echo(caption(row))
    for note in row["notes"]:
        typer.echo(f"note: {note}")
    written = [image] if rrd is None else [image, rrd]
    typer.echo(f"{' and '.join(map(str, written))}: written")


Store = Annotated[
    Path, typer.Argument(help="A shard of features, results/features/<teacher>/<shard>.zarr.")
]


@features_app.command("verify")
def verify_features(store: Store) -> None:
    """Recompute all checksums of a feature store, and exit with status 1 if one is wrong."""
    from threedrs.teachers.feature_shards import verify_store
    from threedrs.teachers.feature_store import FeatureStore

    problems = verify_store(store)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{store}: ok, {len(FeatureStore.open(store).scenes)} scenes")


@features_app.command("export")
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="The folder to write <scene>/<name>.npz to.")],
    scene: Annotated[str | None, typer.Option(help="One scene; without it all.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="vggt, flare, dinov2 or siglip2; without it the teacher's, or else vggt, which "
            "the published code reads."
        ),
    ] = None,
) -> None:
    """Write features as the field's files, which the published code and `import` read."""
    from threedrs.errors import ConfigError, choose_one
    from threedrs.teachers.feature_store import FeatureStore
    from threedrs.teachers.precomputed import export_features
    from threedrs.teachers.teacher import FEATURE_FILES

    opened = FeatureStore.open(store)
    teacher = str(opened.manifest.get("teacher")).removesuffix("-tiny")
    name = name or (teacher if teacher in FEATURE_FILES else FEATURE_FILES[0])
    if name not in FEATURE_FILES:
        raise ConfigError(f"--name {name}: {choose_one(name, FEATURE_FILES)}")
    for each in opened.scenes if scene is None else [scene]:
        typer.echo(f"{export_features(opened, each, out, name)}: written")


@features_app.command("show")
def show_features(
    store: Store,
    scene: Annotated[str, typer.Argument(help="The scene, e.g. scene0000_00.")],
    out: Annotated[Path | None, typer.Option(help="The PNG to write; default <scene>.png.")] = None,
    scene_store: Annotated[
        Path | None, typer.Option(help="The scene's store; without it results/scenes/<scene>.zarr.")
    ] = None,
) -> None:
    """Write an image: frames above their features' first three principal components."""
    from threedrs.io.files import check_scene_name
    from threedrs.io.images import save_image
    from threedrs.scenes.store import SceneStore
    from threedrs.teachers.feature_store import FeatureStore
    from threedrs.visualization.feature_plot import plot_features

    check_scene_name(scene, "SCENE")
    path = scene_store or Path("results/scenes") / f"{scene}.zarr"
    image = out or Path(f"{scene}.png")
    save_image(plot_features(FeatureStore.open(store), SceneStore.open(path)), image)
    typer.echo(f"{image}: written")
