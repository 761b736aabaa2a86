"""The results that commands find by name."""

from fixtures.named_results import named_results  # noqa: F401
