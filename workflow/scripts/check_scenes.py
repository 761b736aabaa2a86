"""Rule check_scenes: whether enough of a split's scans can be used, and which cannot."""

from pathlib import Path

from threedrs.scannet.excluded_scans import BadScenePolicy, check_excluded
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"check_scenes {snakemake.wildcards.split}"):
    check_excluded(
        snakemake.wildcards.split,
        [Path(path) for path in snakemake.input.manifests],
        BadScenePolicy(
            on_bad_scene=snakemake.resources.on_bad_scene,
            max_bad_fraction=float(snakemake.resources.max_bad_fraction),
        ),
        Path(snakemake.output[0]),
    )
