"""Checkpoints of students on disk: layouts, tensor names, vocabulary, manifest."""
