# The benchmarks' annotation files to records, and the training records to a mix.
#
# in:
#   annotations = data.root/benchmark/<benchmark>/, or a LLaVA-style array (instructions.ready)
#   boxes       = results/boxes/<shard>.json
#   left_out    = results/scenes/left_out/train.json
# out:
#   records = results/instructions/<benchmark>_<split>.jsonl, with .rejected.jsonl, .summary.json
#   mix     = results/instructions/mixes/<mix>.jsonl, with .summary.json
# by hand:
#   threedrs instructions convert scanqa val --data DATA_ROOT --out scanqa_val.jsonl
#   snakemake --cores 1 results/instructions/mixes/full.jsonl

from threedrs.inputs.required_files import conversions, prepared_records
from threedrs.scannet.layout import scene_split


rule instructions:
    input:
        [
            f"results/instructions/{name}_{split}.{kind}"
            for name, split in conversions(CONFIG)
            for kind in ("jsonl", "rejected.jsonl", "summary.json")
        ],
        expand(
            "results/instructions/mixes/{mix}.{kind}",
            mix=MIXES,
            kind=["jsonl", "summary.json"],
        ),


rule convert_instructions:
    input:
        annotations=lambda wildcards: (
            prepared_records(LAYOUT, **wildcards)
            or annotation_files(LAYOUT, wildcards.benchmark, wildcards.split)
        ),
        labels=TARGETS.there(LAYOUT.labels_file),
        boxes=lambda wildcards: expand(
            "results/boxes/{shard}.json",
            shard=TARGETS.split_shards(scene_split(wildcards.split)),
        ),
    output:
        records="results/instructions/{benchmark}_{split}.jsonl",
        rejected="results/instructions/{benchmark}_{split}.rejected.jsonl",
        summary="results/instructions/{benchmark}_{split}.summary.json",
    log:
        "results/logs/convert_instructions/{benchmark}_{split}.log",
    benchmark:
        "results/benchmarks/convert_instructions/{benchmark}_{split}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        code=lambda wildcards: code(
            None,
            find_task(wildcards.benchmark).code_entry("convert"),
            script="convert_instructions",
            without=["tasks.registry"],
        ),
        data=DATA,
        root=LAYOUT.root,
        ready=lambda wildcards: prepared_records(LAYOUT, **wildcards) is not None,
        scenes=lambda wildcards: TARGETS.scenes[scene_split(wildcards.split)],
        on_reject=CONFIG["instructions"]["on_reject"],
        max_reject_fraction=CONFIG["instructions"]["max_reject_fraction"],
    message:
        "Records of {wildcards.benchmark}, {wildcards.split}"
    script:
        "../scripts/convert_instructions.py"


rule balance:
    input:
        records=expand(
            "results/instructions/{benchmark}_train.jsonl",
            benchmark=CONFIG["instructions"]["benchmarks"],
        ),
        converted=expand(
            "results/instructions/{benchmark}_train.summary.json",
            benchmark=CONFIG["instructions"]["benchmarks"],
        ),
        # Records of scenes that cannot be used stay out.
        scenes=expand(
            "results/scenes/shards/{shard}.json", shard=TARGETS.split_shards("train")
        ),
        left_out="results/scenes/left_out/train.json",
    output:
        mix="results/instructions/mixes/{mix}.jsonl",
        summary="results/instructions/mixes/{mix}.summary.json",
    log:
        "results/logs/balance/{mix}.log",
    benchmark:
        "results/benchmarks/balance/{mix}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        code=code(script="balance", without=["tasks.registry"]),
        mix=lambda wildcards: CONFIG["instructions"]["mixes"][wildcards.mix],
        held_out=TARGETS.held_out(),
    message:
        "Training mix {wildcards.mix}"
    script:
        "../scripts/balance.py"
