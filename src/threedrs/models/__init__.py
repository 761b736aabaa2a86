"""The student: a multimodal language model with 3D position embedding, grounding and supervision.

``settings`` and ``samples`` say what goes in, and ``prompt`` makes tokens. ``llava`` is the model,
with its parts in ``visual``, ``position``, ``grounding`` and ``supervision``; ``packing`` and
``attention`` put several samples into one sequence. ``checkpoint`` loads and saves (``published``,
``checkpoint_config``, ``vocabulary``: the folder's layout), ``tiny`` is the model for the demo, and
``session`` answers a scene's questions.
"""
