"""Rule scene_facts: a shard's part of the scene report."""

from pathlib import Path

from threedrs.scannet.layout import DataLayout
from threedrs.scenes.report import write_shard_facts
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"scene_facts {snakemake.wildcards.shard}"):
    layout = DataLayout(**snakemake.params.data, root=snakemake.params.root)
    write_shard_facts(
        [layout.own_scan(scene) for scene in snakemake.params.scenes],
        scenes=Path("results/scenes"),
        manifest=Path(snakemake.input.manifest),
        boxes=Path(snakemake.input.boxes[0]) if snakemake.input.boxes else None,
        out=Path(snakemake.output[0]),
    )
