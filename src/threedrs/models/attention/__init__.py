"""Attention of the language model: one sample, a pack of samples, questions of a scene."""
