"""Rule extract_features: one teacher's features of a shard's scenes."""

from pathlib import Path

from threedrs.gpus import claim_gpu
from threedrs.joblog import job_log
from threedrs.teachers.extract import TeacherSettings, extract_shard

with job_log(snakemake.log[0], f"extract_features {snakemake.wildcards.shard}"):
    claim_gpu()
    extract_shard(
        [Path("results/scenes") / f"{scene}.zarr" for scene in snakemake.params.scenes],
        TeacherSettings.from_config({"teacher": snakemake.params.teacher}),
        Path(snakemake.output[0]).parent,
    )
