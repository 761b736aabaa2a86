"""Fine-tuning of the student with DeepSpeed; the entry point is ``threedrs.train``."""
