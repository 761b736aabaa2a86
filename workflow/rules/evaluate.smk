# Questions of the benchmarks to answers, and answers to metrics.
#
# in:
#   model    = results/train/<run>/model/, or the checkpoint that the run evaluates as it is
#   records  = results/instructions/<benchmark>_<split>.jsonl
#   scenes   = results/scenes/<scene>.zarr, listed in results/scenes/shards/<shard>.json
#   left_out = results/scenes/left_out/val.json: scenes that are not asked about
# <benchmark> is also scanqa-text_only or scanqa-other_room, where eval.controls asks for such.
# out:
#   predictions  = results/eval/<run>/<benchmark>/predictions.jsonl
#   meta         = results/eval/<run>/<benchmark>/predictions.meta.json
#   metrics      = results/eval/<run>/<benchmark>/metrics.json
#   per_question = results/eval/<run>/<benchmark>/per_question.npz
#   awareness    = results/eval/<run>/awareness.json, where it is asked for (target `awareness`)
#   trivial      = results/trivial_answers.json: what anyone scores without looking
# by hand; the first command goes on where it stopped:
#   python -m threedrs.predict --model results/train/3drs/model --scenes results/scenes \
#     --records results/instructions/scanqa_val.jsonl --out predictions.jsonl
#   threedrs score scanqa predictions.jsonl --out metrics.json
#   snakemake --cores 1 results/eval/3drs/awareness.json
#   snakemake --cores 1 results/trivial_answers.json

import json


rule scores:
    input:
        expand(
            "results/eval/{run}/{benchmark}/{file}",
            run=RUNS,
            benchmark=[*BENCHMARKS, *CONTROLS],
            file=[
                "predictions.jsonl",
                "predictions.meta.json",
                "metrics.json",
                "per_question.npz",
            ],
        ),


rule predict:
    input:
        model=TARGETS.model_files,
        # Its date says nothing; its files stand in the manifest by their hashes.
        folder=ancient(TARGETS.trained_folder),
        records=lambda wildcards: targets.evaluation_records(wildcards.benchmark),
        converted=lambda wildcards: targets.evaluation_records(
            wildcards.benchmark, "summary.json"
        ),
        scenes=expand(
            "results/scenes/shards/{shard}.json", shard=TARGETS.split_shards("val")
        ),
        left_out="results/scenes/left_out/val.json",
    output:
        predictions="results/eval/{run}/{benchmark}/predictions.jsonl",
        meta="results/eval/{run}/{benchmark}/predictions.meta.json",
    log:
        "results/logs/predict/{run}/{benchmark}.log",
    benchmark:
        "results/benchmarks/predict/{run}/{benchmark}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: TARGETS.need(PREDICT_NEEDS, "threads")
    resources:
        gpu=TARGETS.need(PREDICT_NEEDS, "gpu"),
        mem_mb=more_each_time(TARGETS.need(PREDICT_NEEDS, "mem_mb")),
        runtime=TARGETS.need(PREDICT_NEEDS, "runtime"),
    params:
        code=code("predict"),
        recipe=1,  # raise it when the command below changes what comes out
        # A Path, which Snakemake does not compare, as the model may be moved.
        model=lambda wildcards: Path(TARGETS.model(wildcards.run)),
        large=lambda wildcards: TARGETS.unhashed(
            map(Path, TARGETS.model_files(wildcards))
        ),
        settings=lambda wildcards: json.dumps(
            TARGETS.predict_settings(wildcards.run, wildcards.benchmark)
        ),
    message:
        "Predictions of {wildcards.run} on {wildcards.benchmark}"
    shell:
        "python -m threedrs.distributed.launch --gpus {resources.gpu} --cores {threads}"
        " threedrs.predict --model {params.model:q} --records {input.records}"
        " --scenes results/scenes --left-out {input.left_out}"
        " --settings {params.settings:q} --out {output.predictions}"
        " >{log} 2>&1"


rule awareness:
    # Not part of `all`. What is there is kept up to date, and the report shows it.
    input:
        expand("results/eval/{run}/awareness.json", run=RUNS),


rule awareness_of_run:
    input:
        model=TARGETS.model_files,
        folder=ancient(TARGETS.trained_folder),
        scenes=expand(
            "results/scenes/shards/{shard}.json", shard=TARGETS.split_shards("val")
        ),
        left_out="results/scenes/left_out/val.json",
    output:
        "results/eval/{run}/awareness.json",
    log:
        "results/logs/awareness_of_run/{run}.log",
    benchmark:
        "results/benchmarks/awareness_of_run/{run}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: TARGETS.need(PREDICT_NEEDS, "threads")
    resources:
        gpu=lambda wildcards: min(1, TARGETS.need(PREDICT_NEEDS, "gpu")(wildcards)),
        mem_mb=more_each_time(TARGETS.need(PREDICT_NEEDS, "mem_mb")),
        runtime=TARGETS.need(PREDICT_NEEDS, "runtime"),
    params:
        code=code("awareness"),
        recipe=1,  # raise it when the command below changes what comes out
        # A Path, which Snakemake does not compare, as the model may be moved.
        model=lambda wildcards: Path(TARGETS.model(wildcards.run)),
        large=lambda wildcards: TARGETS.unhashed(
            map(Path, TARGETS.model_files(wildcards))
        ),
        settings=lambda wildcards: json.dumps(TARGETS.predict_settings(wildcards.run)),
    message:
        "3D awareness of {wildcards.run}"
    shell:
        "python -m threedrs awareness {params.model:q} --scenes results/scenes"
        " --left-out {input.left_out} --settings {params.settings:q} --out {output}"
        " >{log} 2>&1"


rule score:
    input:
        predictions="results/eval/{run}/{benchmark}/predictions.jsonl",
        meta="results/eval/{run}/{benchmark}/predictions.meta.json",
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
        code=lambda wildcards: code(
            None,
            find_task(targets.asked_benchmark(wildcards.benchmark)[0]).code_entry(
                "measure"
            ),
            script="score",
            without=["tasks.registry"],
        ),
        bootstrap=CONFIG["eval"]["bootstrap"],
    message:
        "Scores of {wildcards.run} on {wildcards.benchmark}"
    script:
        "../scripts/score.py"


rule trivial_answers:
    input:
        # They tell the questions and their boxes, which are the same of every run.
        predictions=expand(
            "results/eval/{run}/{benchmark}/predictions.jsonl",
            run=TARGETS.telling_runs(),
            benchmark=BENCHMARKS,
        ),
        records=[targets.evaluation_records(benchmark) for benchmark in BENCHMARKS],
        training=expand(
            "results/instructions/{benchmark}_train.jsonl",
            benchmark=TARGETS.trained_benchmarks,
        ),
    output:
        "results/trivial_answers.json",
    log:
        "results/logs/trivial_answers.log",
    benchmark:
        "results/benchmarks/trivial_answers.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        code=code(script="trivial_answers"),
        runs=TARGETS.telling_runs(),
        benchmarks=BENCHMARKS,
        learned=TARGETS.trained_benchmarks,
    message:
        "Answers without looking"
    script:
        "../scripts/trivial_answers.py"
