"""Memory of reading a large .sens: an index and one frame, whatever the file's size."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from fixtures.sens_files import make_header, picture
from threedrs.scannet.sens import SensWriter

SCRIPT = """
import sys
from pathlib import Path
from threedrs.scannet.sens import SensReader

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

before = peak()
with SensReader(Path(sys.argv[1])) as reader:
    frames = len(reader)
    reader.color(frames - 1), reader.depth(frames - 1)
print(frames, peak() - before)
"""


def test_indexing_200_megabytes_costs_less_than_100(tmp_path: Path) -> None:
    path = tmp_path / "large.sens"
    size = (640, 480)
    header = make_header(
        depth_compression="raw",
        depth_width=size[0],
        depth_height=size[1],
    )
    depth = np.random.default_rng(0).integers(0, 5000, size[::-1]).astype(np.uint16)
    with SensWriter.create(path, header) as writer:
        for _ in range(330):
            writer.add(np.eye(4), picture(0), depth)
    assert path.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True
    )
    frames, grown = map(int, done.stdout.split())
    assert frames == 330
    assert grown < 100_000  # kB
