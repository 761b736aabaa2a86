"""VGGT's aggregator: its layers, weights and kernels, and the extraction of its features."""

from threedrs.teachers.vggt.aggregator import VGGTAggregator

__all__ = ["VGGTAggregator"]
