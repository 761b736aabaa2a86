# Training: the mix, scene stores and features to a model.
#
# in:
#   config   = results/train/<run>/config.json, the run's settings resolved
#   mix      = results/instructions/mixes/<mix>.jsonl
#   scenes   = results/scenes/<scene>.zarr, listed in results/scenes/shards/<shard>.json
#   features = results/features/<teacher>/<shard>.zarr; none without a teacher
#   records  = results/instructions/<benchmark>_<split>.jsonl, if the run evaluates while it trains
# out:
#   model    = results/train/<run>/model/, with the hashes of its files in model.json
#   summary  = results/train/<run>/train.json
#   history  = results/train/<run>/log.jsonl
#   curve    = results/train/<run>/loss.png
# not declared, so that Snakemake keeps them when a job fails or is repeated:
#   checkpoints = results/train/<run>/checkpoints/
#   events      = results/train/<run>/tensorboard/
# by hand, here on 8 GPUs; the same command goes on where it stopped:
#   snakemake --cores 1 results/train/3drs/config.json
#   python -m threedrs.distributed.launch --gpus 8 --cores 64 threedrs.train --config \
#     results/train/3drs/config.json --execution '{"deepspeed": "config/deepspeed/zero3.json"}'


rule models:
    input:
        expand(
            "results/train/{run}/{file}",
            run=TRAINED,
            file=["model", "model.json", "train.json", "log.jsonl", "loss.png"],
        ),
        asked,


rule run_config:
    output:
        "results/train/{run}/config.json",
    log:
        "results/logs/run_config/{run}.log",
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="run_config"),
        config=lambda wildcards: TARGETS.run_config(wildcards.run),
    message:
        "Settings of run {wildcards.run}"
    script:
        "../scripts/run_config.py"


rule train:
    input:
        config="results/train/{run}/config.json",
        mix=lambda wildcards: (
            f"results/instructions/mixes/{RESOLVED[wildcards.run]['train']['mix']}.jsonl"
        ),
        scenes=expand(
            "results/scenes/shards/{shard}.json", shard=TARGETS.split_shards("train")
        ),
        features=lambda wildcards: expand(
            "results/features/{teacher}/{shard}.zarr/manifest.json",
            teacher=set(TEACHERS) & {RESOLVED[wildcards.run]["teacher"]["name"]},
            shard=FEATURE_SHARDS,
        ),
        evaluation=TARGETS.evaluation_files,
        # The batch has to divide over the ranks that a training would get.
        batch=lambda wildcards: gate(
            TARGETS.check_batch, wildcards.run, in_force(workflow, "train")
        ),
        downloaded=lambda wildcards: TARGETS.downloaded_below(
            RESOLVED[wildcards.run]["model"]["path"]
        ),
    output:
        model=directory("results/train/{run}/model"),
        manifest="results/train/{run}/model.json",
        summary="results/train/{run}/train.json",
        history="results/train/{run}/log.jsonl",
        curve="results/train/{run}/loss.png",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    wildcard_constraints:
        run="|".join(TRAINED) or "none",
    conda:
        "../../envs/gpu.yaml"
    threads: TARGETS.need(TRAIN_NEEDS, "threads")
    resources:
        gpu=TARGETS.need(TRAIN_NEEDS, "gpu"),
        mem_mb=TARGETS.need(TRAIN_NEEDS, "mem_mb"),
        runtime=TARGETS.need(TRAIN_NEEDS, "runtime"),
        nodes=1,  # slurm/config.yaml shows training on several
        tasks=1,
        tasks_per_gpu=0,
        execution=TARGETS.execution,
    params:
        code=code("train"),
        recipe=1,  # raise it when the command below changes what comes out
    message:
        "Training run {wildcards.run}"
    # A stop signal is for the training alone: this shell and tee go on.
    shell:
        "trap '' INT TERM USR1;"
        " python -m threedrs.distributed.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --tasks {resources.tasks} --cores {threads}"
        " threedrs.train --config {input.config} --execution {resources.execution:q} >{log} 2>&1"
