# The tables of all runs, and the page that shows everything that was found.
#
# in:
#   metrics     = results/eval/<run>/<benchmark>/{metrics.json, per_question.npz}
#   trivial     = results/trivial_answers.json: what anyone scores without looking
#   predictions = results/eval/<run>/<benchmark>/predictions.jsonl
#   awareness   = results/eval/<run>/awareness.json, where there is one
#   training    = results/train/<run>/{train.json, config.json, log.jsonl}
#   scenes      = records, scene stores and features of the scenes that the page shows
# out:
#   summary = results/report/summary.{csv, json, tex, md}
#   page    = results/report/index.html, and rooms/ beside it: frames and points of the questions' scenes
# by hand:
#   snakemake --cores 1 results/report/summary.json
#   snakemake --cores 1 results/report/index.html


report: "../report/workflow.rst"


rule aggregate:
    input:
        metrics=expand(
            "results/eval/{run}/{benchmark}/metrics.json",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        per_question=expand(
            "results/eval/{run}/{benchmark}/per_question.npz",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        trained=expand("results/train/{run}/train.json", run=TRAINED),
        configs=expand("results/train/{run}/config.json", run=RUNS),
        trivial="results/trivial_answers.json",
        controls=expand(
            "results/eval/{run}/{asked}/{file}",
            run=RUNS,
            asked=CONTROLS,
            file=["metrics.json", "per_question.npz"],
        ),
    output:
        csv=report(
            "results/report/summary.csv",
            caption="../report/summary.rst",
            category="Scores",
        ),
        json="results/report/summary.json",
        latex="results/report/summary.tex",
        markdown="results/report/summary.md",
    log:
        "results/logs/aggregate.log",
    benchmark:
        "results/benchmarks/aggregate.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        code=code(script="aggregate"),
        runs=RUNS,
        trained=TRAINED,
        benchmarks=BENCHMARKS,
        controls=CONTROLS,
        baseline=CONFIG["report"]["baseline"],
    message:
        "Summary of {params.runs}"
    script:
        "../scripts/aggregate.py"


rule build_report:
    input:
        summary="results/report/summary.json",
        histories=expand("results/train/{run}/log.jsonl", run=TRAINED),
        per_question=expand(
            "results/eval/{run}/{benchmark}/per_question.npz",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        predictions=expand(
            "results/eval/{run}/{benchmark}/predictions.jsonl",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        awareness=[
            path
            for path in expand("results/eval/{run}/awareness.json", run=RUNS)
            if Path(path).is_file()
        ],
        records=[targets.evaluation_records(benchmark) for benchmark in BENCHMARKS],
        mixes=expand("results/instructions/mixes/{mix}.summary.json", mix=MIXES),
        scenes=expand(
            "results/scenes/shards/{shard}.json", shard=TARGETS.split_shards("val")
        ),
        features=expand(
            "results/features/{teacher}/{shard}.zarr/manifest.json",
            teacher=TEACHERS,
            shard=list(FEATURE_SHARDS)[:1],
        ),
        train_scenes=[
            f"results/scenes/shards/{shard}.json"
            for shard in TARGETS.scene_shards_of(
                next(iter(FEATURE_SHARDS.values()), [])
            )
        ],
    output:
        page=report(
            "results/report/index.html",
            caption="../report/index.rst",
            category="Page",
        ),
        # Rooms that have not changed are kept, where an output would be removed before the job.
        rooms=update(directory("results/report/rooms")),
    log:
        "results/logs/build_report.log",
    benchmark:
        "results/benchmarks/build_report.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        code=code(script="build_report", files=["report/templates/*"]),
        report=CONFIG["report"],
        runs=RUNS,
        benchmarks=BENCHMARKS,
        teachers=TEACHERS,
        mixes=MIXES,
        demo=bool(TARGETS.generated),
        features=next(iter(FEATURE_SHARDS), None),
    message:
        "Report"
    script:
        "../scripts/build_report.py"


rule report:
    input:
        "results/report/index.html",
        expand("results/report/summary.{kind}", kind=["csv", "json", "tex", "md"]),
