"""Inference to predictions, predictions to metrics, metrics to one table."""
