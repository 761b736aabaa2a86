"""The paper's run at full size, through its own command: start, crash, resume, export.

    python benchmarks/paper_run.py FOLDER --gpus 4

FOLDER gets generated scenes with teacher features of 2,048 channels (see generated_run.py) and the
run of config/paper.yaml on them, with ``model.random_weights: true`` in place of the checkpoint.
Then it is trained twice with the command's own stages timed (timed_training.py):

1. it trains, saves its checkpoint after ``--save-every`` steps, makes one step more, is asked to
   stop, as a scheduler does before a job's time is over, and all of its processes are killed while
   it saves the next;
2. it goes on from the checkpoint, whose files it verifies, on ``--resume-gpus`` GPUs; the row of
   the step that is made twice is compared (bitwise equal on as many CPUs; on a GPU, or on another
   number of ranks, sums may add in another order); it ends after ``--steps``, saves and exports.
   ``--resume-set`` says how the second one is executed (`execution` of the configuration), such as
   with fewer kept layers.

Last, the exported model is loaded. At 7B a checkpoint is 97 GB and two of them are there at a time,
beside the model of 16 GB: FOLDER needs 215 GB.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from generated_run import REPOSITORY, write_inputs, write_run
from threedrs.config.schema import Execution
from threedrs.training.run_log import growing_log, read_rows

COMPARED = ("loss", "text", "grounding", "supervision", "grad_norm", "lr")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gpus", type=int, default=4, help="ranks; without GPUs they run on CPU")
    parser.add_argument("--size", default="7b", choices=("tiny", "7b"))
    parser.add_argument("--scenes", type=int, default=64, help="as many as FOLDER holds, if any")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--save-every", type=int, default=3, help="steps before the checkpoint")
    parser.add_argument("--steps", type=int, help="in all; default: one more than --save-every")
    parser.add_argument("--seconds", type=float, default=600, help="most time of each command")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=JSON", help="of training"
    )
    parser.add_argument("--resume-gpus", type=int, help="ranks that go on; default: --gpus")
    parser.add_argument(
        "--resume-set", action="append", default=[], metavar="KEY=JSON", help="of execution"
    )
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> Path:
    """Write the inputs, unless they are there, and the resolved run; return its path."""
    if not (arguments.folder / "mix.jsonl").is_file():
        write_inputs(
            arguments.folder,
            scenes=arguments.scenes,
            frames=arguments.frames,
            samples=96 * arguments.scenes,  # four full packs of 8 of each kind a scene
        )
    train = {"max_steps": arguments.steps or arguments.save_every + 1}
    execution = {"save_every": arguments.save_every, "keep": 1, "log_every": 1}
    for item in arguments.set:
        key, _, value = item.partition("=")
        (execution if key in Execution.model_fields else train)[key] = json.loads(value)
    model = {"size": arguments.size, "path": None, "random_weights": arguments.size == "7b"}
    return write_run(
        arguments.folder,
        scenes=arguments.scenes,
        overrides={
            "model": model,
            "train": train,
            "execution": execution,
            "frames": {"count": arguments.frames},
        },
        configfile=REPOSITORY / "config/paper.yaml",
    )


def start(gpus: int, config: Path, changed: Sequence[str] = ()) -> subprocess.Popen:
    """Start the timed training on ``gpus`` GPUs; ``changed`` are KEY=JSON of execution."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [f"--nproc-per-node={gpus}", "benchmarks/timed_training.py", "--config", str(config)]
    execution = {
        key: json.loads(value) for key, _, value in (each.partition("=") for each in changed)
    }
    command = [*launcher, *program, "--execution", json.dumps(execution)]
    print("$", " ".join(command), flush=True)
    return subprocess.Popen(command, cwd=REPOSITORY)


