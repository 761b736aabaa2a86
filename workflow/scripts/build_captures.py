"""Rule build_captures: the scene stores of a shard of own captures."""

from pathlib import Path

from threedrs.scenes.capture_shard import build_capture_shard
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"build_captures {snakemake.wildcards.shard}"):
    build_capture_shard(
        dict(zip(snakemake.params.scenes, map(Path, snakemake.input.captures), strict=True)),
        snakemake.params.frames,
        out_folder=Path("results/scenes"),
        manifest=Path(snakemake.output[0]),
    )
