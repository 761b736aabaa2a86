# The teacher's features of the training scenes.
#
# in:
#   scenes  = results/scenes/<scene>.zarr, listed in results/scenes/shards/<shard>.json
#   weights = the teacher's checkpoint, where it has one, or the features that are imported
#   candidates = EmbodiedScan's lists of images, where configured: imported features may be of them
# out:
#   features = results/features/<teacher>/<shard>.zarr, whose manifest.json is written last
# by hand:
#   snakemake --cores 1 results/features/vggt-tiny/train-000.zarr/manifest.json

from threedrs.teachers.known_teachers import teacher_code_hash, weight_files, weights_of
from threedrs.workflow.rule_helpers import teacher_need


rule features:
    input:
        expand(
            "results/features/{teacher}/{shard}.zarr/manifest.json",
            teacher=TEACHERS,
            shard=FEATURE_SHARDS,
        ),
        asked,


rule extract_features:
    input:
        scenes=lambda wildcards: expand(
            "results/scenes/shards/{shard}.json",
            shard=TARGETS.scene_shards_of(FEATURE_SHARDS[wildcards.shard]),
        ),
        weights=lambda wildcards: weight_files(
            CONFIG["teacher"], wildcards.teacher, FEATURE_SHARDS[wildcards.shard]
        ),
        candidates=TARGETS.teacher_candidates,
    output:
        "results/features/{teacher}/{shard}.zarr/manifest.json",
    log:
        "results/logs/extract_features/{teacher}/{shard}.log",
    benchmark:
        "results/benchmarks/extract_features/{teacher}/{shard}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: teacher_need("threads")
    resources:
        gpu=teacher_need("gpu"),
        mem_mb=more_each_time(teacher_need("mem_mb")),
        runtime=teacher_need("runtime"),
    params:
        code=lambda wildcards: [
            code("features", script="extract_features"),
            teacher_code_hash(wildcards.teacher),
        ],
        teacher=lambda wildcards: TARGETS.teacher_section(wildcards.teacher),
        weights=lambda wildcards: weights_of(CONFIG["teacher"], wildcards.teacher),
        large=lambda wildcards: TARGETS.unhashed(
            weight_files(
                CONFIG["teacher"], wildcards.teacher, FEATURE_SHARDS[wildcards.shard]
            )
        ),
        posed_images=lambda wildcards: TARGETS.posed_images(wildcards.teacher),
        scenes=lambda wildcards: FEATURE_SHARDS[wildcards.shard],
    message:
        "Features of {wildcards.teacher} for shard {wildcards.shard}"
    script:
        "../scripts/extract_features.py"
