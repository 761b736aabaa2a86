"""Rule restore_store: the store of one scene, whose shard is built."""

from pathlib import Path

from threedrs.config.load import data_layout
from threedrs.scannet.boxes import read_boxes_file
from threedrs.scannet.embodiedscan import read_candidates_file
from threedrs.scenes.build import SceneSettings, restore_store
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"restore_store {snakemake.wildcards.scene}"):
    scene, store = snakemake.wildcards.scene, Path(snakemake.output[0]).parent
    if not any(store.iterdir()):
        store.rmdir()  # made for the output, before this job began
    settings = SceneSettings.from_config(
        {
            "frames": snakemake.params.frames,
            "geometry": {"invalid_depth": snakemake.params.invalid_depth},
        }
    )
    listed = snakemake.input.get("candidates")
    restore_store(
        data_layout({"data": snakemake.params.data}).scan(scene),
        read_boxes_file(Path(snakemake.input.boxes)).get(scene),
        settings,
        out=store,
        manifest=Path(snakemake.input.manifest),
        split=Path(snakemake.input.manifest).stem.split("-")[0],
        listed=read_candidates_file(Path(listed)).get(scene) if listed else None,
    )
