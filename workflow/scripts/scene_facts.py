"""Rule scene_facts: a shard's part of the scene report."""

from pathlib import Path

from threedrs.config import data_layout
from threedrs.joblog import job_log
from threedrs.scenes.facts import write_shard_facts

with job_log(snakemake.log[0], f"scene_facts {snakemake.wildcards.shard}"):
    layout = data_layout({"data": snakemake.params.data})
    write_shard_facts(
        [layout.scan(scene) for scene in snakemake.params.scenes],
        scenes=Path("results/scenes"),
        manifest=Path(snakemake.input.manifest),
        boxes=Path(snakemake.input.boxes),
        out=Path(snakemake.output[0]),
    )
