"""Rule run_config: the resolved settings of one run, with the paths of its inputs.

Settings that change no result (the section ``execution``) are not here: rule train hands them over.
"""

from pathlib import Path

from threedrs.io.files import write_json
from threedrs.workflow.job_log import job_log

run = snakemake.wildcards.run
with job_log(snakemake.log[0], f"run_config {run}"):
    resolved = dict(snakemake.params.run)
    teacher = resolved["teacher"]["name"]
    features = {
        scene: f"results/features/{teacher}/{shard}.zarr"
        for shard, scenes in snakemake.params.shards.items()
        for scene in scenes
        if teacher != "none"
    }
    paths = {
        "mix": f"results/instructions/mixes/{resolved['train']['mix']}.jsonl",
        "scenes": "results/scenes",
        "features": features,
        "out": f"results/train/{run}",
    }
    config = {"run": run, **resolved, "paths": paths}
    if snakemake.params.evaluation is not None:
        config["evaluation"] = snakemake.params.evaluation
    write_json(Path(snakemake.output[0]), config)
