# Own captures as splits of their own (data.scenes), and what the runs answer about them.
#
# in:
#   captures  = folders of posed RGB-D images, .sens files, or stores of `threedrs scene build`
#   questions = a JSON object a line: scene, and question, ground or box
#   model     = results/train/<run>/model/, or the checkpoint that the run evaluates as it is
# out:
#   stores   = results/scenes/<scene>.zarr, listed in results/scenes/shards/<shard>.json
#   answers  = results/eval/<run>/<split>/answers.jsonl, a reply a line
#   images   = results/eval/<run>/<split>/images/<line>.png, of the boxes found
# What rules/scenes.smk makes of shards and splits, it makes of these too.
# by hand; mylab is a split of data.scenes:
#   snakemake --cores 1 results/scenes/shards/mylab-000.json
#   snakemake --cores 1 results/eval/3drs/mylab/answers.jsonl

from threedrs.evaluation.scene_questions import read_scene_questions


rule answers:
    input:
        expand(
            "results/eval/{run}/{split}/{file}",
            run=RUNS,
            split=TARGETS.asked,
            file=["answers.jsonl", "images"],
        ),
        asked,


rule build_captures:
    input:
        captures=lambda wildcards: list(
            TARGETS.shard_captures(wildcards.shard).values()
        ),
        files=lambda wildcards: TARGETS.capture_files(wildcards.shard),
    output:
        "results/scenes/shards/{shard}.json",
    log:
        "results/logs/build_captures/{shard}.log",
    benchmark:
        "results/benchmarks/build_captures/{shard}.tsv"
    wildcard_constraints:
        shard="|".join(CAPTURE_SHARDS) or "none",
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="build_captures"),
        scenes=lambda wildcards: CAPTURE_SHARDS[wildcards.shard],
        large=lambda wildcards: TARGETS.unhashed(
            [
                *TARGETS.shard_captures(wildcards.shard).values(),
                *TARGETS.capture_files(wildcards.shard),
            ]
        ),
        frames=CONFIG["frames"]["count"],
    message:
        "Scene stores of captures {wildcards.shard}"
    script:
        "../scripts/build_captures.py"


rule answer_questions:
    input:
        model=TARGETS.model_files,
        folder=ancient(TARGETS.trained_folder),
        questions=lambda wildcards: TARGETS.captures[wildcards.split].questions,
        readable=lambda wildcards: gate(
            read_scene_questions,
            TARGETS.captures[wildcards.split].questions,
            TARGETS.captures[wildcards.split].scenes,
        ),
        scenes=lambda wildcards: expand(
            "results/scenes/shards/{shard}.json",
            shard=TARGETS.split_shards(wildcards.split),
        ),
        left_out="results/scenes/left_out/{split}.json",
    output:
        answers="results/eval/{run}/{split}/answers.jsonl",
        images=directory("results/eval/{run}/{split}/images"),
    log:
        "results/logs/answer_questions/{run}/{split}.log",
    benchmark:
        "results/benchmarks/answer_questions/{run}/{split}.tsv"
    wildcard_constraints:
        split="|".join(TARGETS.asked) or "none",
    conda:
        "../../envs/gpu.yaml"
    threads: TARGETS.need(PREDICT_NEEDS, "threads")
    resources:
        gpu=lambda wildcards: min(1, TARGETS.need(PREDICT_NEEDS, "gpu")(wildcards)),
        mem_mb=more_each_time(TARGETS.need(PREDICT_NEEDS, "mem_mb")),
        runtime=TARGETS.need(PREDICT_NEEDS, "runtime"),
    params:
        code=code(
            script="answer_questions",
            without=["tasks.registry", "metrics"],
            files=["models/*.txt"],
        ),
        # A Path, which Snakemake does not compare, as the model may be moved.
        model=lambda wildcards: Path(TARGETS.model(wildcards.run)),
        large=lambda wildcards: TARGETS.unhashed(
            map(Path, TARGETS.model_files(wildcards))
        ),
        scenes=lambda wildcards: list(TARGETS.captures[wildcards.split].scenes),
        # A capture has no true boxes to choose from, and its questions are of no benchmark.
        settings=lambda wildcards: {
            **TARGETS.predict_settings(wildcards.run),
            "boxes": "pred",
            "limit": None,
        },
    message:
        "Answers of {wildcards.run} about {wildcards.split}"
    script:
        "../scripts/answer_questions.py"
