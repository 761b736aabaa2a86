"""Rule check_limit: whether the configured limit allows the scenes that are left out."""

from pathlib import Path

from threedrs.joblog import job_log
from threedrs.scenes.usable import BadScenePolicy, check_limit

with job_log(snakemake.log[0], f"check_limit {snakemake.wildcards.split}"):
    check_limit(
        Path(snakemake.input.left_out),
        BadScenePolicy.from_config(snakemake.params.policy),
        Path(snakemake.output[0]),
    )
