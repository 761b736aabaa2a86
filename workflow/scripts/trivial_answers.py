"""Rule trivial_answers: what anyone scores without looking at a room."""

from pathlib import Path

from threedrs.evaluation.trivial_answers import write_trivial_answers
from threedrs.workflow.job_log import job_log

benchmarks, runs = snakemake.params.benchmarks, snakemake.params.runs
with job_log(snakemake.log[0], "trivial_answers"):
    write_trivial_answers(
        {
            benchmark: [Path(f"results/eval/{run}/{benchmark}/predictions.jsonl") for run in runs]
            for benchmark in benchmarks
        },
        records=dict(zip(benchmarks, map(Path, snakemake.input.records), strict=True)),
        training={
            benchmark: Path(f"results/instructions/{benchmark}_train.jsonl")
            for benchmark in snakemake.params.learned
        },
        out=Path(snakemake.output[0]),
    )
