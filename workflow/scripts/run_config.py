"""Rule run_config: the resolved settings of one run, with the paths of its inputs.

Settings that change no result (the section ``execution``) are not here: rule train hands them over.
"""

from pathlib import Path

from threedrs.io.files import write_json
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"run_config {snakemake.wildcards.run}"):
    write_json(Path(snakemake.output[0]), snakemake.params.config)
