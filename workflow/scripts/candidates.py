"""Rule candidates: what EmbodiedScan says of a split's scenes."""

from pathlib import Path

from threedrs.scannet.embodiedscan import write_infos
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"candidates {snakemake.wildcards.split}"):
    write_infos(Path(snakemake.input.infos), Path(snakemake.output[0]))
