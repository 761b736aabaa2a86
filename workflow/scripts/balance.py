"""Rule balance: the training mix."""

from pathlib import Path

from threedrs.config import data_layout
from threedrs.instructions.mix import build_mix
from threedrs.joblog import job_log

with job_log(snakemake.log[0], f"balance {snakemake.wildcards.mix}"):
    build_mix(
        [Path(path) for path in snakemake.input.records],
        balance=snakemake.params.mix["balance"],
        held_out_scenes=data_layout({"data": snakemake.params.data}).scenes("val"),
        out_jsonl=Path(snakemake.output.mix),
        out_parquet=Path(snakemake.output.table),
        out_summary=Path(snakemake.output.summary),
    )
