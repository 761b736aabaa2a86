"""Attention of a scene's questions to their shared prefix and to their own tokens.

The prefix's keys and values stand in memory once and are read by all questions: the query heads
that share a key head, and all tokens of all questions, are folded into one long row of queries, so
a kernel reads each key once for all of them and nothing is repeated. Own tokens, a few dozen a
question, are attended to per question. Both results are joined by their log-sum-exp: the softmax
over a union of keys is the mean of the parts' softmaxes, weighted by the parts' sums.

Axis letters: B questions, S tokens of all questions in this pass, W this pass's tokens of the
longest question, T own tokens of the longest question so far, L prefix length, N query heads, K key
heads, G query heads a key head, Q queries, d head size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

ALIGNMENT = 16  # the rows of a bias begin at multiples of this many elements: a kernel's demand


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


class QuestionAttention:
    """The keys and values of a scene's prefix and of the questions that are being answered.

    Begin with ``start``. Before each further pass, ``keep`` the questions that go on and call
    ``next_tokens``. In every pass each layer of the language model calls ``attend``.

    Args:
        prefix: each layer's keys and values (1,K,L,d) of the prefix; not changed.
        groups: query heads a key head.
    """

    def __init__(self, prefix: Sequence[tuple[Tensor, Tensor]], groups: int) -> None:
        self.prefix = prefix
        self.groups = groups
        self.own: dict[int, tuple[Tensor, Tensor]] = {}  # layer: keys and values (B,K,T,d)
        self.index: tuple[Tensor, Tensor] | None  # row and column (S,) of each packed token
        self.seen_BT: Tensor  # where own tokens stand; nothing stands before a short question
        self.bias_B1QT: Tensor

    def start(self, lengths: Sequence[int], device: torch.device) -> Tensor:
        """Begin with questions of ``lengths`` tokens in one row, and return their offsets (S,).

        Own tokens are aligned at their ends, so that every question's next token has one index.
        """
        widest = max(lengths)
        length_B = torch.tensor(lengths, device=device)
        begin_B = length_B.cumsum(0) - length_B
        row_S = torch.repeat_interleave(torch.arange(len(lengths), device=device), length_B)
        offset_S = torch.arange(sum(lengths), device=device) - begin_B[row_S]
        self.own = {}
        self.index = row_S, offset_S + (widest - length_B)[row_S]
        self.seen_BT = torch.arange(widest, device=device) >= (widest - length_B)[:, None]
        causal_WT = torch.ones(widest, widest, dtype=torch.bool, device=device).tril()
        # An empty cell attends to itself, so that no softmax is over nothing; nobody reads it.
        itself_WT = torch.eye(widest, dtype=torch.bool, device=device)
        self.bias_B1QT = self._bias(causal_WT & self.seen_BT[:, None] | itself_WT)
        return offset_S

    def next_tokens(self) -> None:
        """Prepare the pass over one more token of each question."""
        self.index = None
        self.seen_BT = pad(self.seen_BT, (0, 1), value=True)
        self.bias_B1QT = self._bias(self.seen_BT[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with the questions at ``rows`` only."""
        self.own = {layer: (key[rows], value[rows]) for layer, (key, value) in self.own.items()}
        self.seen_BT = self.seen_BT[rows]

    def attend(
        self, layer: int, query_1NSd: Tensor, key_1KSd: Tensor, value_1KSd: Tensor, scale: float
    ) -> Tensor:
        """Return a layer's attention (1,S,N,d), after the pass's keys and values joined its own."""
        query_SKGd = query_1NSd[0].transpose(0, 1).unflatten(1, (-1, self.groups))
        shared_SKGd, shared_SKG = self._attend_prefix(layer, query_SKGd, scale)
        key_SKd, value_SKd = key_1KSd[0].transpose(0, 1), value_1KSd[0].transpose(0, 1)
        own_SKGd, own_SKG = self._attend_own(layer, query_SKGd, key_SKd, value_SKd, scale)
        # exp(shared) / (exp(shared) + exp(own)): the prefix's part of the whole softmax's sum.
        part_SKG1 = torch.sigmoid(shared_SKG - own_SKG)[..., None]
        joined_SKGd = torch.lerp(own_SKGd.float(), shared_SKGd.float(), part_SKG1)
        return joined_SKGd.to(query_1NSd.dtype).flatten(1, 2)[None]

    def _attend_prefix(self, layer: int, query_SKGd: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Attention of each token to the prefix (S,K,G,d), and log-sum-exp (S,K,G)."""
        query_1KQd = query_SKGd.transpose(0, 1).flatten(1, 2)[None]
        result_1KQd, sum_1KQ = summed_attention(query_1KQd, *self.prefix[layer], scale)
        tokens = (-1, self.groups)
        return (
            result_1KQd[0].unflatten(1, tokens).transpose(0, 1),
            sum_1KQ[0].unflatten(1, tokens).transpose(0, 1),
        )

    def _attend_own(
        self, layer: int, query_SKGd: Tensor, key_SKd: Tensor, value_SKd: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attention of each token to its own question (S,K,G,d), and log-sum-exp (S,K,G)."""
        query_BKQd = self._unpack(query_SKGd).transpose(1, 2).flatten(2, 3)
        key_BKTd = self._unpack(key_SKd).transpose(1, 2)
        value_BKTd = self._unpack(value_SKd).transpose(1, 2)
        if layer in self.own:
            key_BKTd = torch.cat([self.own[layer][0], key_BKTd], dim=2)
            value_BKTd = torch.cat([self.own[layer][1], value_BKTd], dim=2)
        self.own[layer] = key_BKTd, value_BKTd
        bias_BKQT = self.bias_B1QT.expand(-1, key_BKTd.shape[1], -1, -1)
        result_BKQd, sum_BKQ = summed_attention(query_BKQd, key_BKTd, value_BKTd, scale, bias_BKQT)
        tokens = (-1, self.groups)
        return (
            self._pack(result_BKQd.unflatten(2, tokens).transpose(1, 2)),
            self._pack(sum_BKQ.unflatten(2, tokens).transpose(1, 2)),
        )

    def _unpack(self, tokens: Tensor) -> Tensor:
        """Return packed tokens (S,...) in the cells of (B,W,...)."""
        if self.index is None:  # one token a question: S is B
            return tokens[:, None]
        grid = tokens.new_zeros(*self.seen_BT.shape, *tokens.shape[1:])
        grid[self.index] = tokens
        return grid

    def _pack(self, grid: Tensor) -> Tensor:
        """Return the tokens (S,...) in the cells of (B,W,...)."""
        return grid[:, 0] if self.index is None else grid[self.index]

    def _bias(self, allowed_BWT: Tensor) -> Tensor:
        """Return what is added to the scores (B,1,W*G,T): 0 where allowed, otherwise -inf."""
        width = allowed_BWT.shape[2]
        bias_BWT = torch.zeros_like(allowed_BWT, dtype=self.prefix[0][0].dtype)
        bias_BWT = pad(bias_BWT.masked_fill(~allowed_BWT, -torch.inf), (0, -width % ALIGNMENT))
        return bias_BWT.repeat_interleave(self.groups, dim=1)[:, None, :, :width]
