"""Rule build_report: everything that was found, on one page."""

from pathlib import Path

from threedrs.report.page import ReportSettings, build_report
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], "build_report"):
    build_report(
        Path("results"),
        ReportSettings(
            title=snakemake.params.report["title"],
            baseline=snakemake.params.report["baseline"],
            runs=tuple(snakemake.params.runs),
            benchmarks=tuple(snakemake.params.benchmarks),
            teachers=tuple(snakemake.params.teachers),
            mixes=tuple(snakemake.params.mixes),
            demo=snakemake.params.demo,
            feature_shard=snakemake.params.features,
        ),
    )
