"""The table of benchmarks' annotations. A new one is a file beside this one and a row here.

What else a benchmark needs: `threedrs.evaluation`.
"""

from pathlib import Path

from threedrs.errors import ConfigError
from threedrs.instructions import multi3drefer, scan2cap, scanqa, scanrefer, sqa3d
from threedrs.instructions.benchmark import Benchmark
from threedrs.scannet.layout import DataLayout

# In the order of the training mix, which is the paper's.
BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (scanrefer, multi3drefer, scan2cap, scanqa, sqa3d)
}

# The split that each benchmark's published scores are for.
EVALUATION_SPLITS: dict[str, str] = {
    name: benchmark.evaluation_split for name, benchmark in BENCHMARKS.items()
}


def find_benchmark(name: str, split: str) -> Benchmark:
    """Return the benchmark ``name``, which must have ``split``.

    Raises:
        ConfigError: there is no such benchmark, or it has no such split.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark {name!r}; choose one of: {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    if split not in benchmark.splits:
        choices = ", ".join(benchmark.splits)
        raise ConfigError(f"{name} has no split {split!r}; choose one of: {choices}")
    return benchmark


def annotation_files(layout: DataLayout, name: str, split: str | None = None) -> list[Path]:
    """Return a benchmark's annotation files; without ``split`` those to train and to evaluate on.

    Raises:
        ConfigError: there is no such benchmark or split.
    """
    benchmark = find_benchmark(name, split or "train")
    splits = [split] if split else ["train", benchmark.evaluation_split]
    return [
        layout.benchmark_folder / file.path.format(split=part)
        for part in splits
        for file in benchmark.files
    ]
