"""Fine-tuning of the student; the entry point is ``threedrs.train``."""
