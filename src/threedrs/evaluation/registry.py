"""The table of benchmarks."""

from threedrs.errors import ConfigError
from threedrs.evaluation import multi3drefer, scan2cap, scanqa, scanrefer, sqa3d
from threedrs.evaluation.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        scanrefer.BENCHMARK,
        multi3drefer.BENCHMARK,
        scan2cap.BENCHMARK,
        scanqa.BENCHMARK,
        sqa3d.BENCHMARK,
    )
}


def benchmark_named(name: str) -> Benchmark:
    """Return the benchmark.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
