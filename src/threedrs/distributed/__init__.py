"""Processes of a run: how they start, meet, decide together, and which GPUs they take."""
