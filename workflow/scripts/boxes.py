"""Rule boxes: ground-truth and detector boxes of a shard's scenes."""

from pathlib import Path

from threedrs.config import data_layout
from threedrs.joblog import job_log
from threedrs.scannet.boxes import extract_boxes

with job_log(snakemake.log[0], f"boxes {snakemake.wildcards.shard}"):
    layout = data_layout({"data": snakemake.params.layout})
    scans = [layout.scan(scene) for scene in snakemake.params.scenes]
    extract_boxes(scans, Path(snakemake.output[0]))
