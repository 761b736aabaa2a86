# Configuration, the lists that the rules expand over, and the modules each stage depends on.

import json
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.settings.enums import Quietness

from threedrs.config.files import check_yaml
from threedrs.config.load import (
    SCENE_POLICY,
    data_layout,
    load_config,
    old_places,
    resolve_run,
)
from threedrs.inputs.download import downloads
from threedrs.demo.write import demo_files, demo_scenes
from threedrs.errors import ThreedrsError
from threedrs.inputs.required_files import Ready, conversions, missing_inputs, shards
from threedrs.tasks.registry import annotation_files, evaluation_name, find_task
from threedrs.config.resources import PREDICT_NEEDS, TRAIN_NEEDS
from threedrs.scannet.layout import scene_split
from threedrs.workflow.code_hash import code_hash, code_changes
from threedrs.workflow.locks import remove_dead_lock
from threedrs.workflow.processes import (
    hand_on_stop_warning,
    name_snakemake,
    use_this_checkout,
)
from threedrs.config.checks import batch_problem
from threedrs.workflow.slurm import explain_failures, patch_status_query
from threedrs.inputs.scan_table import start_table
from threedrs.teachers.registry import (
    get_teacher,
    teacher_code_hash,
    weight_files,
    weights_of,
)

use_this_checkout(Path(workflow.basedir))
hand_on_stop_warning()
patch_status_query(sys.modules.get("snakemake_executor_plugin_slurm"))
name_snakemake()
if workflow.is_main_process:
    about_lock = remove_dead_lock(Path(".snakemake"))
    if about_lock:
        logger.warning(f"threedrs: {about_lock}")


def stop_on_bad_configuration(check):
    """Run `check`; where it finds a fault, show it without a traceback and stop."""
    try:
        return check()
    except ThreedrsError as error:
        sys.exit(f"threedrs: error:\n{error}")


if workflow.is_main_process:
    # Here, as Snakemake does not say where a file has a slip, and takes a key that stands twice.
    stop_on_bad_configuration(lambda: check_yaml(workflow.overwrite_configfiles))


configfile: "config/config.yaml"


CONFIG = stop_on_bad_configuration(lambda: load_config(config))
if workflow.is_main_process:
    for line in old_places(config):
        logger.warning(f"threedrs: config: {line}")
LAYOUT = data_layout(CONFIG)
# What is done about bad scans is for two rules alone: it changes no other stage's result.
DATA = {key: value for key, value in CONFIG["data"].items() if key not in SCENE_POLICY}
READY = Ready.from_config(CONFIG)
DOWNLOADS = downloads(CONFIG)
DOWNLOADED = [path for entry in DOWNLOADS for path in entry.paths()]
DEMO = CONFIG["data"]["demo"]
if DEMO:
    SCENES = demo_scenes(DEMO["scenes"])
else:
    stop_on_bad_configuration(
        lambda: missing_inputs(LAYOUT, conversions(CONFIG), DOWNLOADED, READY)
    )
    SCENES = {split: LAYOUT.scenes(split) for split in ("train", "val")}

SCENE_SHARDS = {
    name: scenes
    for split in ("train", "val")
    for name, scenes in shards(
        split, SCENES[split], CONFIG["data"]["scenes_per_shard"]
    ).items()
}
FEATURE_SHARDS = shards("train", SCENES["train"], CONFIG["teacher"]["scenes_per_shard"])
RESOLVED = {run: resolve_run(CONFIG, run) for run in CONFIG["runs"]}
RUNS = list(RESOLVED)
TEACHERS = sorted({run["teacher"]["name"] for run in RESOLVED.values()} - {"none"})
MIXES = list(CONFIG["instructions"]["mixes"])
BENCHMARKS = CONFIG["eval"]["benchmarks"]


def what_scans_have():
    """One table: which of the scenes have which files."""
    if DEMO and not LAYOUT.labels_file.is_file():
        return "What the scans have: everything, the demo data is generated first"
    return start_table(
        LAYOUT, SCENES, stride=CONFIG["frames"]["stride"], ready_boxes=READY.boxes
    )


def split_shards(split):
    """The scene shards of a split."""
    return [shard for shard in SCENE_SHARDS if shard.startswith(f"{split}-")]


def scene_shards_of(scenes):
    """The scene shards that hold any of the scenes."""
    return [
        shard for shard, members in SCENE_SHARDS.items() if set(members) & set(scenes)
    ]


def shard_of(wildcards):
    """The scene shard of a rule's wildcard `scene`."""
    return scene_shards_of([wildcards.scene])[0]


def downloaded_below(folder):
    """The files below a folder that the config downloads."""
    return [path for path in DOWNLOADED if folder and Path(folder) in path.parents]


def ready_boxes(shard):
    """The ready box files of a shard's split, by box set."""
    return READY.box_files(LAYOUT, shard.split("-")[0])


