"""What the stages cost, each figure with its source.

``MEASURED`` names the section of benchmarks/RESULTS.md and the numbers written there from which a
figure follows, and a test looks them up. ``ASSUMED`` holds what was not measured, with the reason
for the number, and the plan of a cluster prints these. Gigabytes are 10^9 bytes. Seconds are those
of the machine that RESULTS.md names, an H100 or H200, or one core of a shared Intel Xeon. Figures
of scenes hold for 32 frames.
"""

from threedrs.planning import disk
from threedrs.planning.training import PEAK, REACHED, ZERO3_STEP

_TEACHER = "Teacher: VGGT-1B on one GPU"
_INFERENCE = "Scene-shared inference"
_CPU = "Stages on the CPU"

# Name -> value, section, what is written there.
MEASURED: dict[str, tuple[float, str, tuple[str, ...]]] = {
    # A scan of 0.4 GB, a quarter of 4 scans. Longer ones hardly cost more: frames are skipped.
    "scene store, s a scene": (14.7 / 4, _CPU, ("14.7 s",)),
    "VGGT, s a scene": (0.361, _TEACHER, ("**0.361**",)),
    # Of a whole job: imports, weights and compiled kernels, which a warm process has behind it.
    "VGGT, s to start": (23.0, _TEACHER, ("a job's start", "| 23.0 s |")),
    "features, GB a scene": (0.0257, _CPU, ("25.7 MB",)),
    "conversion, s of 223,128 records": (7.3, _CPU, ("conversion 7.3 s",)),
    "mix, s of 223,128 records": (10.6, _CPU, ("mix of all 10.6 s",)),
    "training, share of the peak, recomputation counted": (
        REACHED,
        "Student: whole steps under ZeRO-3",
        ("44 % of the peak", "| 33.2 % |", "| 43.4 % |"),
    ),
    "training, s of a step beside its packs": (
        ZERO3_STEP,
        "Student: whole steps under ZeRO-3",
        ("0.12 s a step",),
    ),
    "prediction, s of a scene's prefix": (0.208, _INFERENCE, ("| 0.208 |",)),
    "prediction, s a question": (0.073 / 66, _INFERENCE, ("| 66 |", "| 0.073 |")),
    "prediction, s a token step": (0.00664, _INFERENCE, ("**6.64**",)),
    "scoring, s of all five benchmarks": (21.6, _CPU, ("**21.6**",)),
    "answers without looking, s": (140.0, _CPU, ("about **140** s",)),
    "seeds, points of ScanRefer Acc@0.25": (
        3.8,
        "Does it learn?",
        ("4.5 and 2.9 points", "counts with 3.8"),
    ),
    "start of a job, CPU s": (2.5, "At full scale: the DAG", ("| 2.5 |", "one job")),
}
# Name -> value, why it is this one.
ASSUMED: dict[str, tuple[float, str]] = {
    "boxes, s a scene": (3, "a mesh, its segments and 50 masks, one core"),
    "facts, s a scene": (4, "images of a room, one core"),
    "candidates, s a split": (120, "one large pickle"),
    "reports, s a run": (20, "resampling and images; 5 s for the demo's two"),
    "METEOR, s a benchmark": (120, "scoring was measured without it"),
    "another teacher, s a scene": (0.361, "as VGGT, which is the largest"),
    "start of training, s": (180, "imports, weights spread, kernels"),
    "start of prediction, s": (40, "imports and kernels"),
    "queue, s a job": (10, "Slurm's scheduling and status checks"),
    "answer tokens of the slowest question": (64, "captions are the longest"),
    "scan, GB": (2.5e6 / 1513 * 4.01 / 6120, "ScanNet's 2.5 million frames at the size measured"),
    "mesh, annotation and proposals, GB": (0.02, "ScanNet's usual sizes"),
    "scene store, GB": (32 * disk.FRAME_BYTES / disk.GIGABYTE, "array shapes at 32 frames"),
    "pixels of a sample, GB": (0.0142, "32 frames of 384 x 384 x 3 bytes"),
    "checkpoint, bytes a trained parameter": (disk.CHECKPOINT_BYTES, "a weight and two moments"),
    "model, GB": (
        sum(disk.PARAMETERS["7b"].values()) * disk.EXPORTED_BYTES["7b"] / disk.GIGABYTE,
        "2 bytes a parameter, 8.12 billion",
    ),
}
MEASURED_FRAMES = 32
MEASURED_PEAK = PEAK

SCANNET = {"train": 1201, "val": 312}  # scenes of the published splits
QUESTIONS = (5000, 141)  # and their scenes, of a benchmark whose published size is not known


def figure(name: str) -> float:
    """Return the figure of this name, measured or assumed."""
    return (MEASURED[name] if name in MEASURED else ASSUMED[name])[0]
