"""``threedrs scene`` and ``threedrs features``: build, look into and check stores."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from threedrs.cli.names import (
    SCENES,
    FeaturesName,
    SceneName,
    check_file,
    check_image,
    completion,
    find_scene,
    find_shards,
)
from threedrs.cli.scans import DepthScale, Intrinsic, Trajectory
from threedrs.cli.shared import AsJson, progress, report, say
from threedrs.errors import counted

ImageFile = Annotated[
    Path | None, typer.Option(help="The image to write (.png or .jpg); default <scene>.png.")
]
scene_app = typer.Typer(help="Build or look into a scene store.", no_args_is_help=True)
features_app = typer.Typer(help="Check, show and export teacher features.", no_args_is_help=True)


@scene_app.command("build")
def build_scene(
    capture: Annotated[
        Path,
        typer.Argument(
            help="A folder of posed RGB-D images, a posed_images folder, or a .sens "
            "(docs/OWN_CAPTURES.md lists the layouts)."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The store to write, NAME.zarr.")],
    up: Annotated[
        str | None,
        typer.Option(help="The capture's axis that is up: x, -x, y, -y, z, -z. Default: found."),
    ] = None,
    depth_scale: DepthScale = None,
    intrinsic: Intrinsic = None,
    trajectory: Trajectory = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Your boxes, JSON as of boxes.ready. Default: rough clusters."),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, max=1024, help="Frames to keep, chosen by coverage.")
    ] = 32,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a scene store of your own capture.

    ask, chat and scene show take it. Each thing that is found out (which way is up, units,
    intrinsic) is a line of output.
    """
    from threedrs.scenes.capture import CaptureOptions, build_capture, check_target

    check_target(out, replace=force)
    options = CaptureOptions(
        up=up,
        depth_scale=depth_scale,
        intrinsic=intrinsic,
        trajectory=trajectory,
        boxes=boxes,
        frames=frames,
    )
    with progress() as show:
        store, facts = build_capture(capture, out, options, show)
    written = {"store": str(out), "frame_ids": store.frame_ids, "notes": facts}
    report(
        {**written, "boxes": store.object_counts()},
        as_json,
        *facts,
        f"{out}: written, {counted(len(store.frame_ids), 'frame')}",
        f"next: {shlex.join(['threedrs', 'scene', 'show', str(out)])}, then "
        f"{shlex.join(['threedrs', 'ask', 'MODEL', str(out), 'A QUESTION'])}",
    )


@scene_app.command("show")
def show_scene(
    scene: SceneName,
    out: ImageFile = None,
    rrd: Annotated[
        Path | None, typer.Option(help="Also a recording for the Rerun viewer (.rrd).")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data root with the scene's mesh, for the coverage; default data, of the demo "
            "results/demo."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an image of a scene: its frames, and its boxes from above.

    With --rrd also points, boxes and cameras in 3D; that needs `pip install -e '.[rerun]'`.
    """
    check_image(out)
    if data is not None:
        check_file(data)
    store = find_scene(scene)

    from threedrs.io.images import save_image
    from threedrs.scannet.layout import DataLayout
    from threedrs.scenes.report import caption, scene_facts
    from threedrs.scenes.store import SceneStore
    from threedrs.visualization.rerun_export import write_recording
    from threedrs.visualization.scene_plot import plot_scene

    opened = SceneStore.open(store)
    scan = DataLayout(root=data or Path("data")).own_scan(opened.scene)
    row = scene_facts(opened, scan, opened.attributes.get("notes", []))
    image = out or Path(f"{opened.scene}.png")
    if rrd is not None:
        write_recording(opened, rrd)
    save_image(plot_scene(opened, caption(row)), image)
    written = [str(path) for path in (image, rrd) if path is not None]
    notes = [f"note: {note}" for note in row["notes"]]
    said = (caption(row), *notes, f"{' and '.join(written)}: written")
    report({**row, "written": written}, as_json, *said)


@features_app.command("verify")
def verify_features(features: FeaturesName, as_json: AsJson = False) -> None:
    """Check a teacher's features; the status is 1 if one is wrong."""
    shards = find_shards(features)

    from threedrs.teachers.feature_shards import verify_store
    from threedrs.teachers.feature_store import FeatureStore

    rows, lines = [], []
    with progress() as show:
        for shard in shards:
            show(f"reading {shard}")
            problems = verify_store(shard)
            scenes = None if problems else len(FeatureStore.open(shard).scenes)
            rows.append({"shard": str(shard), "scenes": scenes, "problems": problems})
            lines += problems or [f"{shard}: ok, {counted(scenes or 0, 'scene')}"]
    report(rows, as_json, *lines)
    if any(row["problems"] for row in rows):
        raise typer.Exit(1)


@features_app.command("export")
def export(
    features: FeaturesName,
    out: Annotated[Path, typer.Option(help="The folder to write <scene>/<teacher>.npz to.")],
) -> None:
    """Write features as files that the published code reads.

    So does the teacher `import`. Features of teachers other than vggt, flare, dinov2 and siglip2
    become <scene>.npz, which the published code reads when it is renamed <scene>/vggt.npz.
    """
    from threedrs.teachers.feature_store import FeatureStore
    from threedrs.teachers.precomputed import export_features, exported_file

    shards = [FeatureStore.open(path) for path in find_shards(features)]
    # Before anything is written, so that a folder does not end with files of two origins.
    files = [
        (shard, scene, exported_file(shard, scene, out))
        for shard in shards
        for scene in shard.scenes
    ]
    with progress() as show:
        for shard, scene, file in files:
            show(f"writing {scene}")
            known = file.exists()  # of an export that was stopped
            if not known:
                export_features(shard, scene, file)
            say(f"{file}: {'is there already' if known else 'written'}")


@features_app.command("show")
def show_features(
    features: FeaturesName,
    scene: Annotated[
        str,
        typer.Argument(
            help="The scene, e.g. scene0000_00.", autocompletion=completion(SCENES.names)
        ),
    ],
    out: ImageFile = None,
    scene_store: Annotated[
        Path | None, typer.Option(help="The scene's store; without it results/scenes/<scene>.zarr.")
    ] = None,
) -> None:
    """Draw frames above the main components of their features."""
    check_image(out)

    from threedrs.errors import StoreError, did_you_mean
    from threedrs.io.images import save_image
    from threedrs.scenes.store import SceneStore
    from threedrs.teachers.feature_store import FeatureStore
    from threedrs.visualization.feature_plot import plot_features

    shards = [FeatureStore.open(path) for path in find_shards(features)]
    shard_of = {name: shard for shard in shards for name in shard.scenes}
    if scene not in shard_of:
        near = did_you_mean(scene, shard_of) or "see `threedrs features verify`"
        raise StoreError(f"{scene}: is not among the {len(shard_of)} scenes of {features}; {near}")
    store = SceneStore.open(find_scene(scene if scene_store is None else str(scene_store)))
    image = out or Path(f"{scene}.png")
    save_image(plot_features(shard_of[scene], store), image)
    say(f"{image}: written")
