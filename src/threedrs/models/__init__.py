"""The student: a multimodal language model with 3D position embedding, grounding and supervision.

``settings`` and ``samples`` say what goes in, ``prompt`` makes tokens, ``llava`` is the model with
its parts in ``position``, ``visual``, ``grounding`` and ``supervision``, ``packing`` and
``attention`` put several samples into one sequence, ``checkpoint`` loads and saves, ``session``
answers questions.
"""
