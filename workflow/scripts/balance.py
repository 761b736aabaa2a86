"""Rule balance: the training mix."""

from pathlib import Path

from threedrs.instructions.mix import build_mix
from threedrs.instructions.mix_settings import MixSettings
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"balance {snakemake.wildcards.mix}"):
    build_mix(
        [Path(path) for path in snakemake.input.records],
        settings=MixSettings(**snakemake.params.mix),
        held_out_scenes=snakemake.params.held_out,
        out_jsonl=Path(snakemake.output.mix),
        out_summary=Path(snakemake.output.summary),
        left_out=read_excluded(Path(snakemake.input.left_out)),
    )
