# in:  metrics of all runs, training logs, predictions, scene stores
# out: results/report/{summary.csv, summary.json, index.html}


rule aggregate:
    input:
        metrics=expand(
            "results/eval/{run}/{benchmark}/metrics.json",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        trained=expand("results/train/{run}/train.json", run=RUNS),
        configs=expand("results/train/{run}/config.json", run=RUNS),
        code=code("evaluation.aggregate"),
    output:
        csv="results/report/summary.csv",
        json="results/report/summary.json",
    log:
        "results/logs/aggregate.log",
    benchmark:
        "results/benchmarks/aggregate.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        runs=RUNS,
        benchmarks=BENCHMARKS,
        baseline=CONFIG["report"]["baseline"],
    message:
        "Summary of {params.runs}"
    script:
        "../scripts/aggregate.py"


rule build_report:
    input:
        summary="results/report/summary.json",
        histories=expand("results/train/{run}/log.jsonl", run=RUNS),
        predictions=expand(
            "results/eval/{run}/{benchmark}/predictions.jsonl",
            run=RUNS,
            benchmark=BENCHMARKS,
        ),
        records=[
            f"results/instructions/{benchmark}_{EVALUATION_SPLITS[benchmark]}.jsonl"
            for benchmark in BENCHMARKS
        ],
        mixes=expand("results/instructions/mixes/{mix}.summary.json", mix=MIXES),
        scenes=expand("results/scenes/shards/{shard}.json", shard=split_shards("val")),
        code=code("report.build", files=["report/templates/*"]),
    output:
        page=report(
            "results/report/index.html",
            caption="../report/index.rst",
            category="Report",
        ),
    log:
        "results/logs/build_report.log",
    benchmark:
        "results/benchmarks/build_report.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        report=CONFIG["report"],
        runs=RUNS,
        benchmarks=BENCHMARKS,
    message:
        "Report"
    script:
        "../scripts/build_report.py"


rule report:
    input:
        "results/report/index.html",
