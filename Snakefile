# threedrs: from ScanNet scans to five benchmark scores.
#
#   snakemake --cores all all        everything, on this machine (profiles/default)
#   snakemake --profile slurm all    everything, on a Slurm cluster (slurm/)
#   instead of the last `all`: scenes | features | instructions | models | scores | answers | report
#
# Settings: config/config.yaml (demo data, a small student); add --configfile config/paper.yaml for
# the paper's run. README.md draws this DAG.

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"  #        config/config.yaml, checked; lists that rules expand over


wildcard_constraints:
    benchmark="|".join({*CONFIG["instructions"]["benchmarks"], *BENCHMARKS, *CONTROLS}),
    mix="|".join(MIXES) or "none",
    run="|".join(RUNS),
    shard="|".join([*SCENE_SHARDS, *FEATURE_SHARDS]),
    split="train|val|test",
    teacher="|".join(TEACHERS) or "none",


if DEMO:

    include: "workflow/rules/demo.smk"


include: "workflow/rules/download.smk"  #      files from the Hub, where the config lists any
include: "workflow/rules/scenes.smk"  #        scan files -> boxes, scene stores
include: "workflow/rules/features.smk"  #      scene stores -> teacher features
include: "workflow/rules/instructions.smk"  #  annotation files -> records -> mix
include: "workflow/rules/train.smk"  #         mix, scenes, features -> models
include: "workflow/rules/evaluate.smk"  #      models, scenes, records -> predictions -> metrics
include: "workflow/rules/captures.smk"  #      own captures -> scene stores, answers
include: "workflow/rules/report.smk"  #        metrics of all runs -> summary, report


rule all:
    # Every stage's results, so that one that was removed is made again.
    default_target: True
    input:
        rules.scenes.input,
        rules.features.input,
        rules.instructions.input,
        rules.models.input,
        rules.scores.input,
        rules.answers.input,
        rules.report.input,
