"""The full-scale DAG: how long `snakemake -n all` takes, in how much memory, and for how many jobs.

    python benchmarks/scale.py FOLDER --runs base       the paper's run and its baseline
    python benchmarks/scale.py FOLDER --runs study      3 backbones x 5 teachers x 3 seeds = 45 runs
                                                        and the 9 baselines without a teacher
    python benchmarks/scale.py FOLDER --profile slurm   with the cluster profile's settings
    python benchmarks/scale.py FOLDER --finished        with all results there and recorded: nothing
                                                        to do, then one run's loss weight changed,
                                                        then what one cluster job pays to start

FOLDER gets a copy of this checkout's workflow and a ScanNet of 1,201 + 312 scenes whose files have
the right names and no content (a gigabyte for .sens and checkpoints, as holes of sparse files).
Nothing is computed: every Snakemake call is a dry run, but for one with ``--touch`` where results
are to be there: they are made empty, and it records them (about 0.2 s a job). Prints JSON.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from machine import machine
from threedrs.models.backbones.known_backbones import find_family
from threedrs.scannet.layout import DataLayout
from threedrs.tasks.registry import TASKS, annotation_files

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config", "envs", "profiles", "slurm", "src", "workflow")
SPLITS = {"train": 1201, "val": 312}
BACKBONES = ("llava-video", "llava-onevision", "qwen2-vl")
TEACHERS = ("vggt", "dinov2", "siglip2", "mae", "pointmap")
SEEDS = (42, 43, 44)
GIGABYTE = 10**9


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="made, or used again")
    parser.add_argument("--runs", choices=("base", "study"), default="base")
    parser.add_argument("--scenes", type=int, nargs=2, default=[*SPLITS.values()])
    parser.add_argument("--profile", help="e.g. slurm")
    parser.add_argument("--finished", action="store_true", help="with every result there")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def runs(which: str) -> dict[str, dict[str, Any]]:
    """Return the table of runs: name -> overrides."""
    if which == "base":
        return {"3drs": {}, "baseline": {"teacher": {"name": "none"}}}
    return {
        f"{backbone}-{teacher}-{seed}": {
            "model": {"name": backbone, "path": f"data/models/{backbone}"},
            "teacher": {"name": teacher},
            "train": {"seed": seed},
        }
        for backbone in BACKBONES
        for teacher in (*TEACHERS, "none")
        for seed in SEEDS
    }


def configuration(which: str) -> dict[str, Any]:
    """Return what goes on top of config/config.yaml: the paper's run with this table of runs."""
    config = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text(encoding="utf-8"))
    table = runs(which)
    baseline = next(name for name, part in table.items() if part.get("teacher") == {"name": "none"})
    weights = {"vggt": config["teacher"]["weights"]}
    return config | {
        "teacher": config["teacher"] | {"weights": weights},
        "runs": table,
        "report": config["report"] | {"baseline": baseline},
    }


