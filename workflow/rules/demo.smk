# in:  seed and number of scenes
# out: a data set in ScanNet's on-disk formats under data.root


rule demo_data:
    output:
        [LAYOUT.root / file for file in demo_files(DEMO["scenes"])],
    log:
        "results/logs/demo_data.log",
    benchmark:
        "results/benchmarks/demo_data.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 2
    params:
        code=code(script="demo_data"),
        root=lambda wildcards, output: Path(output[0]).parent.as_posix(),
        scenes=DEMO["scenes"],
        seed=DEMO["seed"],
        frames=DEMO["frames"],
        rounds=DEMO["rounds"],
    message:
        "Generating the demo data: {params.scenes} scenes"
    script:
        "../scripts/demo_data.py"
