"""The workflow's jobs and what each costs, with the dependencies that the Snakefile has.

A job's seconds are its computing or its reading and writing at the storage's full rate, whichever
takes longer, after a start. Figures are measured at 32 frames and scale with their number. Not
counted: downloads, demo data, evaluation while a run trains.
"""

from collections.abc import Iterator, Mapping

from threedrs.config.load import data_layout
from threedrs.config.resources import TEACHER_NEEDS, USUAL_NEEDS
from threedrs.errors import ConfigError
from threedrs.inputs.required_files import conversions, shards
from threedrs.planning.cluster.figures import MEASURED_PEAK, figure
from threedrs.planning.cluster.runs import run_jobs
from threedrs.planning.cluster.schedule import Job
from threedrs.planning.cluster.workload import RULES, Workload, built, extracted, make_job
from threedrs.planning.disk import PATCHES, channels_of
from threedrs.planning.training import Plan
from threedrs.scannet.layout import scene_split
from threedrs.teachers.registry import TEACHERS


def check_figures(work: Workload) -> None:
    """Check that there are figures for every run, and that the cluster names rules.

    Raises:
        ConfigError: a run is not of size 7b; a rule of the cluster's needs does not exist.
    """
    for rule in work.cluster.needs:
        if rule not in RULES:
            raise ConfigError(
                f"cluster: needs.{rule} is no rule; choose one of: {', '.join(RULES)}"
            )
    for name, run in work.runs.items():
        if run["model"]["size"] != "7b":
            raise ConfigError(
                f"runs.{name}: model.size {run['model']['size']} has no measured figures; "
                "plan a run of size 7b, e.g. with --configfile config/paper.yaml"
            )


def workflow_jobs(work: Workload, plans: Mapping[str, Plan]) -> list[Job]:
    """Return every job of ``snakemake all`` on ScanNet; ``plans`` are those of the trainings."""
    return [
        *_scene_jobs(work),
        *_feature_jobs(work),
        *_instruction_jobs(work),
        *run_jobs(work, plans),
    ]


def _scene_jobs(work: Workload) -> Iterator[Job]:
    core, listed = work.cluster.core_speed, data_layout(work.config).candidates is not None
    if listed:
        for split in work.scenes:
            seconds = figure("candidates, s a split") / core
            large = USUAL_NEEDS | {"mem_mb": 16000}
            yield make_job(work, "candidates", f"candidates/{split}", seconds, usual=large)
    store = figure("scene store, GB") * work.frames
    for shard, scenes in work.scene_shards.items():
        count, split = len(scenes), shard.partition("-")[0]
        seconds = count * figure("boxes, s a scene") / core
        read = count * figure("mesh, annotation and proposals, GB")
        yield make_job(work, "boxes", f"boxes/{shard}", seconds, read=read)
        yield make_job(
            work,
            "build_scenes",
            f"build_scenes/{shard}",
            count * figure("scene store, s a scene") * work.frames / core,
            [f"boxes/{shard}", *([f"candidates/{split}"] if listed else [])],
            read=count * figure("scan, GB"),
            written=count * store,
            kept=count * store,
        )
        seconds = count * figure("facts, s a scene") / core
        after = [f"build_scenes/{shard}"]
        yield make_job(
            work, "scene_facts", f"scene_facts/{shard}", seconds, after, read=count * store
        )
    for split in work.scenes:
        yield make_job(work, "check_scenes", f"check_scenes/{split}", 1, built(work, split))
        after = [f"check_scenes/{split}"]
        yield make_job(work, "check_limit", f"check_limit/{split}", 1, after)
    facts = [f"scene_facts/{shard}" for shard in work.scene_shards]
    yield make_job(work, "scene_report", "scene_report", figure("reports, s a run") / core, facts)


def _feature_jobs(work: Workload) -> Iterator[Job]:
    size = work.config["teacher"]["scenes_per_shard"]
    of_shard = {scene: shard for shard, scenes in work.scene_shards.items() for scene in scenes}
    parts = list(shards("train", work.scenes["train"], size).values())
    for teacher in sorted(set(work.teachers.values()) - {"none"}):
        known = "VGGT, s a scene" if teacher == "vggt" else "another teacher, s a scene"
        for name, scenes in zip(extracted(work, teacher), parts, strict=True):
            seconds = figure("VGGT, s to start") + len(scenes) * figure(known) * work.frames
            on_gpu = TEACHERS[teacher].on_gpu
            speed = work.cluster.peak / MEASURED_PEAK if on_gpu else work.cluster.core_speed
            features = len(scenes) * figure("features, GB a scene") * work.frames
            features *= channels_of(teacher) / 2048
            features *= PATCHES[work.config["teacher"]["grid"]] / PATCHES[14]
            yield make_job(
                work,
                "extract_features",
                name,
                seconds / speed,
                sorted({f"build_scenes/{of_shard[scene]}" for scene in scenes}),
                TEACHER_NEEDS[teacher],
                read=len(scenes) * figure("scene store, GB") * work.frames,
                written=features,
                kept=features,
            )


def _instruction_jobs(work: Workload) -> Iterator[Job]:
    core, benchmarks = work.cluster.core_speed, work.config["instructions"]["benchmarks"]
    for benchmark, split in conversions(work.config):
        scenes = scene_split(split)
        seconds = figure("conversion, s of 223,128 records") / core
        after = [f"boxes/{s}" for s in work.scene_shards if s.startswith(scenes)]
        name = f"convert_instructions/{benchmark}_{split}"
        yield make_job(work, "convert_instructions", name, seconds, after)
    for mix in work.config["instructions"]["mixes"]:
        seconds = figure("mix, s of 223,128 records") / core
        after = [f"convert_instructions/{benchmark}_train" for benchmark in benchmarks]
        after += [*built(work, "train"), "check_scenes/train"]
        yield make_job(work, "balance", f"balance/{mix}", seconds, after)
