"""The student: a multimodal language model with 3D position embedding, grounding and supervision.

``settings`` and ``samples`` say what goes in, ``scene_inputs`` reads it, ``prompt`` makes tokens.
``student`` is the model, with its parts in ``visual``, ``position``, ``grounding``, ``supervision``
and ``fused``; what differs between backbones is in ``family``, ``siglip`` and ``qwen2_vl``.
``packing`` puts several samples into one sequence; ``attention`` runs it, with the backends in
``pack_mask`` and ``joined_attention``. ``checkpoint`` loads and saves (``architecture``,
``published``, ``checkpoint_config``, ``qwen2_vl_config``, ``vocabulary``: the folder's layout;
``sharded``: without a whole copy on any rank), ``tiny`` is the model for the demo, and ``session``
answers a scene's questions.
"""
