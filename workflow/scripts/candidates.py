"""Rule candidates: EmbodiedScan's image lists of a split, as candidate frames."""

from pathlib import Path

from threedrs.scannet.embodiedscan import write_candidates
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"candidates {snakemake.wildcards.split}"):
    write_candidates(Path(snakemake.input.infos), Path(snakemake.output[0]))
