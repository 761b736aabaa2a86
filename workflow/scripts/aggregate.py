"""Rule aggregate: metrics of all runs and benchmarks to one summary."""

from pathlib import Path

from threedrs.evaluation.aggregate import aggregate
from threedrs.workflow.job_log import job_log
from threedrs.workflow.targets import asked_benchmark

runs, benchmarks = snakemake.params.runs, snakemake.params.benchmarks
folders = {
    (run, benchmark): Path(f"results/eval/{run}/{benchmark}")
    for run in runs
    for benchmark in benchmarks
}
with job_log(snakemake.log[0], "aggregate"):
    aggregate(
        {key: folder / "metrics.json" for key, folder in folders.items()},
        per_question_files={key: folder / "per_question.npz" for key, folder in folders.items()},
        baseline=snakemake.params.baseline,
        train_summaries={
            run: Path(f"results/train/{run}/train.json") for run in snakemake.params.trained
        },
        run_configs={run: Path(f"results/train/{run}/config.json") for run in runs},
        control_files={
            (run, *asked_benchmark(asked)): Path(f"results/eval/{run}/{asked}/metrics.json")
            for run in runs
            for asked in snakemake.params.controls
        },
        trivial=Path(snakemake.input.trivial),
        out=Path(snakemake.output.json),
    )
