"""Rule check_limit: whether the configured limit allows the scenes that are excluded."""

from pathlib import Path

from threedrs.scannet.excluded_scans import BadScenePolicy, check_limit
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"check_limit {snakemake.wildcards.split}"):
    check_limit(
        Path(snakemake.input.left_out),
        BadScenePolicy(**snakemake.params.policy),
        Path(snakemake.output[0]),
    )
