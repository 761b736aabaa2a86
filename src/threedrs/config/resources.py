"""What a job asks the machine for: GPUs, threads, memory in MB and run time in minutes.

Follows from the model's size or the teacher; a profile's set-resources and set-threads override it.
The rules ask for this, and `threedrs plan --cluster` reckons with it.
"""

from collections.abc import Callable
from typing import Any

TRAIN_NEEDS: dict[str, dict[str, int]] = {
    "tiny": {"gpu": 1, "threads": 1, "mem_mb": 4000, "runtime": 120},
    "mini": {"gpu": 1, "threads": 1, "mem_mb": 4000, "runtime": 120},
    "small": {"gpu": 1, "threads": 4, "mem_mb": 16000, "runtime": 60},
    "7b": {"gpu": 8, "threads": 64, "mem_mb": 512000, "runtime": 2880},
}
PREDICT_NEEDS: dict[str, dict[str, int]] = {
    "tiny": {"gpu": 1, "threads": 1, "mem_mb": 3000, "runtime": 60},
    "mini": {"gpu": 1, "threads": 1, "mem_mb": 3000, "runtime": 60},
    "small": {"gpu": 1, "threads": 2, "mem_mb": 8000, "runtime": 60},
    "7b": {"gpu": 1, "threads": 8, "mem_mb": 64000, "runtime": 720},
}
# Kinds of GPU by name: dense bfloat16 operations a second (sums in float32), from the makers' data
# sheets, and memory in GB (1e9 bytes). The memory is what the driver reports, as a training has to
# fit in that, and a data sheet's number is little more than a name: an H200 of "141 GB" has 139.8
# GiB, those of "80 GB" have 79.2, L40S 44.4 and RTX4090 23.6 GiB.
# Names are texts in YAML too, which reads 4090 as a number.
GPUS: dict[str, tuple[float, float]] = {
    "A100": (312e12, 85.0),
    "H100": (989e12, 85.0),
    "H200": (989e12, 150.1),
    "L40S": (362e12, 47.7),
    "RTX4090": (165e12, 25.3),
}
# Other rules: Snakemake's own default, and that of slurm/config.yaml for memory and run time.
USUAL_NEEDS: dict[str, int] = {"gpu": 0, "threads": 1, "mem_mb": 3000, "runtime": 240}


def train_ranks(size: str, override: Callable[[str, int], Any]) -> int | None:
    """Return how many ranks a training job starts (`threedrs.distributed.launch`); None: not known.

    ``override`` gives for a resource and what the rule asks for what is in force, if that is known.
    """
    tasks = override("tasks", 1)
    if not isinstance(tasks, int):
        return None
    if tasks > 1:
        return tasks
    gpus = override("gpu", TRAIN_NEEDS[size]["gpu"])
    return max(1, gpus) if isinstance(gpus, int) else None
