# Scans to scene stores: a shard is a few scans that one job works on.
#
# in:
#   frames     = <scan>.sens, or a folder posed_images/<scan>
#   mesh       = <scan>_vh_clean_2.ply, with its segments, aggregation and axis alignment
#   proposals  = a detector's boxes, where there are any
#   infos      = EmbodiedScan's frames and matrices, where configured
#   clouds     = pcd_with_object_aabbs/<split>/<scene>.pth, where configured, before the mesh
#   prepared   = box files, published frames and voxels of coverage, where configured
# out:
#   boxes      = results/boxes/<shard>.json
#   candidates = results/candidates/<split>.json
#   voxels     = results/voxels.npz
#   stores     = results/scenes/<scene>.zarr, listed in results/scenes/shards/<shard>.json
#   left_out   = results/scenes/left_out/<split>.json: scenes that cannot be used, and why
#   limit      = results/scenes/limit/<split>.json: whether these are few enough
#   report     = results/scenes/report.html, results/scenes/report/<shard>/
#   sources    = results/scenes/sources.json: which files each scan has
# by hand:
#   snakemake --cores 1 results/boxes/train-000.json
#   snakemake --cores 1 results/candidates/train.json
#   snakemake --cores 1 results/voxels.npz
#   snakemake --cores 1 results/scenes/shards/train-000.json
#   snakemake --cores 1 results/scenes/left_out/train.json
#   snakemake --cores 1 results/scenes/limit/train.json
#   snakemake --cores 1 results/scenes/report/train-000
#   snakemake --cores 1 results/scenes/report.html

from threedrs.scannet.excluded_scans import BadScenePolicy, check_removed


rule scenes:
    input:
        expand("results/boxes/{shard}.json", shard=SCENE_SHARDS),
        expand("results/scenes/shards/{shard}.json", shard=STORE_SHARDS),
        expand(
            "results/scenes/limit/{split}.json",
            split=[*TARGETS.splits, *TARGETS.captures],
        ),
        "results/scenes/report.html",
        "results/scenes/sources.json",
        expand("results/scenes/report/{shard}", shard=STORE_SHARDS),
        # Manifests stand for the stores, which are many, so nothing else would miss one.
        lambda wildcards: gate(check_removed, STORE_SHARDS, Path("results/scenes")),


rule boxes:
    input:
        scans=lambda wildcards: TARGETS.box_files(wildcards.shard),
        ready=lambda wildcards: list(
            LAYOUT.prepared_boxes(wildcards.shard.split("-")[0]).values()
        ),
    output:
        "results/boxes/{shard}.json",
    log:
        "results/logs/boxes/{shard}.log",
    benchmark:
        "results/benchmarks/boxes/{shard}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="boxes"),
        data=DATA,
        root=LAYOUT.root,
        scenes=lambda wildcards: SCENE_SHARDS[wildcards.shard],
        ready=lambda wildcards: list(
            LAYOUT.prepared_boxes(wildcards.shard.split("-")[0])
        ),
    message:
        "Boxes of shard {wildcards.shard}"
    script:
        "../scripts/boxes.py"


rule candidates:
    input:
        infos=lambda wildcards: (
            LAYOUT.candidates_file(wildcards.split)
            or gate(TARGETS.refuse, "candidates")
        ),
    output:
        "results/candidates/{split}.json",
    log:
        "results/logs/candidates/{split}.log",
    benchmark:
        "results/benchmarks/candidates/{split}.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 16000,
    params:
        code=code(script="candidates"),
    message:
        "What EmbodiedScan says of split {wildcards.split}"
    script:
        "../scripts/candidates.py"


rule voxels:
    input:
        voxels=lambda wildcards: (
            LAYOUT.file("voxels") or gate(TARGETS.refuse, "voxels")
        ),
    output:
        "results/voxels.npz",
    log:
        "results/logs/voxels.log",
    benchmark:
        "results/benchmarks/voxels.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 8000,
    params:
        code=code(script="voxels"),
    message:
        "Voxels of the published point clouds"
    script:
        "../scripts/voxels.py"


