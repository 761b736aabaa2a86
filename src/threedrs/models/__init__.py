"""The student: a multimodal language model with 3D position embedding, grounding and supervision.

``student`` is the model, ``scene_inputs``, ``prompt`` and ``packing`` make what it reads, and
``checkpoint`` loads and saves it. What differs between backbones is in ``backbones``.
"""
