"""Students that no checkpoint gives weights: drawn from the seed, or without values.

The 7B student is in bfloat16, for plans and measurements. The others are in float32 and learn from
scratch, for which their branches and their projector begin as loud as training needs them.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from threedrs.models.backbones.family import Family
from threedrs.models.backbones.known_backbones import find_family
from threedrs.models.checkpoint.matching import EMBEDDINGS, vocabulary_rows
from threedrs.models.model_settings import ModelSettings
from threedrs.models.student import Student
from threedrs.models.tokenizer import add_tokens, tiny_tokenizer
from threedrs.models.zero3 import ZeroConfig, fill, fill_random, without_weights


def bare_student(family: Family, settings: ModelSettings, teacher_channels: int) -> Student:
    """Return the student of a family, with the values that its modules begin with."""
    return Student(
        family,
        teacher_channels=teacher_channels,
        coordinate_dtype=getattr(torch, settings.coordinate_dtype),
        attention=settings.attention,
    )


def empty_student(settings: ModelSettings, teacher_channels: int) -> Student:
    """Return the student of ``model.name`` and ``model.size`` without values, for counting."""
    tokens = len(tiny_tokenizer(find_family(settings.name).vision_marks)) + 2
    with without_weights(None):
        return bare_student(_new_family(settings, tokens), settings, teacher_channels)


def _new_family(settings: ModelSettings, tokens: int) -> Family:
    family = find_family(settings.name)
    return family.new(settings.size, tokens, settings.grid or family.grids[0])


def random_student(
    settings: ModelSettings, teacher_channels: int, zero_init: ZeroConfig | None
) -> tuple[Student, PreTrainedTokenizerBase]:
    """Return a student with weights from torch's generator, and the tiny tokenizer.

    Args:
        teacher_channels: output size of the projection head, 0 for none.
        zero_init: the DeepSpeed configuration of a ZeRO-3 run, or None.
    """
    tokenizer = tiny_tokenizer(find_family(settings.name).vision_marks)
    tokens = len(tokenizer)
    add_tokens(tokenizer)
    family = _new_family(settings, len(tokenizer))
    if zero_init is not None and not settings.from_scratch:
        # Too large for one rank, so each draws its own share.
        with without_weights(zero_init):
            student = bare_student(family, settings, teacher_channels)
        student.restore_rotary()
        fill_random(student)
        return student, tokenizer
    # Built in the precision it is used in: a 7B student in float32 would take 30 GB first.
    standard = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32 if settings.from_scratch else torch.bfloat16)
        student = bare_student(family, settings, teacher_channels)
    finally:
        torch.set_default_dtype(standard)
    student.restore_rotary()
    with torch.no_grad():
        for name in EMBEDDINGS:
            parameter = student.get_parameter(name)
            parameter.copy_(vocabulary_rows(parameter, len(parameter), tokens))
    if settings.from_scratch:
        _shrink_branches(student.language_model)
        _widen_projector(student.projector)
    if zero_init is None:
        return student, tokenizer
    # Small enough to be built whole on each rank, so the weights do not depend on ZeRO.
    with without_weights(zero_init):
        spread = bare_student(family, settings, teacher_channels)
    spread.restore_rotary()
    state = student.state_dict()
    fill(spread, state, state.__getitem__)
    return spread, tokenizer


def _shrink_branches(language_model: Any) -> None:
    """Divide the weights that end the 2 L branches of L layers by sqrt(2 L), as GPT-2 does.

    The hidden states then stay of the size of the tokens that they began as (Radford et al. 2019,
    section 2.3). Without it a student from scratch learns to look at its room much later.
    """
    layers = language_model.model.layers
    with torch.no_grad():
        for layer in layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.div_((2 * len(layers)) ** 0.5)


def _widen_projector(projector: nn.Module) -> None:
    """Draw the projector's weights with the deviation 1 / sqrt(inputs), as the language model's.

    Torch draws them at a third of that variance. Tokens of a room then differ by 0.17 in what they
    show and by 0.39 in their position code, and colours are found later (benchmarks/RESULTS.md).
    """
    with torch.no_grad():
        for module in projector.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
