"""Rule boxes: ground-truth and detector boxes of a shard's scenes."""

from pathlib import Path

from threedrs.scannet.boxes import extract_boxes
from threedrs.scannet.layout import DataLayout
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"boxes {snakemake.wildcards.shard}"):
    layout = DataLayout(**snakemake.params.data, root=snakemake.params.root)
    extract_boxes(
        [layout.scan(scene) for scene in snakemake.params.scenes],
        Path(snakemake.output[0]),
        dict(zip(snakemake.params.ready, map(Path, snakemake.input.ready), strict=True)),
    )
