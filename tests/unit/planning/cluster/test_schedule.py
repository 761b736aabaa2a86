"""The simulated run: small cases by hand."""

import pytest

from threedrs.errors import ConfigError
from threedrs.planning.cluster.estimate import disk_peak
from threedrs.planning.cluster.schedule import Job, chains, simulate


def job(name: str, seconds: float, *after: str, **more) -> Job:
    return Job(rule=name[0], name=name, seconds=seconds, after=after, **more)


def times(jobs: list[Job], **cluster) -> dict[str, tuple[float, float]]:
    asked = {"nodes": 1, "cpus": 2, "gpus": 1, "memory": 10_000} | cluster
    return {span.job.name: (span.start, span.end) for span in simulate(jobs, **asked)}


def test_dependencies_and_slots_by_hand() -> None:
    jobs = [job("a", 4), job("b", 2), job("c", 3), job("d", 1, "a", "b")]
    # Two cores. Longest chains first: a (4 + 1), then b and c (3 each) in their order.
    assert times(jobs) == {"a": (0, 4), "b": (0, 2), "c": (2, 5), "d": (4, 5)}
    assert times(jobs, cpus=1) == {"a": (0, 4), "b": (4, 6), "c": (6, 9), "d": (9, 10)}
    assert times(jobs, cpus=8)["c"] == (0, 3)
    assert times(jobs, cpus=8, at_once=1) == times(jobs, cpus=1)


def test_chains_by_hand() -> None:
    jobs = [job("a", 4), job("b", 2, "a"), job("c", 3, "a"), job("d", 1, "b", "c")]
    assert chains(jobs) == {"a": 8, "b": 3, "c": 4, "d": 1}
    with pytest.raises(ValueError, match="in a circle"):
        chains([job("a", 1, "b"), job("b", 1, "a")])


def test_gpus_memory_and_whole_nodes() -> None:
    jobs = [job("x", 5, gpus=1), job("y", 5, gpus=1)]
    assert times(jobs)["y"] == (5, 10)
    assert times(jobs, nodes=2)["y"] == (0, 5)
    heavy = [job("x", 5, memory=6000), job("y", 5, memory=6000)]
    assert times(heavy)["y"] == (5, 10)
    # The two small jobs share a node, so that the large one finds a whole one.
    mixed = [job("x", 9, gpus=1), job("y", 8, gpus=1), job("z", 7, gpus=2)]
    assert times(mixed, nodes=2, gpus=2, cpus=4) == {"x": (0, 9), "y": (0, 8), "z": (0, 7)}
    both = [job("x", 3, gpus=1, nodes=2), job("y", 1, gpus=1)]
    assert times(both, nodes=2) == {"x": (0, 3), "y": (3, 4)}


def test_storage_is_shared_equally() -> None:
    # Alone each of the first two moves 10 GB at 1 GB/s; the third asks for little.
    jobs = [job("a", 10, read=10), job("b", 10, read=10), job("c", 10, read=1)]
    found = times(jobs, cpus=3, storage=1.1)
    # c gets its 0.1; 1.0 is left for a and b, so each takes twice as long until c ends.
    assert found["c"] == pytest.approx((0, 10))
    # Then 1.1 for two: 5 of 10 done, 5 left at 0.55.
    assert found["a"] == found["b"] == pytest.approx((0, 10 + 5 / 0.55))
    assert times(jobs, cpus=3, storage=2.1)["a"] == pytest.approx((0, 10))


def test_what_fits_no_node_is_said() -> None:
    with pytest.raises(ConfigError, match=r"t asks for 1 x \(8 GPUs.*needs\.t .*\{gpu: 4"):
        times([job("t", 1, gpus=8)], gpus=4)
    with pytest.raises(ConfigError, match="asks for 2 x"):
        times([job("t", 1, nodes=2)])


def test_disk_by_hand() -> None:
    jobs = [
        job("a", 4, kept=1, checkpoints=10, temporary=5),
        job("b", 4, "a", kept=1, checkpoints=10, temporary=5),
    ]
    spans = simulate(jobs, nodes=1, cpus=1, gpus=0, memory=9000)
    assert disk_peak(spans, pruned=False) == 11 + 16
    assert disk_peak(spans, pruned=True) == 1 + 16
