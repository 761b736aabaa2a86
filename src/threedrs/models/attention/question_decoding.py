"""Attention of a scene's questions to their shared prefix and to their own tokens.

The prefix's keys and values stand in memory once and are read by all questions: the query heads
that share a key head, and all tokens of all questions, are folded into one long row of queries, so
a kernel reads each key once for all of them and nothing is repeated. Own tokens, a few dozen a
question, are attended to per question. Both results are joined by their log-sum-exp: the softmax
over a union of keys is the mean of the parts' softmaxes, weighted by the parts' sums.

Axis letters: B questions, S tokens of all questions in this pass, W own tokens of the longest
question, T keys, L prefix length, N query heads, K key heads, G query heads a key head, Q queries,
d head size, P parts of the prefix, X any head of any token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from threedrs.models.packing import on_device

ALIGNMENT = 16  # the rows of a bias begin at multiples of this many elements: a kernel's demand
KeysValues = tuple[Tensor, Tensor]  # of one layer


def summed_attention(
    query_BKQd: Tensor,
    key_BKTd: Tensor,
    value_BKTd: Tensor,
    scale: float,
    bias_BKQT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return attention (B,K,Q,d) and its log-sum-exp (B,K,Q) float32.

    torch's public function keeps the log-sum-exp to itself, but the operators below it return it.
    """
    operators = torch.ops.aten
    arguments = (query_BKQd, key_BKTd, value_BKTd)
    if query_BKQd.device.type == "cpu":
        result = operators._scaled_dot_product_flash_attention_for_cpu(
            *arguments, attn_mask=bias_BKQT, scale=scale
        )
    elif bias_BKQT is not None or query_BKQd.dtype == torch.float32:
        result = operators._scaled_dot_product_efficient_attention(
            *arguments, bias_BKQT, True, scale=scale
        )
    else:
        result = operators._scaled_dot_product_flash_attention(*arguments, scale=scale)
    return result[0], result[1][..., : query_BKQd.shape[2]]


def attend_prefix(
    query_SKGd: Tensor, prefix: KeysValues, scale: float, parts: int = 1
) -> tuple[Tensor, Tensor]:
    """Return attention (P,S,K,G,d) to P parts of keys and values (1,K,L,d), with sums (P,S,K,G).

    The sums are log-sum-exp. ``parts`` divides L.
    """
    query_1KQd = query_SKGd.transpose(0, 1).flatten(1, 2)[None]
    # (1,K,L,d) -> (P,K,L/P,d), a view
    key, value = (one[0].unflatten(1, (parts, -1)).transpose(0, 1) for one in prefix)
    result_PKQd, sum_PKQ = summed_attention(query_1KQd.expand(parts, -1, -1, -1), key, value, scale)
    tokens = (-1, query_SKGd.shape[2])
    return (
        result_PKQd.unflatten(2, tokens).transpose(1, 2),
        sum_PKQ.unflatten(2, tokens).transpose(1, 2),
    )


