"""Inference to predictions, predictions to metrics, metrics to one table.

Adding a benchmark is adding its file here and a row in ``registry.py``.
"""
