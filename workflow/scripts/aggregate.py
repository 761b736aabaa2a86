"""Rule aggregate: metrics of all runs and benchmarks to one summary."""

from pathlib import Path

from threedrs.evaluation.aggregate import aggregate
from threedrs.joblog import job_log

runs, benchmarks = snakemake.params.runs, snakemake.params.benchmarks
with job_log(snakemake.log[0], "aggregate"):
    aggregate(
        {
            (run, benchmark): Path(f"results/eval/{run}/{benchmark}/metrics.json")
            for run in runs
            for benchmark in benchmarks
        },
        baseline=snakemake.params.baseline,
        train_summaries={run: Path(f"results/train/{run}/train.json") for run in runs},
        run_configs={run: Path(f"results/train/{run}/config.json") for run in runs},
        out_csv=Path(snakemake.output.csv),
        out_json=Path(snakemake.output.json),
    )