def family_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Return a launcher and everything it has started."""
    launcher = psutil.Process(process.pid)
    return [launcher, *launcher.children(recursive=True)]


def kill(process: subprocess.Popen, family: Sequence[psutil.Process] = ()) -> None:
    """Kill a launcher and everything it started, ``family`` at once, as a node that goes down."""
    kill_all(family)
    if process.poll() is None:
        family = [*family, *family_of(process)]
        kill_all(family)
        process.wait()
    psutil.wait_procs(family[1:], timeout=30)


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kill those of the processes that still run."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def saving_after(out: Path, step: int) -> bool:
    """Return whether the run in ``out`` is saving a checkpoint of a later step than ``step``."""
    unfinished = (out / "checkpoints").glob(".step-*.tmp")
    return any(int(path.stem.removeprefix(".step-")) > step for path in unfinished)


def crash(arguments: argparse.Namespace, config: Path, out: Path) -> dict[str, Any]:
    """Train, and kill the run while it saves its last checkpoint; return its rows and times."""
    began = time.perf_counter()
    process = start(arguments.gpus, config)
    log, asked = growing_log(out), False
    seen: dict[int, float] = {}
    family: list[psutil.Process] = []
    try:
        while not saving_after(out, arguments.save_every):
            if process.poll() is not None or time.perf_counter() - began > arguments.seconds:
                raise SystemExit(f"{config}: the run ended, or took too long, before it was killed")
            for row in read_rows(log):
                seen.setdefault(row["step"], round(time.perf_counter() - began, 1))
            if seen and not family:  # a small checkpoint is saved before a list is made
                family = family_of(process)
            if not asked and max(seen, default=0) > arguments.save_every:
                process.terminate()  # torchrun hands it on to its ranks, which save and end
                asked = True
            time.sleep(0.002)
    finally:
        kill(process, family)
    rows = read_rows(log)
    seen.setdefault(rows[-1]["step"], round(time.perf_counter() - began, 1))
    return {"rows": rows, "seconds_until_step": seen}


def load_export(folder: Path) -> None:
    """Load the model in ``folder``; print its parameters and whether all of them are finite."""
    from threedrs.models.checkpoint.load_save import load_student
    from threedrs.models.model_settings import ModelSettings

    began = time.perf_counter()
    student, _ = load_student(ModelSettings(path=folder))
    finite = all(bool(parameter.isfinite().all()) for parameter in student.parameters())
    count = sum(parameter.numel() for parameter in student.parameters())
    seconds = round(time.perf_counter() - began, 1)
    print(json.dumps({"parameters": count, "finite": finite, "seconds": seconds}))


def read_timings(out: Path) -> list[dict[str, Any]]:
    """Return what timed_training.py noted of each rank; remove it."""
    files = sorted(out.glob("timings-*.json"))
    found = [json.loads(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    return found


def gigabytes(folder: Path) -> float:
    """Return the size of the files in ``folder``."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e9, 2)


def main() -> None:
    """Prepare, crash, resume, compare, load; print JSON."""
    arguments = parse()
    config = prepare(arguments)
    out = arguments.folder / "run"
    if out.exists():
        shutil.rmtree(out)
    first = crash(arguments, config, out)
    print(json.dumps(first), flush=True)
    (checkpoint,) = [path for path in (out / "checkpoints").iterdir() if path.name[:4] == "step"]
    report: dict[str, Any] = {
        "command": " ".join(["benchmarks/paper_run.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "seconds_until_step": first["seconds_until_step"],
        "checkpoint_gb": gigabytes(checkpoint),
        "peak_memory_gib": json.loads((checkpoint / "manifest.json").read_text())[
            "peak_memory_gib"
        ],
    }
    report["ranks_before"] = read_timings(out)
    print(json.dumps(report), flush=True)  # whatever becomes of the second half
    began = time.perf_counter()
    process = start(arguments.resume_gpus or arguments.gpus, config, arguments.resume_set)
    try:
        status = process.wait(timeout=arguments.seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        status = -1
    report |= {"resumed_status": status, "resumed_seconds": round(time.perf_counter() - began, 1)}
    report["ranks"] = read_timings(out)
    crashed = first["rows"][-1]
    resumed = {row["step"]: row for row in read_rows(growing_log(out))}.get(crashed["step"], {})
    report["step_made_twice"] = {
        key: [crashed[key], resumed.get(key)] for key in ("step", *COMPARED)
    }
    report["equal"] = {key: crashed[key] == resumed.get(key) for key in COMPARED}
    if status == 0:
        report["train.json"] = json.loads((out / "train.json").read_text())
        report["export_gb"] = gigabytes(out / "model")
        code = "import sys; from pathlib import Path; from paper_run import load_export; "
        loaded = subprocess.run(
            [sys.executable, "-c", code + "load_export(Path(sys.argv[1]))", str(out / "model")],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        report["loaded"] = loaded.stdout.strip() or loaded.stderr[-500:]
    print(json.dumps(report, indent=2), flush=True)


if __name__ == "__main__":
    main()
