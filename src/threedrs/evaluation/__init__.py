"""Inference to predictions, predictions to metrics, metrics to one table.

A new benchmark is a file here and a row in ``registry.py``, a file and a row in
`threedrs.instructions`, its columns in ``headline.py``, the metric that judges one answer in
`threedrs.report.examples`, and its name in workflow/schemas/config.schema.yaml.
"""
