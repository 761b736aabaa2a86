import numpy as np
import pytest
import torch

from fixtures.students import CAPTION, GROUNDING, TEXT, ZERO_TARGET, pack, scene, tokenizer
from threedrs.models.attention.packed import pack_mask, packed_attention
from threedrs.models.packing import IGNORE, GroundingTargets, Layout, Pack, TextTargets, suffix_mask


def _layout(packed: Pack) -> Layout:
    return Layout(
        prefix_length=packed.samples[0].prefix.length(packed.scene.visual_tokens),
        lengths=tuple(len(sample.input_ids) for sample in packed.samples),
    )


def test_positions_and_starts_by_hand() -> None:
    layout = Layout(prefix_length=3, lengths=(2, 1, 3))
    assert layout.starts == (3, 5, 6)
    assert layout.position_ids().tolist() == [[0, 1, 2, 3, 4, 3, 3, 4, 5]]


def test_mask_by_hand() -> None:
    mask = suffix_mask(2, torch.tensor([0, 0, 1, 2, 2]))
    assert mask[0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]


def test_attention_equals_the_full_dense_mask() -> None:
    layout = Layout(prefix_length=6, lengths=(3, 2, 4))
    total, heads, key_heads, width = 15, 4, 2, 8
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, heads, total, width, generator=random)
    key, value = torch.randn(2, 1, key_heads, total, width, generator=random)
    owner = [-1] * 6 + [0] * 3 + [1] * 2 + [2] * 4
    expected = torch.zeros(1, total, heads, width)
    for head in range(heads):
        shared = head // (heads // key_heads)
        for q in range(total):
            seen = [k for k in range(q + 1) if owner[k] in (-1, owner[q])]
            scores = torch.stack([query[0, head, q] @ key[0, shared, k] for k in seen])
            weights = torch.softmax(scores / width**0.5, dim=0)
            expected[0, q, head] = weights @ value[0, shared, seen]

    module = torch.nn.Module()
    module.num_key_value_groups = heads // key_heads  # type: ignore[assignment]
    module.is_causal = True  # type: ignore[assignment]
    mask = pack_mask(6, layout.owner_S, "sdpa", torch.empty(1))
    result, _ = packed_attention(module, query, key, value, mask, scaling=width**-0.5)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("label_chat_tokens", [True, False])
def test_text_targets_equal_each_samples_own_sequence(label_chat_tokens: bool) -> None:
    packed = pack(label_chat_tokens=label_chat_tokens)
    layout, visual = _layout(packed), packed.scene.visual_tokens
    targets = TextTargets.of(packed, layout)
    for k, (start, sample) in enumerate(zip(layout.starts, packed.samples, strict=True)):
        whole = sample.prefix.labels(visual)
        places = list(range(layout.prefix_length))
        whole += sample.labels.tolist()
        places += range(start, start + len(sample.labels))
        expected = {}
        if sample.target_rows is None:
            shifted = [
                (places[i - 1], whole[i]) for i in range(1, len(whole)) if whole[i] != IGNORE
            ]
            expected = {pair: 1 / len(shifted) for pair in shifted}
        weights = targets.weights_KM[k].tolist()
        found = {
            (place, label): weight
            for place, label, weight in zip(
                targets.predictor_M.tolist(), targets.target_M.tolist(), weights, strict=True
            )
            if weight
        }
        assert found == pytest.approx(expected)


def test_grounding_targets_by_sample() -> None:
    packed = pack([TEXT, GROUNDING, ZERO_TARGET])
    layout, objects = _layout(packed), len(packed.scene.boxes_N6)
    targets = GroundingTargets.of(packed, layout)
    assert targets.weight_K.tolist() == [0.0, 1.0, 1.0]
    meant = [row.nonzero().flatten().tolist() for row in targets.target_KM]
    assert meant == [[objects], [0, 2], [objects]]
    ids = np.concatenate([np.zeros(layout.prefix_length), *[s.input_ids for s in packed.samples]])
    ground = tokenizer().convert_tokens_to_ids("<ground>")
    assert ids[targets.index_K[1:]].tolist() == [ground, ground]


def test_first_token_of_the_sequence_has_no_prediction() -> None:
    # Six labelled tokens precede the pictures, one follows them; the very first is not predicted.
    packed = pack([TEXT])
    targets = TextTargets.of(packed, _layout(packed))
    own = sum(label != IGNORE for label in packed.samples[0].labels.tolist())
    assert len(targets.predictor_M) == 6 + own


def test_grounding_only_packs_list_one_prediction_of_weight_zero() -> None:
    packed = pack([GROUNDING, GROUNDING], label_chat_tokens=False)
    targets = TextTargets.of(packed, _layout(packed))
    assert targets.predictor_M.tolist() == [_layout(packed).prefix_length - 1]
    assert targets.weights_KM.tolist() == [[0.0], [0.0]]


def test_pack_counts_its_tokens() -> None:
    packed = pack()
    prefix = packed.samples[0].prefix
    own = sum(len(sample.input_ids) for sample in packed.samples)
    assert packed.tokens == len(prefix.before_ids + prefix.after_ids) + 2 * 210 + own
    assert prefix.before_ids[0] == tokenizer().convert_tokens_to_ids("<|im_start|>")


def test_packs_refuse_samples_with_different_prefixes() -> None:
    with pytest.raises(AssertionError, match="prefixes differ"):
        Pack(
            scene=scene(),
            samples=(
                *pack([TEXT]).samples,
                *pack([CAPTION], label_chat_tokens=False).samples,
            ),
        )
