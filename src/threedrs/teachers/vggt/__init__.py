"""VGGT's aggregator: its layers, weights and kernels, and the extraction of its features."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threedrs.teachers.vggt.aggregator import VGGTAggregator

__all__ = ["VGGTAggregator"]

WHAT_TO_FETCH = (
    "download model.pt (about 5 GB) of facebook/VGGT-1B from the Hugging Face Hub, or of its "
    "commercial variant, after accepting the VGGT licence (facebook/VGGT-1B: non-commercial use "
    "only), and set teacher.weights to the file's path; for a try-out without it use teacher.name "
    "vggt-tiny"
)


def __getattr__(name: str) -> Any:
    """Return `VGGTAggregator`, which imports torch; the description of the teacher does without."""
    if name in __all__:
        from threedrs.teachers.vggt import aggregator

        return getattr(aggregator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
