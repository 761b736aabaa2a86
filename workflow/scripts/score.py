"""Rule score: one predictions file to metrics."""

from pathlib import Path

from threedrs.evaluation.score import score_file
from threedrs.workflow.job_log import job_log
from threedrs.workflow.targets import asked_benchmark

run, asked = snakemake.wildcards.run, snakemake.wildcards.benchmark
with job_log(snakemake.log[0], f"score {run} {asked}"):
    score_file(
        asked_benchmark(asked)[0],
        Path(snakemake.input.predictions),
        Path(snakemake.output.metrics),
        run=run,
        bootstrap=snakemake.params.bootstrap,
        per_question=Path(snakemake.output.per_question),
    )
