"""What several GPUs of one machine bring to extraction and to prediction, against one of them.

    python benchmarks/several_gpus.py extract FOLDER --gpus 1,2
    python benchmarks/several_gpus.py predict FOLDER --gpus 1,2 --model results/train/3drs/model

``extract`` runs the workflow's own rule on generated scans, with VGGT-1B's sizes and random
weights: `snakemake --resources gpu=N` for each N, one job a shard. Each job starts Python, reads
and hashes the weights and loads what the compiler kept, and all of that counts. A first shard fills
the compiler's cache and does not count. ``predict`` starts `threedrs.predict` on N ranks on
generated scenes and compares the bytes of the answers. FOLDER keeps scans, scenes and weights for
the next call.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from generated_run import REPOSITORY, record, scene_name, write_inputs
from harness import choose_device, device_name, random_vggt
from threedrs.io.files import read_json, sha256_of_file
from threedrs.tasks.prediction import meta_path
from threedrs.tasks.record import write_records
from threedrs.teachers.feature_store import MANIFEST, open_scene

LOST = 8  # frames more than a scene shows, because a generated scan loses some poses
FEATURES = Path("results/features")
# What a rank says after each scene: scenes, questions, and questions a second since its start.
TOLD = re.compile(r"(\d+) of (\d+) scenes, (\d+) of \d+ questions, ([\d.]+) a second")
TIMES = Path("results/benchmarks/extract_features")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("extract", "predict"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs, each measured by itself")
    parser.add_argument("--scenes", type=int, default=24, help="of a shard, or asked about")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--shards", type=int, default=4, help="of extraction")
    parser.add_argument("--teacher", default="vggt", choices=("vggt", "vggt-tiny"))
    parser.add_argument(
        "--prepare", action="store_true", help="make scans and the compiler's cache, and end there"
    )
    parser.add_argument("--model", type=Path, help="folder of the model that predicts")
    parser.add_argument("--questions", type=int, default=66, help="of a scene")
    parser.add_argument("--tokens", type=int, default=16, help="most tokens of an answer")
    return parser.parse_args()


def run(program: list[str], folder: Path, log: Path) -> None:
    """Run a Python ``program`` in ``folder``, what it prints to ``log``."""
    paths = [str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", *program]
    with log.open("w") as out:
        ended = subprocess.run(
            command, cwd=folder, env=environment, stdout=out, stderr=out, check=False
        )
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: see {log}\n{log.read_text()[-2000:]}")


def snakemake(arguments: argparse.Namespace, gpus: int, name: str, targets: list[str]) -> None:
    """Make ``targets`` with ``gpus`` GPUs."""
    folder = arguments.folder
    program = ["snakemake", "-s", str(REPOSITORY / "Snakefile"), "-d", str(folder)]
    program += ["--cores", str(max(8 * gpus, os.cpu_count() or 1)), "--resources", f"gpu={gpus}"]
    program += ["--scheduler", "greedy", "--configfile", str(folder / "extract.yaml"), "--"]
    run([*program, *targets], folder, folder / f"{name}.log")


def write_settings(arguments: argparse.Namespace) -> None:
    """Write the configuration, and a checkpoint with random weights unless it is there."""
    folder = arguments.folder
    teacher = {"name": arguments.teacher, "scenes_per_shard": arguments.scenes}
    if arguments.teacher == "vggt":
        teacher["weights"] = str(folder / "vggt.pt")
        if not (folder / "vggt.pt").exists():
            state = random_vggt({}, choose_device()).state_dict()
            named = {f"aggregator.{name}": value.cpu() for name, value in state.items()}
            torch.save(named, folder / "vggt.pt")
    # 40 rooms are held out, or three of seven where there are few (threedrs.demo.write).
    trained = arguments.shards * arguments.scenes
    rooms = max(trained * 7 // 4, 2) if trained < 54 else trained + 40
    config = {
        "data": {
            "demo": {"scenes": rooms, "frames": arguments.frames + LOST},
            "scenes_per_shard": arguments.scenes,
        },
        "frames": {"stride": 1, "count": arguments.frames},
        "teacher": teacher,
    }
    (folder / "extract.yaml").write_text(yaml.safe_dump(config))


def scene_seconds(store: Path) -> list[float]:
    """Return what each scene of a feature store took, as its job says."""
    scenes = read_json(store / MANIFEST)["scenes"]
    return [open_scene(store, scene).attributes["seconds"] for scene in scenes]


def extract(arguments: argparse.Namespace, counts: list[int]) -> list[dict[str, Any]]:
    """Return the scenes a second through the workflow for each number of GPUs."""
    folder = arguments.folder
    write_settings(arguments)
    shards = [f"train-{number:03d}" for number in range(arguments.shards)]
    snakemake(arguments, 1, "scans", [f"results/scenes/shards/{shard}.json" for shard in shards])
    made = [FEATURES / arguments.teacher / f"{shard}.zarr/manifest.json" for shard in shards]
    targets = [str(path) for path in made]
    if not (folder / "warm-up.log").exists():
        snakemake(arguments, 1, "warm-up", targets[:1])
    rows: list[dict[str, Any]] = []
    for gpus in [] if arguments.prepare else counts:
        for path in (FEATURES, TIMES):
            shutil.rmtree(folder / path, ignore_errors=True)
        snakemake(arguments, gpus, f"extract-{gpus}", targets)
        # From the start of the first job to the end of the last: Snakemake's own start is the same
        # for one shard and for all those of ScanNet.
        ends = {path: path.stat().st_mtime for path in (folder / TIMES).rglob("*.tsv")}
        took = {path: float(path.read_text().splitlines()[1].split()[0]) for path in ends}
        seconds = max(ends.values()) - min(ends[path] - took[path] for path in ends)
        taken = [s for path in made for s in scene_seconds(folder / path.parent)]
        # The first scene of a job waits for the model and the compiler, so it belongs to the start.
        scene = statistics.median(taken)
        row = {"gpus": gpus, "scenes": len(taken), "rate": len(taken) / seconds, "seconds": seconds}
        row |= {"jobs' seconds": sorted(took.values()), "a scene": scene}
        row["a job's start"] = (sum(took.values()) - scene * len(taken)) / len(took)
        rows.append(row)
    return rows


def steady_rate(log: str, asked: int) -> float:
    """Return the questions a second of all ranks from the end of their first scenes on."""
    told = [(int(n), int(of), int(done), float(rate)) for n, of, done, rate in TOLD.findall(log)]
    first = [(done, done / rate) for n, _, done, rate in told if n == 1]
    ends = [done / rate for n, of, done, rate in told if n == of]
    return (asked - sum(done for done, _ in first)) / (max(ends) - max(t for _, t in first))


def predict(arguments: argparse.Namespace, counts: list[int]) -> list[dict[str, Any]]:
    """Return the questions a second, start and loading included, for each number of GPUs."""
    folder, scenes = arguments.folder, arguments.scenes
    if not (folder / "mix.jsonl").is_file():
        write_inputs(folder, scenes=scenes, frames=arguments.frames, samples=scenes)
    asked = [
        replace(record(0, scene_name(number)), id=f"{number}-{question}", references=["brown"])
        for number in range(scenes)
        for question in range(arguments.questions)
    ]
    write_records(folder / "questions.jsonl", asked)
    rows = []
    for gpus in counts:
        out = folder / f"predictions-{gpus}/predictions.jsonl"
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        launcher = ["threedrs.distributed.launch", "--gpus", str(gpus), "--cores", str(8 * gpus)]
        program = ["threedrs.predict", "--model", str(arguments.model), "--out", str(out)]
        program += [
            "--records",
            str(folder / "questions.jsonl"),
            "--scenes",
            str(folder / "scenes"),
        ]
        program += ["--settings", json.dumps({"max_new_tokens": arguments.tokens})]
        log = folder / f"predict-{gpus}.log"
        run([*launcher, *program], REPOSITORY, log)
        seconds = read_json(meta_path(out))["timing"]["seconds"]
        rows.append({"gpus": gpus, "questions": len(asked), "rate": len(asked) / seconds})
        rows[-1] |= {"seconds": seconds, "sha256": sha256_of_file(out)}
        rows[-1]["rate after the first scene"] = steady_rate(log.read_text(), len(asked))
    for row in rows:
        row["same bytes"] = row["sha256"] == rows[0]["sha256"]
    return rows


def main() -> None:
    """Measure each number of GPUs; print JSON."""
    arguments = parse()
    arguments.folder = arguments.folder.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    counts = [int(count) for count in arguments.gpus.split(",")]
    rows = {"extract": extract, "predict": predict}[arguments.what](arguments, counts)
    for row in rows:
        row["of one GPU's rate"] = row["rate"] / (rows[0]["rate"] / rows[0]["gpus"])
    report = {"command": " ".join(sys.argv), "machine": device_name(), "torch": torch.__version__}
    print(json.dumps({**report, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
