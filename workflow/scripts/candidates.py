"""Rule candidates: EmbodiedScan's image lists of a split, as candidate frames."""

from pathlib import Path

from threedrs.joblog import job_log
from threedrs.scannet.embodiedscan import write_candidates

with job_log(snakemake.log[0], f"candidates {snakemake.wildcards.split}"):
    write_candidates(Path(snakemake.input.infos), Path(snakemake.output[0]))
