"""What the stages cost: figures with the row of benchmarks/RESULTS.md that each comes from.

A test looks every measured figure up there. ``ASSUMED`` holds what nobody measured, with the reason
for the number; the plan names them. Gigabytes are 10^9 bytes, seconds those of the machine in the
row: an H100 or H200, or one core of a shared Intel Xeon.
"""

from dataclasses import dataclass

from threedrs.planning.disk import (
    CHECKPOINT_BYTES,
    EXPORTED_BYTES,
    FRAME_BYTES,
    GIGABYTE,
    PARAMETERS,
)
from threedrs.planning.training import PEAK, REACHED


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure: ``value`` follows from the numbers ``written`` under ``heading`` in RESULTS.md."""

    value: float
    heading: str
    written: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """A figure that is not measured, and why it is this one."""

    value: float
    why: str


TEACHER = "Teacher: VGGT-1B on one GPU"
STORE = "Feature store against npz"
ZERO3 = "Student: whole steps under ZeRO-3"
INFERENCE = "Scene-shared inference"

MEASURED = {
    # A scan of 0.4 GB, a quarter of 4 scans; longer ones hardly cost more, as frames are skipped.
    "scene store, s a scene": Measured(value=14.7 / 4, heading="Scenes", written=("14.7 s",)),
    "VGGT, s a scene": Measured(value=0.362, heading=TEACHER, written=("0.362",)),
    "VGGT, s to start": Measured(
        value=8.54 - 14 * 0.362, heading=TEACHER, written=("8.54", "shard of 14")
    ),
    "features, GB a scene": Measured(value=0.0257, heading=STORE, written=("| 25.7 |",)),
    "conversion, s of 223,128 records": Measured(
        value=7.3, heading="Instructions", written=("conversion 7.3 s",)
    ),
    "mix, s of 223,128 records": Measured(
        value=10.6, heading="Instructions", written=("mix of all 10.6 s",)
    ),
    "training, share of the peak, recomputation counted": Measured(
        value=REACHED, heading=ZERO3, written=("44 % of the peak", "| 33.2 % |", "| 43.4 % |")
    ),
    "prediction, s of a scene's prefix": Measured(
        value=0.224, heading=INFERENCE, written=("| 0.224 |",)
    ),
    "prediction, s a question": Measured(
        value=0.073 / 66, heading=INFERENCE, written=("| 66 |", "| 0.073 |")
    ),
    "prediction, s a token step": Measured(value=0.0342, heading=INFERENCE, written=("| 34.2 |",)),
    "scoring, s of all five benchmarks": Measured(
        value=21.6, heading="Scoring", written=("**21.6**",)
    ),
    "start of a job, CPU s": Measured(
        value=2.5, heading="At full scale: the DAG", written=("| 2.5 |", "one job")
    ),
}

ASSUMED = {
    "boxes, s a scene": Assumed(value=3, why="a mesh, its segments and 50 masks, one core"),
    "facts, s a scene": Assumed(value=4, why="pictures of a room, one core"),
    "candidates, s a split": Assumed(value=120, why="one large pickle"),
    "reports, s a run": Assumed(value=20, why="resampling and pictures; 5 s for the demo's two"),
    "METEOR, s a benchmark": Assumed(value=120, why="scoring was measured without it"),
    "another teacher, s a scene": Assumed(value=0.362, why="as VGGT, which is the largest"),
    "start of training, s": Assumed(value=180, why="imports, weights spread, kernels"),
    "start of prediction, s": Assumed(value=40, why="imports and kernels"),
    "queue, s a job": Assumed(value=10, why="Slurm's scheduling and status checks"),
    "answer tokens of the slowest question": Assumed(value=64, why="captions are the longest"),
    "scan, GB": Assumed(
        value=2.5e6 / 1513 * 4.01 / 6120, why="ScanNet's 2.5 million frames at the size measured"
    ),
    "mesh, annotation and proposals, GB": Assumed(value=0.02, why="ScanNet's usual sizes"),
    "scene store, GB": Assumed(value=32 * FRAME_BYTES / GIGABYTE, why="array shapes at 32 frames"),
    "pixels of a sample, GB": Assumed(value=0.0142, why="32 frames of 384 x 384 x 3 bytes"),
    "checkpoint, bytes a trained parameter": Assumed(
        value=CHECKPOINT_BYTES, why="a weight and two moments, float32"
    ),
    "model, GB": Assumed(
        value=sum(PARAMETERS["7b"].values()) * EXPORTED_BYTES["7b"] / GIGABYTE,
        why="2 bytes a parameter, 8.12 billion",
    ),
}

SCANNET = {"train": 1201, "val": 312}  # scenes of the published splits
SAMPLES = 223_128  # of the paper's mix
# Published: questions of each benchmark and the scenes that they are about.
QUESTIONS = {
    "scanrefer": (9508, 141),
    "multi3drefer": (11120, 141),
    "scan2cap": (2068, 141),
    "scanqa": (4675, 71),
    "sqa3d": (3519, 67),
}
GROUNDING = ("scanrefer", "multi3drefer")  # answered by scores of boxes, no token is generated
WITH_METEOR = ("scan2cap", "scanqa")
# Dense bfloat16 operations a second and memory in GB.
GPUS = {"H100": (PEAK, 80.0), "H200": (PEAK, 141.0), "A100": (312e12, 80.0)}
MEASURED_PEAK = PEAK


def figure(name: str) -> float:
    """Return the figure of this name, measured or assumed."""
    return (MEASURED[name] if name in MEASURED else ASSUMED[name]).value
