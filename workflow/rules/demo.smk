# Generated rooms in ScanNet's on-disk formats, for who has no scans.
#
# in:
#   config = data.demo in config/config.yaml: scenes, seed, frames, rounds, things
# out:
#   scans = data.root: scans/, scannetv2_*.txt, scannetv2-labels.combined.tsv, benchmark/
# by hand:
#   threedrs demo DATA_ROOT --scenes 14 --seed 8

from threedrs.demo.write import demo_files


rule demo_data:
    output:
        # Not demo.json, by which the job knows the files of an older demo. Snakemake would remove it.
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
        root=lambda wildcards: LAYOUT.root.as_posix(),
        scenes=DEMO["scenes"],
        seed=DEMO["seed"],
        frames=DEMO["frames"],
        rounds=DEMO["rounds"],
        things=DEMO["things"],
    message:
        "Generating the demo data: {params.scenes} scenes"
    script:
        "../scripts/demo_data.py"