def scan_files(shard, *kinds):
    """The files of the given kinds of a shard's scans."""
    return [
        getattr(scan, kind)
        for scan in map(LAYOUT.scan, SCENE_SHARDS[shard])
        for kind in kinds
    ]


def code(stage=None, *entries, script=None, **more):
    """The hash of the code that a stage runs: edited code makes its results stale."""
    script = script and Path(workflow.basedir, "workflow/scripts", f"{script}.py")
    return code_hash(stage, *entries, script=script, **more)


def evaluation_records(benchmark):
    """The evaluation records of a benchmark."""
    return f"results/instructions/{evaluation_name(benchmark)}.jsonl"


def evaluation_summary(benchmark):
    """What the conversion of a benchmark's evaluation records counted."""
    return f"results/instructions/{evaluation_name(benchmark)}.summary.json"


def predict_settings(run):
    """How the model of a run is asked."""
    return {
        "prompt": CONFIG["eval"]["prompt"],
        "max_new_tokens": CONFIG["eval"]["max_new_tokens"],
        "boxes": CONFIG["boxes"]["eval"],
        "coordinate_dtype": CONFIG["geometry"]["coordinate_dtype"],
        "attention": RESOLVED[run]["model"]["attention"],
    }


def more_each_time(memory):
    """A job's memory: as much again with every attempt."""
    return lambda wildcards, attempt: attempt * memory(wildcards)


def train_need(kind):
    """A resource of a training job, as a function of its wildcards."""
    return lambda wildcards: TRAIN_NEEDS[RESOLVED[wildcards.run]["model"]["size"]][kind]


def train_resource(name, asked):
    """What a training job gets where `asked` is usual; None: only the job knows."""
    overrides = workflow.resource_settings.overwrite_resources.get("train", {})
    resource = overrides.get(name)
    if resource is not None:  # a profile's set-resources
        asked = None if resource.is_evaluable() else resource.value
    limit = workflow.global_resources.get(name)  # --resources
    most = limit.value if limit is not None else None
    return min(asked, most) if isinstance(asked, int) and most is not None else asked


def batch_gate(wildcards):
    """No file; stops where the ranks that a training would get do not divide its batch.

    Asked when a training is among the jobs: without one, nobody knows where it will be.
    """

    def problem(run):
        folder = Path(f"results/train/{run}")
        return batch_problem(RESOLVED[run], train_resource, folder)

    if workflow.is_main_process and problem(wildcards.run):
        found = {run: problem(run) for run in RUNS}
        lines = [f"config: runs.{run}: {line}" for run, line in found.items() if line]
        sys.exit("\n".join(["threedrs: error:", *lines]))
    return []


def predict_need(kind):
    """A resource of a prediction job, as a function of its wildcards."""
    return lambda wildcards: PREDICT_NEEDS[RESOLVED[wildcards.run]["model"]["size"]][
        kind
    ]


def teacher_section(teacher):
    """What of the config's section `teacher` decides this teacher's features."""
    weights = weights_of(CONFIG["teacher"], teacher)
    return {
        "name": teacher,
        "weights": None if weights is None else str(weights),
        "seed": CONFIG["teacher"]["seed"],
        "grid": CONFIG["teacher"]["grid"],
    }


def teacher_need(kind):
    """A resource of a feature job, as a function of its wildcards."""
    return lambda wildcards: get_teacher(wildcards.teacher).needs[kind]


def evaluation_on_the_way(run):
    """What a run answers while it trains, and how; None: nothing."""
    if RESOLVED[run]["train"]["eval_every"] is None:
        return None
    return {
        "records": [evaluation_records(benchmark) for benchmark in BENCHMARKS],
        "settings": predict_settings(run),
        "left_out": "results/scenes/left_out/val.json",
    }


def evaluation_files(wildcards):
    """The files that an evaluation on the way reads."""
    section = evaluation_on_the_way(wildcards.run)
    if section is None:
        return []
    shards = expand("results/scenes/shards/{shard}.json", shard=split_shards("val"))
    return section["records"] + shards


def evaluation_gate(wildcards):
    """What an evaluation on the way waits for: that enough val scenes can be used."""
    section = evaluation_on_the_way(wildcards.run)
    return [] if section is None else section["left_out"]


def recipe(run):
    """What shapes a run: its sections, but how it is carried out."""
    return {name: part for name, part in RESOLVED[run].items() if name != "execution"}


def execution(wildcards):
    """How a run is carried out, as JSON; a resource, whose change makes nothing stale."""
    return json.dumps(RESOLVED[wildcards.run]["execution"])


onstart:
    # Neither for a dry run nor for a job's own process; the table not with --quiet.
    changed = code_changes(Path("results"))
    if changed:
        logger.warning(f"threedrs: {changed}")
    logger.info(what_scans_have(), extra={"quietness": Quietness.PROGRESS})


onerror:
    # What Slurm refused or ended, and the setting to change; elsewhere nothing.
    for line in explain_failures(log):
        logger.error(line)
