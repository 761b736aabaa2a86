"""Rule extract_features: one teacher's features of a shard's scenes."""

from pathlib import Path

from threedrs.distributed.gpus import claim_gpus
from threedrs.scannet.excluded_scans import read_excluded
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.known_teachers import teacher_settings
from threedrs.workflow.job_log import job_log

with job_log(snakemake.log[0], f"extract_features {snakemake.wildcards.shard}"):
    claim_gpus()
    scenes = snakemake.params.scenes
    left_out = read_excluded(*map(Path, snakemake.input.scenes))
    places = {
        "candidates": [*snakemake.input.candidates],
        "weights": snakemake.params.weights,
        "posed_images": snakemake.params.posed_images,
    }
    extract_shard(
        [Path("results/scenes") / f"{scene}.zarr" for scene in scenes if scene not in left_out],
        teacher_settings({**snakemake.params.teacher, **places}),
        Path(snakemake.output[0]).parent,
        left_out={scene: left_out[scene] for scene in scenes if scene in left_out},
    )
