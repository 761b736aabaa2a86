"""Metrics of answers and captions, and their bootstrap intervals."""