def join(shared: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> Tensor:
    """Return the attention (S,K,G,d) to all keys, given that to each part's, with its sums."""
    # exp(part) / sum of all exp(part): the part's share of the whole softmax's sum.
    share_PSKG = torch.cat([shared[1], own[1][None]]).softmax(0).to(own[0].dtype)
    result_PSKGd = torch.cat([shared[0], own[0][None]])
    # As a product, which adds in float32.
    share_X1P = share_PSKG.flatten(1).T[:, None]
    joined_X1d = share_X1P @ result_PSKGd.flatten(1, 3).transpose(0, 1)
    return joined_X1d.view_as(own[0])


class QuestionAttention:
    """The pass over the questions' own tokens, packed in one row behind a scene's prefix.

    In the pass each layer of the language model calls ``attend``. Own tokens are aligned at their
    ends, so that every question's next token has one index.
    """

    offset_S: Tensor  # how far behind the prefix each token stands
    own: list[KeysValues]  # each layer's (B,K,W,d) of the questions after the pass
    seen_BW: Tensor  # where own tokens stand; nothing stands before a short question

    def __init__(self, prefix: Sequence[KeysValues], groups: int, lengths: Sequence[int]) -> None:
        """Take each layer's keys and values (1,K,L,d) of the prefix, and the questions' lengths.

        ``groups`` are the query heads a key head.
        """
        self.prefix = prefix
        self.groups = groups
        self.own = []
        device = prefix[0][0].device
        widest = max(lengths)
        # The host waits for nothing here: the GPU may still be at work on the prefix.
        length_B = on_device(torch.tensor(lengths), device)
        begin_B = length_B.cumsum(0) - length_B
        total = sum(lengths)
        # Its tokens stand in their cells as they are, and somebody may be waiting for the first one
        # behind them. Of many questions the cells are a copy, as what they would be parts of holds
        # all queries too.
        self.single = len(lengths) == 1
        row_S = torch.arange(len(lengths), device=device).repeat_interleave(
            length_B, output_size=total
        )
        self.offset_S = torch.arange(total, device=device) - begin_B[row_S]
        self.index = row_S, self.offset_S + (widest - length_B)[row_S]
        self.seen_BW = torch.arange(widest, device=device) >= (widest - length_B)[:, None]
        causal_WW = torch.ones(widest, widest, dtype=torch.bool, device=device).tril()
        # An empty cell attends to itself, so that no softmax is over nothing; nobody reads it.
        itself_WW = torch.eye(widest, dtype=torch.bool, device=device)
        allowed_BWW = causal_WW & self.seen_BW[:, None] | itself_WW
        bias_BWW = torch.zeros_like(allowed_BWW, dtype=prefix[0][0].dtype)
        bias_BWW = pad(bias_BWW.masked_fill(~allowed_BWW, -torch.inf), (0, -widest % ALIGNMENT))
        self.bias_B1QW = bias_BWW.repeat_interleave(groups, dim=1)[:, None, :, :widest]

    def attend(
        self, layer: int, query_1NSd: Tensor, key_1KSd: Tensor, value_1KSd: Tensor, scale: float
    ) -> Tensor:
        """Return a layer's attention (1,S,N,d), and keep its keys and values."""
        query_SKGd = query_1NSd[0].transpose(0, 1).unflatten(1, (-1, self.groups))
        shared = attend_prefix(query_SKGd, self.prefix[layer], scale)
        own = self._attend_own(query_SKGd, key_1KSd[0], value_1KSd[0], scale)
        return join(shared, own).flatten(1, 2)[None]

    def _attend_own(
        self, query_SKGd: Tensor, key_KSd: Tensor, value_KSd: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attention of each token to its own question (S,K,G,d), and log-sum-exp (S,K,G)."""
        query_BKQd = self._unpack(query_SKGd).transpose(1, 2).flatten(2, 3)
        key_BKWd = self._unpack(key_KSd.transpose(0, 1)).transpose(1, 2)
        value_BKWd = self._unpack(value_KSd.transpose(0, 1)).transpose(1, 2)
        self.own.append((key_BKWd, value_BKWd))
        bias_BKQW = self.bias_B1QW.expand(-1, key_BKWd.shape[1], -1, -1)
        result_BKQd, sum_BKQ = summed_attention(query_BKQd, key_BKWd, value_BKWd, scale, bias_BKQW)
        tokens = (-1, self.groups)
        return (
            self._pack(result_BKQd.unflatten(2, tokens).transpose(1, 2)),
            self._pack(sum_BKQ.unflatten(2, tokens).transpose(1, 2)),
        )

    def _pack(self, grid: Tensor) -> Tensor:
        """Return the tokens (S,...) that stand in the cells of (B,W,...)."""
        return grid.flatten(0, 1) if self.single else grid[self.index]

    def _unpack(self, tokens: Tensor) -> Tensor:
        """Return packed tokens (S,...) in the cells of (B,W,...)."""
        if self.single:
            return tokens.unflatten(0, tuple(self.seen_BW.shape))
        grid = tokens.new_zeros(*self.seen_BW.shape, *tokens.shape[1:])
        grid[self.index] = tokens
        return grid
