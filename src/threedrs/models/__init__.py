"""The student: a multimodal language model with 3D position embedding, grounding and supervision.

``settings`` says which student, ``scene_inputs`` reads a scene, ``tokenizer`` and ``prompt`` make
tokens, and ``packing`` puts several samples into one sequence. ``student`` is the model, with its
parts in ``visual_tokens`` and ``heads``. What differs between backbones is in ``backbones``, one
file a family; how the language model attends is in ``attention``. ``checkpoint`` loads and saves,
``lora`` adds adapters, ``zero3`` builds a student that no rank holds whole, and ``inference``
answers the questions of a scene.
"""
