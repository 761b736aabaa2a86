"""VGGT's aggregator: its layers, weights and kernels, and the extraction of its features."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threedrs.teachers.vggt.aggregator import VGGTAggregator

__all__ = ["VGGTAggregator"]


def __getattr__(name: str) -> Any:
    """Return `VGGTAggregator`, which imports torch; the description of the teacher does without."""
    if name in __all__:
        from threedrs.teachers.vggt import aggregator

        return getattr(aggregator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
