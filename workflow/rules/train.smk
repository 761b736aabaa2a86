# in:  the mix, scene stores, features; where a run evaluates on the way, evaluation records too
# out: results/train/<run>/{config.json, model/, train.json, log.jsonl, loss.png, tensorboard/}
#      checkpoints/ beside them is no declared output, so a failed job keeps it


rule models:
    input:
        expand("results/train/{run}/train.json", run=RUNS),


rule run_config:
    output:
        "results/train/{run}/config.json",
    log:
        "results/logs/run_config/{run}.log",
    conda:
        "../../envs/data.yaml"
    params:
        run=lambda wildcards: RESOLVED[wildcards.run],
        shards=FEATURE_SHARDS,
        evaluation=lambda wildcards: evaluation_on_the_way(wildcards.run),
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
        scenes=expand("results/scenes/shards/{shard}.json", shard=split_shards("train")),
        features=lambda wildcards: expand(
            "results/features/{teacher}/{shard}.zarr/manifest.json",
            teacher=set(TEACHERS) & {RESOLVED[wildcards.run]["teacher"]["name"]},
            shard=FEATURE_SHARDS,
        ),
        evaluation=evaluation_files,
        deepspeed=lambda wildcards: RESOLVED[wildcards.run]["train"]["deepspeed"],
        downloaded=lambda wildcards: downloaded_below(
            RESOLVED[wildcards.run]["model"]["path"]
        ),
        # An edited metric changes what is logged on the way, not the model.
        code=code(
            "train",
            without=["teachers.registry", "training.evaluate"],
            files=["models/*.txt"],
        ),
    output:
        model=directory("results/train/{run}/model"),
        summary="results/train/{run}/train.json",
        history="results/train/{run}/log.jsonl",
        curve="results/train/{run}/loss.png",
    log:
        "results/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: train_need("threads")
    resources:
        gpu=train_need("gpu"),
        mem_mb=train_need("mem_mb"),
        runtime=train_need("runtime"),
    message:
        "Training run {wildcards.run}"
    shell:
        "launch=''; [ {resources.gpu} -le 1 ] ||"
        " launch='torch.distributed.run --standalone --nproc-per-node {resources.gpu} -m';"
        " python -m $launch threedrs.train --config {input.config} 2>&1 | tee {log}"