def write_checkout(folder: Path, config: dict[str, Any], scenes: dict[str, int]) -> None:
    """Copy the workflow to ``folder`` and write its configuration and its data without content."""
    for part in PARTS:
        source, target = REPOSITORY / part, folder / part
        if target.is_dir():
            shutil.rmtree(target)
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, target, ignore=ignore)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    write_config(folder, config)
    # The demo's two runs stand in config.yaml, and Snakemake merges tables: they would stay.
    base = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    base["runs"] = {}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    layout = DataLayout(root=folder / config["data"]["root"])
    for path, size in data_files(layout, folder, config, scenes):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.touch()
            os.truncate(path, size)
    for name, backbone in checkpoints(config).items():
        described = {"model_type": find_family(backbone).model_type}
        (folder / name / "config.json").write_text(json.dumps(described), encoding="ascii")
    for split, names in scene_names(scenes).items():
        layout.split_file(split).write_text("\n".join(names) + "\n", encoding="ascii")


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write what goes on top of config/config.yaml."""
    (folder / "scale.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def checkpoints(config: dict[str, Any]) -> dict[str, str]:
    """Return folder -> backbone of each checkpoint that the runs start from."""
    models = [run.get("model", config["model"]) for run in config["runs"].values()]
    return {model["path"]: model["name"] for model in models}


def scene_names(scenes: dict[str, int]) -> dict[str, list[str]]:
    """Return the names of the scenes of each split."""
    names = [f"scene{number:04d}_00" for number in range(sum(scenes.values()))]
    train = scenes["train"]
    return {"train": names[:train], "val": names[train:]}


def data_files(
    layout: DataLayout, folder: Path, config: dict[str, Any], scenes: dict[str, int]
) -> Iterator[tuple[Path, int]]:
    """Yield each file of the data set and its size in bytes."""
    for scene in (scene for names in scene_names(scenes).values() for scene in names):
        scan = layout.scan(scene)
        yield scan.sens, GIGABYTE
        for path in (scan.mesh, scan.segments, scan.aggregation, scan.meta, scan.proposals):
            yield path, 0
    yield layout.labels_file, 0
    for name in TASKS:
        for path in annotation_files(layout, name):
            yield path, 0
    yield folder / config["teacher"]["weights"]["vggt"], GIGABYTE
    for checkpoint in checkpoints(config):
        yield folder / checkpoint / "model.safetensors", 0


def snakemake(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run Snakemake in ``folder``; return wall and CPU seconds, peak memory and what it said.

    Peak memory, MB, is that of the largest child process so far: the results' recording, if any.
    """
    command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "scale.yaml"]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if said.returncode:
        raise SystemExit(f"snakemake {' '.join(arguments)}:\n{said.stdout[-3000:]}{said.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(after.ru_maxrss / 1024),
        "said": said.stdout,
    }


def job_counts(said: str) -> dict[str, int]:
    """Return rule -> jobs from what a dry run with ``-q rules`` printed."""
    rows = [line.split() for line in said.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def touch_results(folder: Path) -> None:
    """Make every result, empty, and let Snakemake record them as made by today's workflow."""
    listed = snakemake(folder, "all", "-n", "--summary")["said"].splitlines()[1:]
    for line in listed:
        path = folder / line.split("\t")[0]
        if path.name == "model" or (path.parent.name == "report" and not path.suffix):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    snakemake(folder, "all", "--touch", "--forceall", "--cores", "1", "-q", "rules")


def dry_run(folder: Path, *arguments: str, repeats: int = 1) -> dict[str, Any]:
    """Return jobs by rule, seconds of each repeat and peak memory of a dry run."""
    found = [snakemake(folder, *arguments, "-n", "-q", "rules") for _ in range(repeats)]
    return {
        "jobs": job_counts(found[0]["said"]),
        "seconds": [one["seconds"] for one in found],
        "cpu_seconds": [one["cpu_seconds"] for one in found],
        "peak_mb": found[-1]["peak_mb"],
    }


def finished(folder: Path, config: dict[str, Any], options: list[str], repeats: int) -> dict:
    """Return the dry runs with all results there: unchanged, one run changed, one job's own."""
    touch_results(folder)
    found = {"unchanged": dry_run(folder, "all", *options, repeats=repeats)}
    # As a job's own Snakemake process on a node finds its job.
    one = ["--target-jobs", "balance:mix=full", "--allowed-rules", "balance", "--force", "--nolock"]
    found["one job"] = dry_run(folder, *one, repeats=repeats)
    changed = next(iter(config["runs"].values()))
    changed["supervision"] = {"weight": 0.5}
    write_config(folder, config)
    return found | {"one run changed": dry_run(folder, "all", *options, repeats=repeats)}


def main() -> None:
    """Write the checkout, measure, print JSON."""
    arguments = parse()
    scenes = dict(zip(SPLITS, arguments.scenes, strict=True))
    config = configuration(arguments.runs)
    write_checkout(arguments.folder, config, scenes)
    options = ["--profile", arguments.profile] if arguments.profile else []
    report: dict[str, Any] = {
        "command": " ".join(["benchmarks/scale.py", *sys.argv[1:]]),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "runs": len(config["runs"]),
        "scenes": scenes,
    }
    if arguments.finished:
        report |= finished(arguments.folder, config, options, arguments.repeats)
    else:
        report["everything"] = dry_run(arguments.folder, "all", *options, repeats=arguments.repeats)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
