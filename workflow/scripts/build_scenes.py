"""Rule build_scenes: the scene stores of a shard."""

from pathlib import Path

from threedrs.scannet.boxes import read_boxes_file
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.scannet.layout import DataLayout
from threedrs.scenes.build import SceneSettings, build_shard
from threedrs.scenes.published_lists import read_published_lists
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"build_scenes {snakemake.wildcards.shard}"):
    layout = DataLayout(**snakemake.params.data, root=snakemake.params.root)
    settings = SceneSettings.from_config(
        {
            "frames": snakemake.params.frames,
            "geometry": {"invalid_depth": snakemake.params.invalid_depth},
        }
    )
    selected, voxels = snakemake.input.selected, snakemake.input.voxels
    lists = read_published_lists(
        snakemake.params.scenes,
        infos=[Path(path) for path in snakemake.input.infos],
        selected=Path(selected[0]) if selected else None,
        voxels=Path(voxels[0]) if voxels else None,
    )
    build_shard(
        [layout.scan(scene) for scene in snakemake.params.scenes],
        read_boxes_file(Path(snakemake.input.boxes)),
        settings,
        out_folder=Path("results/scenes"),
        manifest=Path(snakemake.output[0]),
        split=snakemake.wildcards.shard.split("-")[0],
        lists=lists,
        excluded=read_excluded(Path(snakemake.input.boxes)),
    )
