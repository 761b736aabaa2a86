"""Commands that make scans or look into one: ``demo``, ``import-rgbd``, ``sens``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from threedrs.cli.names import check_file
from threedrs.cli.shared import AsJson, progress, report, say
from threedrs.errors import counted

Intrinsic = Annotated[
    str | None,
    typer.Option(
        help="fx,fy,cx,cy of the colour images in pixels, or a file: 3x3 or 4x4 text, Open3D "
        "camera JSON. Default: the one in the folder."
    ),
]
Trajectory = Annotated[
    Path | None,
    typer.Option(
        help="Poses, camera to world: Open3D .log, TUM groundtruth.txt, or a folder of 4x4 texts. "
        "Default: the one in the folder."
    ),
]
DepthScale = Annotated[
    float | None,
    typer.Option(help="Depth units in a metre, such as 1000; most TUM captures need it."),
]
sens_app = typer.Typer(help="Look into or export a .sens scan.", no_args_is_help=True)


def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write: new, empty, or an older demo.")],
    scenes: Annotated[int, typer.Option(help="Rooms to generate; three of seven are val.")] = 14,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
    layout: Annotated[
        Literal["scans", "published"],
        typer.Option(help="scans: ScanNet's files; published: the data folder of 3DRS."),
    ] = "scans",
) -> None:
    """Write generated rooms and questions in ScanNet's formats."""
    from threedrs.config.yaml_files import config_option
    from threedrs.demo.write import check_folder, demo_scenes, write_demo

    if layout == "published":
        from threedrs.demo.published_layout import write_published_demo

        write, options = write_published_demo, "--configfile config/published.yaml "
        data: dict[str, Any] = {"root": str(out)}
    else:
        check_folder(out, layout)  # as the other layout's writer does by itself
        write, options, data = write_demo, "", {"root": str(out), "demo": None}
    with progress() as show:
        write(out, scenes, seed, say=show)
    splits = demo_scenes(scenes)
    say(
        f"{out}: {len(splits['train'])} train and {len(splits['val'])} val scenes, seed {seed}",
        f"next: snakemake --cores all {options}{config_option('data', data)} -- all",
    )


def import_rgbd(
    folder: Annotated[Path, typer.Argument(help="Colour and depth images, intrinsic, trajectory.")],
    out: Annotated[Path, typer.Argument(help="The .sens file to write.")],
    intrinsic: Intrinsic = None,
    trajectory: Trajectory = None,
    depth_scale: DepthScale = None,
) -> None:
    """Turn a folder of posed RGB-D images into a .sens scan.

    Images and poses pair by the number in their names. Where file names are times in seconds
    (TUM), they pair by nearest time within 0.02 s: a colour image
    without a depth image is excluded, one without a pose is kept and marked as not localised.
    """
    check_file(folder)

    from threedrs.scannet import rgbd_frames
    from threedrs.scannet.sens import SensReader

    with progress() as show:
        count = rgbd_frames.import_rgbd(
            *(folder, out),
            intrinsic=intrinsic,
            trajectory=trajectory,
            depth_scale=depth_scale,
            say=show,
        )
    with SensReader(out) as reader:
        say(f"{out}: {counted(count, 'frame')}, {int(reader.valid.sum())} with a valid pose")


@sens_app.command("info")
def info(
    file: Annotated[Path, typer.Argument(help="A .sens scan.")], as_json: AsJson = False
) -> None:
    """Print cameras, image sizes, frames and poses of a scan."""
    check_file(file)

    from threedrs.scannet.sens import SensReader

    with SensReader(file) as reader:
        header = reader.header
        facts: dict[str, Any] = {
            "file": str(file),
            "bytes": file.stat().st_size,
            "sensor_name": header.sensor_name,
            "frames": len(reader),
            "valid_poses": int(reader.valid.sum()),
            "color_size": [header.color_width, header.color_height],
            "color_compression": header.color_compression,
            "depth_size": [header.depth_width, header.depth_height],
            "depth_compression": header.depth_compression,
            "depth_shift": header.depth_shift,
            "intrinsic_color": header.intrinsic_color.tolist(),
            "intrinsic_depth": header.intrinsic_depth.tolist(),
        }
    lines = []
    for key, value in facts.items():
        if key.startswith("intrinsic"):
            (fx, _, cx, _), (_, fy, cy, _) = value[:2]
            value = f"fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}"
        elif key.endswith("_size"):
            value = f"{value[0]}x{value[1]}"
        lines.append(f"{key.replace('_', ' '):<18} {value}")
    report(facts, as_json, *lines)


@sens_app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="A .sens scan.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, e.g. posed_images/<scene>.")],
    stride: Annotated[int, typer.Option(help="Export every STRIDE-th frame.")] = 1,
) -> None:
    """Export a scan as posed_images: JPEG, depth PNG in mm, 4x4 poses."""
    check_file(file)

    from threedrs.scannet.posed_images import JPEG_QUALITY, export_posed_images

    with progress() as show:
        summary = export_posed_images(file, out, stride=stride, say=show)
    note = f"; colour encoded as JPEG, quality {JPEG_QUALITY}" if summary.reencoded else ""
    say(f"{out}: {counted(summary.frames, 'frame')}, {summary.valid_poses} with a valid pose{note}")