rule build_scenes:
    input:
        # An exported folder counts by its own date: one that gained or lost a file is newer.
        frames=lambda wildcards: TARGETS.scan_files(wildcards.shard, "frames"),
        meta=lambda wildcards: TARGETS.there(
            *TARGETS.scan_files(wildcards.shard, "meta")
        ),
        # The coverage strategies look at which of the scene's voxels a frame sees.
        coverage=lambda wildcards: TARGETS.coverage_files(wildcards.shard),
        selected=TARGETS.selected_frames(),
        voxels=lambda wildcards: TARGETS.voxels(wildcards.shard),
        infos=TARGETS.infos(),
        boxes="results/boxes/{shard}.json",
    output:
        "results/scenes/shards/{shard}.json",
    log:
        "results/logs/build_scenes/{shard}.log",
    benchmark:
        "results/benchmarks/build_scenes/{shard}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="build_scenes"),
        data=DATA,
        root=LAYOUT.root,
        large=lambda wildcards: TARGETS.unhashed(
            TARGETS.scan_files(wildcards.shard, "frames")
            + TARGETS.coverage_files(wildcards.shard)
            + TARGETS.selected_frames()
        ),
        frames=CONFIG["frames"],
        invalid_depth=CONFIG["geometry"]["invalid_depth"],
        scenes=lambda wildcards: SCENE_SHARDS[wildcards.shard],
    message:
        "Scene stores of shard {wildcards.shard}"
    script:
        "../scripts/build_scenes.py"


rule check_scenes:
    input:
        manifests=lambda wildcards: expand(
            "results/scenes/shards/{shard}.json",
            shard=TARGETS.split_shards(wildcards.split),
        ),
    output:
        "results/scenes/left_out/{split}.json",
    log:
        "results/logs/check_scenes/{split}.log",
    benchmark:
        "results/benchmarks/check_scenes/{split}.tsv"
    wildcard_constraints:
        split=SPLITS,
    conda:
        "../../envs/data.yaml"
    resources:
        # Not parameters: training waits for this, and a changed resource reruns nothing.
        **{key: str(CONFIG["data"][key]) for key in BadScenePolicy.model_fields},
    params:
        code=code(script="check_scenes"),
    message:
        "Usable scenes of split {wildcards.split}"
    script:
        "../scripts/check_scenes.py"


rule check_limit:
    # Nothing waits for this: it tells when a changed limit no longer allows what has passed.
    input:
        left_out="results/scenes/left_out/{split}.json",
    output:
        "results/scenes/limit/{split}.json",
    log:
        "results/logs/check_limit/{split}.log",
    wildcard_constraints:
        split=SPLITS,
    localrule: True
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="check_limit"),
        policy={key: CONFIG["data"][key] for key in BadScenePolicy.model_fields},
    message:
        "Limit of bad scenes of split {wildcards.split}"
    script:
        "../scripts/check_limit.py"


rule scene_facts:
    input:
        manifest="results/scenes/shards/{shard}.json",
        # Own captures have their boxes in their stores alone.
        boxes=lambda wildcards: (
            [f"results/boxes/{wildcards.shard}.json"]
            if wildcards.shard in SCENE_SHARDS
            else []
        ),
    output:
        directory("results/scenes/report/{shard}"),
    log:
        "results/logs/scene_facts/{shard}.log",
    benchmark:
        "results/benchmarks/scene_facts/{shard}.tsv"
    wildcard_constraints:
        shard="|".join(STORE_SHARDS),
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="scene_facts"),
        data=DATA,
        root=LAYOUT.root,
        scenes=lambda wildcards: STORE_SHARDS[wildcards.shard],
    message:
        "Facts and images of shard {wildcards.shard}"
    script:
        "../scripts/scene_facts.py"


rule scene_report:
    input:
        parts=expand("results/scenes/report/{shard}", shard=STORE_SHARDS),
        # Which frames imported features are of, it says too.
        features=expand(
            "results/features/{teacher}/{shard}.zarr/manifest.json",
            teacher=filter(targets.takes_files, TEACHERS),
            shard=FEATURE_SHARDS,
        ),
    output:
        page=report(
            "results/scenes/report.html",
            caption="../report/scenes.rst",
            category="Page",
        ),
        sources="results/scenes/sources.json",
    log:
        "results/logs/scene_report.log",
    benchmark:
        "results/benchmarks/scene_report.tsv"
    conda:
        "../../envs/report.yaml"
    params:
        code=code(
            script="scene_report", without=["tasks"], files=["scenes/templates/*"]
        ),
        data=DATA,
        root=LAYOUT.root,
        boxes=LAYOUT.boxes,
        stride=CONFIG["frames"]["stride"],
        scenes=TARGETS.scenes,
        other_frames=CONFIG["teacher"]["other_frames"],
    message:
        "Scene report"
    script:
        "../scripts/scene_report.py"
