"""Attention of a scene's questions to their shared prefix and to their own tokens.

The prefix's keys and values stand in memory once and are read by all questions: the query heads
that share a key head, and all tokens of all questions, are folded into one long row of queries, so
torch's exact kernels read each key once for all of them and nothing is repeated. Own tokens, a few
dozen a question, are attended to per question in float32. Both parts are joined by their log-sum-exp
(the softmax over a union of keys is the mean of the parts' results, weighted by the parts' sums).
Cost: one matrix product with the prefix a layer and pass, whatever the number of questions is split
into.

Axis letters: B questions, S tokens of all questions in this pass, W this pass's tokens of the
longest question, T own tokens of the longest question so far, L prefix length, N query heads, K key
heads, G query heads a key head, d head size.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def prefix_attention(
    query_1KQd: Tensor, key_1KLd: Tensor, value_1KLd: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the attention of all queries to all keys, (1,K,Q,d), and its log-sum-exp (1,K,Q).

    torch's public function keeps the log-sum-exp to itself; the operators below it return it.
    """
    arguments = (query_1KQd, key_1KLd, value_1KLd)
    if query_1KQd.device.type == "cpu":
        operator: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        result = operator(*arguments, scale=scale)
    elif query_1KQd.dtype == torch.float32:  # the flash kernels of a GPU are for half precision
        operator = torch.ops.aten._scaled_dot_product_efficient_attention
        result = operator(*arguments, None, True, scale=scale)
    else:
        result = torch.ops.aten._scaled_dot_product_flash_attention(*arguments, scale=scale)
    return result[0], result[1][..., : query_1KQd.shape[2]]


class QuestionAttention:
    """The keys and values of a scene's prefix and of the questions that are being answered.

    Args:
        prefix: keys and values of the prefix, as the language model left them; not changed.
    """

    def __init__(self, prefix: DynamicCache) -> None:
        self.prefix = prefix
        self.own: list[tuple[Tensor, Tensor]] = []
        self.seen_BT: Tensor

    def start(self, lengths: Sequence[int], device: torch.device) -> Tensor:
        """Begin with questions of ``lengths`` tokens, packed in one row; return their offsets (S,).

        Own tokens are aligned at their ends, so that every question's next token has one place.
        """
        widest = max(lengths)
        length_B = torch.tensor(lengths, device=device)
        begin_B = torch.tensor([0, *accumulate(lengths)][:-1], device=device)
        self.row_S = torch.repeat_interleave(torch.arange(len(lengths), device=device), length_B)
        offset_S = torch.arange(sum(lengths), device=device) - begin_B[self.row_S]
        self.column_S = offset_S + (widest - length_B)[self.row_S]
        self.own = [(torch.empty(0), torch.empty(0))] * len(self.prefix.layers)
        self.seen_BT = torch.arange(widest, device=device) >= (widest - length_B)[:, None]
        self.shape = (len(lengths), widest)
        causal_WT = torch.ones(widest, widest, dtype=torch.bool, device=device).tril()
        self.hidden_BWT = ~(causal_WT & self.seen_BT[:, None])
        # An empty place attends to itself, so that no softmax is over nothing; nobody reads it.
        self.hidden_BWT.diagonal(dim1=1, dim2=2).fill_(False)
        return offset_S

    def next_tokens(self) -> None:
        """Prepare the pass over one more token of each question."""
        count = len(self.seen_BT)
        self.row_S = torch.arange(count, device=self.seen_BT.device)
        self.column_S = torch.zeros_like(self.row_S)
        self.seen_BT = torch.cat([self.seen_BT, self.seen_BT.new_ones(count, 1)], dim=1)
        self.shape = (count, 1)
        self.hidden_BWT = ~self.seen_BT[:, None]

    def keep(self, rows: Tensor) -> None:
        """Go on with the questions at ``rows`` only."""
        self.own = [(key[rows], value[rows]) for key, value in self.own]
        self.seen_BT = self.seen_BT[rows]

    def attend(
        self, layer: int, query_1NSd: Tensor, key_1KSd: Tensor, value_1KSd: Tensor, scale: float
    ) -> Tensor:
        """Add the pass's keys and values to the layer's; return its attention (1,S,N,d)."""
        prefix = self.prefix.layers[layer]
        assert prefix.keys is not None and prefix.values is not None
        key_heads, size = key_1KSd.shape[1], key_1KSd.shape[3]
        query_KGSd = query_1NSd[0].unflatten(0, (key_heads, -1))
        shared_1KQd, shared_1KQ = prefix_attention(
            query_KGSd.flatten(1, 2)[None], prefix.keys, prefix.values, scale
        )
        groups = query_KGSd.shape[1]
        shared_SKGd = shared_1KQd[0].unflatten(1, (groups, -1)).permute(2, 0, 1, 3).float()
        shared_SKG = shared_1KQ[0].unflatten(1, (groups, -1)).permute(2, 0, 1)

        own_SKGd, own_SKG = self._attend_own(layer, query_KGSd, key_1KSd[0], value_1KSd[0], scale)

        total_SKG = torch.logaddexp(shared_SKG, own_SKG)
        joined_SKGd = shared_SKGd * (shared_SKG - total_SKG).exp()[..., None]
        joined_SKGd += own_SKGd * (own_SKG - total_SKG).exp()[..., None]
        return joined_SKGd.to(query_1NSd.dtype).reshape(1, -1, key_heads * groups, size)

    def _attend_own(
        self, layer: int, query_KGSd: Tensor, key_KSd: Tensor, value_KSd: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attention of each token to its own question (S,K,G,d), and log-sum-exp (S,K,G); f32."""
        key_BKTd, value_BKTd = self.own[layer]
        key_BKTd = self._append(key_BKTd, key_KSd)
        value_BKTd = self._append(value_BKTd, value_KSd)
        self.own[layer] = key_BKTd, value_BKTd
        query_BKGWd = self._grid(query_KGSd.permute(2, 0, 1, 3)).permute(0, 2, 3, 1, 4)
        scores_BKGWT = scale * query_BKGWd.float() @ key_BKTd.float().mT[:, :, None]
        scores_BKGWT = scores_BKGWT.masked_fill(self.hidden_BWT[:, None, None], -torch.inf)
        total_BKGW = scores_BKGWT.logsumexp(-1)
        weights_BKGWT = (scores_BKGWT - total_BKGW[..., None]).exp()
        own_BKGWd = weights_BKGWT @ value_BKTd.float()[:, :, None]
        place = (self.row_S, slice(None), slice(None), self.column_S)
        return own_BKGWd[place], total_BKGW[place]

    def _append(self, past_BKTd: Tensor, new_KSd: Tensor) -> Tensor:
        new_BKWd = self._grid(new_KSd.transpose(0, 1)).transpose(1, 2)
        return torch.cat([past_BKTd, new_BKWd], dim=2) if past_BKTd.numel() else new_BKWd

    def _grid(self, packed: Tensor) -> Tensor:
        """Return packed tokens (S,...) at their places in (B,W,...); zeros elsewhere."""
        grid = packed.new_zeros(*self.shape, *packed.shape[1:])
        grid[self.row_S, self.column_S] = packed
        return grid
