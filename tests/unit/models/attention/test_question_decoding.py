"""Attention of a scene's questions against a softmax over each token's keys, written out."""

import pytest
import torch
from torch import Tensor

from threedrs.models.attention.question_decoding import (
    QuestionAttention,
    attend_prefix,
    join,
    summed_attention,
)

HEADS, GROUPS, SIZE, PREFIX = 2, 3, 8, 11
SCALE = SIZE**-0.5


def obvious(query_Nd: Tensor, keys_KTd: Tensor, values_KTd: Tensor) -> Tensor:
    """One token's attention (N,d), head by head."""
    rows = []
    for head, query_d in enumerate(query_Nd):
        shared = head // GROUPS
        weights = torch.softmax(keys_KTd[shared] @ query_d * SCALE, dim=0)
        rows.append(weights @ values_KTd[shared])
    return torch.stack(rows)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape)


@pytest.mark.parametrize("lengths", [[4, 1, 6], [3, 3], [5]])
def test_each_token_attends_to_the_prefix_and_its_own_question(lengths: list[int]) -> None:
    torch.manual_seed(0)
    keys_1KLd, values_1KLd = random(1, HEADS, PREFIX, SIZE), random(1, HEADS, PREFIX, SIZE)
    widest = max(lengths)
    attention = QuestionAttention([(keys_1KLd, values_1KLd)], GROUPS, lengths)
    assert attention.offset_S.tolist() == [token for n in lengths for token in range(n)]
    count = sum(lengths)
    query = random(1, HEADS * GROUPS, count, SIZE)
    key, value = random(1, HEADS, count, SIZE), random(1, HEADS, count, SIZE)
    result = attention.attend(0, query, key, value, SCALE)
    assert result.shape == (1, count, HEADS * GROUPS, SIZE)
    ((kept_keys, kept_values),) = attention.own
    begin = 0
    for row, length in enumerate(lengths):
        end = begin + length
        # Questions are aligned at their ends.
        empty = widest - length
        assert torch.equal(kept_keys[row, :, empty:], key[0, :, begin:end])
        assert torch.equal(kept_values[row, :, empty:], value[0, :, begin:end])
        assert attention.seen_BW[row].tolist() == [False] * empty + [True] * length
        for token in range(begin, end):
            expected = obvious(
                query[0, :, token],
                torch.cat([keys_1KLd[0], key[0, :, begin : token + 1]], dim=1),
                torch.cat([values_1KLd[0], value[0, :, begin : token + 1]], dim=1),
            )
            torch.testing.assert_close(result[0, token], expected)
        begin = end


@pytest.mark.parametrize("biased", [False, True])
def test_attention_comes_with_its_log_sum_exp(biased: bool) -> None:
    torch.manual_seed(1)
    query, key, value = random(2, 3, 5, 8), random(2, 3, 7, 8), random(2, 3, 7, 8)
    bias = torch.zeros(2, 3, 5, 7)
    if biased:
        bias[:, :, 1:, 2:4] = -torch.inf
    result, total = summed_attention(query, key, value, 0.3, bias if biased else None)
    scores = 0.3 * query @ key.mT + bias
    torch.testing.assert_close(result, scores.softmax(-1) @ value)
    torch.testing.assert_close(total, scores.logsumexp(-1))


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_a_prefix_in_parts_is_the_same_prefix(parts: int) -> None:
    torch.manual_seed(2)
    query = random(2, HEADS, GROUPS, SIZE)
    prefix = random(1, HEADS, 12, SIZE), random(1, HEADS, 12, SIZE)
    own_keys, own_values = random(2, HEADS, 5, SIZE), random(2, HEADS, 5, SIZE)
    own = summed_attention(query, own_keys, own_values, SCALE)
    result = join(attend_prefix(query, prefix, SCALE, parts), own)
    for row in range(2):
        expected = obvious(
            query[row].flatten(0, 1),
            torch.cat([prefix[0][0], own_keys[row]], dim=1),
            torch.cat([prefix[1][0], own_values[row]], dim=1),
        )
        torch.testing.assert_close(result[row].flatten(0, 1), expected)
