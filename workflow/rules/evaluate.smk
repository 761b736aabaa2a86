# in:  models, scene stores, evaluation records
# out: results/eval/<run>/<benchmark>/{predictions.jsonl, predictions.meta.json,
#      metrics.json, per_question.npz}


rule scores:
    input:
        expand(
            "results/eval/{run}/{benchmark}/metrics.json",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),


rule predict:
    input:
        model="results/train/{run}/model",
        records=lambda wildcards: evaluation_records(wildcards.benchmark),
        scenes=expand("results/scenes/shards/{shard}.json", shard=split_shards("val")),
        code=code("predict", without=["evaluation.registry", "evaluation.bootstrap"]),
    output:
        predictions="results/eval/{run}/{benchmark}/predictions.jsonl",
        meta="results/eval/{run}/{benchmark}/predictions.meta.json",
    log:
        "results/logs/predict/{run}/{benchmark}.log",
    benchmark:
        "results/benchmarks/predict/{run}/{benchmark}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: predict_need("threads")
    resources:
        gpu=predict_need("gpu"),
        mem_mb=predict_need("mem_mb"),
        runtime=predict_need("runtime"),
    params:
        settings=lambda wildcards: json.dumps(predict_settings(wildcards.run)),
    message:
        "Predictions of {wildcards.run} on {wildcards.benchmark}"
    shell:
        "launch=''; [ {resources.gpu} -le 1 ] ||"
        " launch='torch.distributed.run --standalone --nproc-per-node {resources.gpu} -m';"
        " python -m $launch threedrs.predict --model {input.model} --records {input.records}"
        " --scenes results/scenes --settings '{params.settings}' --out {output.predictions}"
        " 2>&1 | tee {log}"


rule score:
    input:
        predictions="results/eval/{run}/{benchmark}/predictions.jsonl",
        meta="results/eval/{run}/{benchmark}/predictions.meta.json",
        code=code("evaluation.score"),
    output:
        metrics="results/eval/{run}/{benchmark}/metrics.json",
        per_question="results/eval/{run}/{benchmark}/per_question.npz",
    log:
        "results/logs/score/{run}/{benchmark}.log",
    benchmark:
        "results/benchmarks/score/{run}/{benchmark}.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        bootstrap=CONFIG["eval"]["bootstrap"],
    message:
        "Scores of {wildcards.run} on {wildcards.benchmark}"
    script:
        "../scripts/score.py"
