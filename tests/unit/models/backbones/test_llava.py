"""The published configuration of the LLaVA families, read and written again."""

from pathlib import Path

import torch
from transformers import SiglipVisionModel

from fixtures.students import student
from threedrs.models.backbones.llava import LlavaFamily, pool


def test_published_configuration() -> None:
    """The fields of the 7B checkpoint's config.json that decide the architecture."""
    published = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_theta": 1000000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "sliding_window": 131072,
        "use_sliding_window": False,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
    }
    path = Path("config.json")
    family = LlavaFamily.read(published, path, 151648, 14)
    text, vision = family.text_config, family.vision_config
    assert (text.vocab_size, text.num_hidden_layers) == (151648, 28)
    assert text.rope_parameters is not None
    assert text.rope_parameters["rope_theta"] == 1_000_000
    assert set(text.layer_types or ()) == {"full_attention"}
    assert (vision.hidden_size, vision.num_hidden_layers) == (1152, 27)
    assert (vision.hidden_act, vision.layer_norm_eps) == ("gelu_pytorch_tanh", 1e-6)
    saved = family.config_json(2048, "bfloat16")
    again = LlavaFamily.read(saved, path, 151648, 14)
    assert again.text_config.to_dict() == text.to_dict()


def test_vision_features_are_the_last_layer_but_one() -> None:
    model = student()
    whole = SiglipVisionModel(model.family.vision_config).eval()
    state = {**whole.state_dict(), **model.vision_tower.state_dict()}
    whole.load_state_dict(state)
    pixels = torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        expected = whole(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(model.vision_tower(pixels).last_hidden_state, expected)


def test_pooling_equals_loops() -> None:
    fine = torch.rand(1, 27, 27, 2)
    result = pool(fine, 14)
    for row, column in ((0, 0), (6, 9), (13, 13), (13, 2)):
        y, x = (row + 0.5) * 27 / 14 - 0.5, (column + 0.5) * 27 / 14 - 0.5
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, 26), min(x0 + 1, 26)
        dy, dx = y - y0, x - x0
        top = fine[0, y0, x0] * (1 - dx) + fine[0, y0, x1] * dx
        bottom = fine[0, y1, x0] * (1 - dx) + fine[0, y1, x1] * dx
        torch.testing.assert_close(result[0, row, column], top * (1 - dy) + bottom * dy)
