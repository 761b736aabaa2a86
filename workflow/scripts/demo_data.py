"""Rule demo_data: a generated data set in ScanNet's formats."""

from pathlib import Path

from threedrs.demo.write import write_demo
from threedrs.workflow.job_log import job_log

if __name__ == "__main__":  # the worker processes import this file
    with job_log(snakemake.log[0], "demo_data") as log:
        write_demo(
            Path(snakemake.params.root),
            snakemake.params.scenes,
            snakemake.params.seed,
            frames=snakemake.params.frames,
            rounds=snakemake.params.rounds,
            things=snakemake.params.things,
            say=log.info,
        )
