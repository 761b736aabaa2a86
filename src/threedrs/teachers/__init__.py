"""Frozen 3D foundation models ("teachers") and the store of their features."""
