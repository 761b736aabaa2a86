# in:  scans (.sens, mesh, segments, aggregation, axis alignment), detector proposals
# out: results/boxes/<shard>.json, results/scenes/<scene>.zarr, results/scenes/shards/<shard>.json


rule scenes:
    input:
        expand("results/scenes/shards/{shard}.json", shard=SCENE_SHARDS),


rule boxes:
    input:
        scans=lambda wildcards: scan_files(
            wildcards.shard, "mesh", "segments", "aggregation", "meta"
        ),
        proposals=lambda wildcards: (
            scan_files(wildcards.shard, "proposals")
            if DEMO
            else [
                path
                for path in scan_files(wildcards.shard, "proposals")
                if path.is_file()
            ]
        ),
        code=code("scannet.boxes"),
    output:
        "results/boxes/{shard}.json",
    log:
        "results/logs/boxes/{shard}.log",
    benchmark:
        "results/benchmarks/boxes/{shard}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        layout=CONFIG["data"],
        scenes=lambda wildcards: SCENE_SHARDS[wildcards.shard],
    message:
        "Boxes of shard {wildcards.shard}"
    script:
        "../scripts/boxes.py"


rule build_scenes:
    input:
        sens=lambda wildcards: scan_files(wildcards.shard, "sens", "meta"),
        boxes="results/boxes/{shard}.json",
        code=code("scenes.build"),
    output:
        "results/scenes/shards/{shard}.json",
    log:
        "results/logs/build_scenes/{shard}.log",
    benchmark:
        "results/benchmarks/build_scenes/{shard}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        data=CONFIG["data"],
        frames=CONFIG["frames"],
        invalid_depth=CONFIG["geometry"]["invalid_depth"],
        scenes=lambda wildcards: SCENE_SHARDS[wildcards.shard],
    message:
        "Scene stores of shard {wildcards.shard}"
    script:
        "../scripts/build_scenes.py"
