"""Attention of packed suffixes as two passes, to the prefix and to themselves, joined exactly.

The softmax over a union of keys is the mean of the parts' results, weighted by the parts' sums of
exponentials, whose logarithm the kernels return. A kernel's backward pass, given the joined result
and log-sum-exp, yields exactly the part's share of the gradient. Nothing of rows x keys size is
ever stored.

Axis letters: N query heads, M key heads, T tokens of the pack, L of the prefix, S of all suffixes,
K suffixes, W tokens of the longest suffix, d head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threedrs.models.attention.kernels import FlashAttnKernels
from threedrs.models.packing import Layout, on_device


@dataclass(frozen=True, kw_only=True)
class Suffixes:
    """Where the S suffix tokens of a pack stand in a (K,W) grid, each suffix from the left."""

    prefix_length: int
    shape: tuple[int, int]
    row_S: Tensor
    column_S: Tensor

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "Suffixes":
        """Return where a pack's suffix tokens stand."""
        prefix = layout.prefix_length
        return cls(
            prefix_length=prefix,
            shape=(len(layout.lengths), max(layout.lengths)),
            row_S=on_device(layout.owner_S, device),
            column_S=layout.position_ids(device)[0, prefix:] - prefix,
        )

    def grid(self, packed: Tensor) -> Tensor:
        """Return (1,heads,S,...) spread out to (K,heads,W,...), with zeros elsewhere."""
        grid = packed.new_zeros(self.shape[0], packed.shape[1], self.shape[1], *packed.shape[3:])
        grid[self.row_S, :, self.column_S] = packed[0].transpose(0, 1)
        return grid

    def packed(self, grid: Tensor) -> Tensor:
        """Return (K,heads,W,...) in packed order, (1,heads,S,...)."""
        return grid[self.row_S, :, self.column_S].transpose(0, 1)[None]

    def rows(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows (1,heads,T,...) of the prefix, of the suffixes, and these spread out."""
        prefix, own = tensor[:, :, : self.prefix_length], tensor[:, :, self.prefix_length :]
        return prefix, own, self.grid(own)

    def passes(
        self, query: Tensor, key: Tensor, value: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return queries, keys and values of the three passes, whose results `CAUSAL` orders."""
        # Prefix rows see the prefix alone, causally. Suffix rows see all of the prefix, and of the
        # suffixes their own: as rows of a batch, which a kernel never mixes.
        (key_L, _, own_key), (value_L, _, own_value) = self.rows(key), self.rows(value)
        keys, values = (key_L, key_L, own_key), (value_L, value_L, own_value)
        return list(zip(self.rows(query), keys, values, strict=True))


CAUSAL = (True, False, True)  # of prefix rows, suffix rows to the prefix, and to their own suffix


class JoinedAttention(torch.autograd.Function):
    """Prefix rows: causal. Suffix rows: to the whole prefix, and causally to their own suffix."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        suffixes: Suffixes,
        kernels: FlashAttnKernels,
    ) -> Tensor:
        """Attend from (1,N,T,d) to (1,M,T,d); return (1,N,T,d)."""
        (result_L, total_L), (shared, shared_total), (own_grid, own_total_grid) = (
            kernels.forward(*tensors, scale, causal)
            for tensors, causal in zip(suffixes.passes(query, key, value), CAUSAL, strict=True)
        )
        own, own_total = suffixes.packed(own_grid), suffixes.packed(own_total_grid)
        # Each part's softmax is off by its share of the whole sum; weighted by it, they add up.
        total_S = torch.logaddexp(shared_total, own_total)
        result_S = shared.float() * (shared_total - total_S).exp()[..., None]
        result_S += own.float() * (own_total - total_S).exp()[..., None]
        result = torch.cat([result_L, result_S.to(result_L.dtype)], dim=2)
        # Empty cells keep their own sum, so that their weights stay finite; their gradient is 0.
        total_grid = own_total_grid.clone()
        total_grid[suffixes.row_S, :, suffixes.column_S] = total_S[0].transpose(0, 1)
        ctx.save_for_backward(query, key, value, result, total_L, total_S, total_grid)
        ctx.scale, ctx.suffixes, ctx.kernels = scale, suffixes, kernels
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        query, key, value, result, *totals = ctx.saved_tensors
        suffixes: Suffixes = ctx.suffixes
        # Given the joined result and sum, each pass yields its share of the whole gradient.
        passes = zip(
            suffixes.rows(gradients[0]),
            suffixes.passes(query, key, value),
            suffixes.rows(result),
            totals,
            CAUSAL,
            strict=True,
        )
        (query_L, key_L, value_L), (query_S, shared_key_L, shared_value_L), own = (
            ctx.kernels.backward(gradient, tensors, rows, total, ctx.scale, causal)
            for gradient, tensors, rows, total, causal in passes
        )
        own_query_S, own_key_S, own_value_S = (suffixes.packed(grid) for grid in own)
        return (
            torch.cat([query_L, query_S + own_query_S], dim=2),
            torch.cat([key_L + shared_key_L, own_key_S], dim=2),
            torch.cat([value_L + shared_value_L, own_value_S], dim=2),
            None,
            None,
            None,
        )
