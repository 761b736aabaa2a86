"""Rule voxels: the voxels of the published point clouds, scene by scene."""

from pathlib import Path

from threedrs.scannet.point_cloud import write_voxels
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], "voxels"):
    write_voxels(Path(snakemake.input.voxels), Path(snakemake.output[0]))
