"""Rules download_<n>: one file from the Hugging Face Hub."""

from threedrs.inputs.download import Download, fetch
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"download {snakemake.params.file}") as log:
    digest = fetch(Download(**snakemake.params.entry), snakemake.params.file)
    log.info("%s: SHA-256 %s", snakemake.output[0], digest)
