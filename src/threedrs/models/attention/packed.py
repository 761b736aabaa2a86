"""The attention of the student's language model: one sample, a pack of samples, or questions.

Registered with transformers under the name `PACKED`, so that the language model runs it in every
layer. One sample is plain causal attention. What the tokens of a pack attend to is in
`threedrs.models.packing`. Its prefix rows are a causal call of their own, of torch's exact kernels
(``sdpa``, on any device) or of flash-attn's (``flash``). A dense mask serves the few hundred rows
of the suffixes. So a pack costs one sample's pass and the suffix rows.

``auto`` is ``sdpa``: torch ships flash kernels too; flash-attn itself was not measured.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from threedrs.errors import ConfigError, MachineError
from threedrs.models.attention.kernels import fast_kernels, flash_attention
from threedrs.models.attention.question_decoding import QuestionAttention
from threedrs.models.packing import suffix_mask
from threedrs.models.pass_sizes import rounded_tokens

PACKED = "threedrs_packed"
ROWS = 64  # suffix rows are a multiple of this, and rounded up (`rounded_tokens`)


@dataclass(frozen=True, kw_only=True)
class PackMask:
    """What the tokens of a pack attend to.

    The mask (1,1,S,T) of the suffix rows has rows and keys added (`ROWS`).
    """

    prefix_length: int
    mask_11ST: Tensor
    flash: bool  # whether flash-attn computes the prefix rows

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attend from (1,heads,T,d) to (1,key heads,T,d); return (1,T,heads,d)."""
        split, total = self.prefix_length, query.shape[2]
        groups, added = query.shape[1] // key.shape[1], self.mask_11ST.shape[-1] - total
        # No suffix token is a key of a prefix row, so the prefix is an ordinary causal call, the
        # only kind for which the fast kernels need no mask.
        prefix = [tensor[:, :, :split] for tensor in (query, key, value)]
        with fast_kernels():
            suffixes = scaled_dot_product_attention(
                _lengthened(query[:, :, split:], added),
                repeat_kv(_lengthened(key, added), groups),
                repeat_kv(_lengthened(value, added), groups),
                attn_mask=self.mask_11ST,
                scale=scale,
            )
            if suffixes.requires_grad:
                # torch finds cuDNN's plan of the backward pass by the strides of query, key and
                # value alone. Where no added row is cut off, this gradient is a view with strides
                # of its own: a plan for the one kind gives wrong gradients of the other.
                suffixes.register_hook(Tensor.contiguous)
            if self.flash:
                tokens_first = (tensor.transpose(1, 2) for tensor in prefix)
                seen = flash_attention()(*tokens_first, softmax_scale=scale, causal=True)
            else:
                own_query, own_key, own_value = map(_as_own, prefix)
                seen = scaled_dot_product_attention(
                    own_query, own_key, own_value, is_causal=True, scale=scale, enable_gqa=True
                ).transpose(1, 2)
        return torch.cat([seen, suffixes[:, :, : total - split].transpose(1, 2)], dim=1)


def _as_own(part_1NLd: Tensor) -> Tensor:
    """Return the same elements with the strides of a tensor that has no other tokens."""
    # The stride of the batch, which has one element, would be that of all the pack's tokens, and
    # cuDNN plans for strides as it does for lengths.
    return part_1NLd.squeeze(0).transpose(0, 1).unflatten(0, (1, -1)).transpose(1, 2)


def _lengthened(tokens_1NTd: Tensor, added: int) -> Tensor:
    """Return the tensor with ``added`` tokens of zeros, and the strides of its shape."""
    return pad(tokens_1NTd, (0, 0, 0, added)).contiguous()


def _rounded(mask_11ST: Tensor) -> Tensor:
    """Return the mask with rows and keys added up to one of few lengths."""
    # cuDNN plans for a tenth of a second, and keeps 4 MB, at each length that it has not met, and
    # hardly two packs have as many tokens. So rows are rounded up.
    rows, keys = mask_11ST.shape[-2:]
    added = rounded_tokens(rows, ROWS) - rows
    rounded = pad(mask_11ST, (0, added, 0, added))
    # Nobody reads an added row, but its softmax must not be over nothing: NaN would spread to the
    # gradients of the keys.
    rounded[:, :, rows:, :keys] = True
    return rounded


def pack_mask(
    prefix_length: int, owner_S: Tensor | None, backend: str, tokens_TD: Tensor
) -> PackMask | None:
    """Return the mask of a pack with embeddings ``tokens_TD``, None for one sample: plain causal.

    ``owner_S`` is the suffix that each token behind the prefix is of, None for one sample.

    Raises:
        MachineError: flash-attn was asked for and is not installed, or there is no GPU for it.
        ConfigError: the backend cannot run a pass of this precision.
    """
    # What the backend cannot do is said at the first pack, though it may hold one sample only.
    device = tokens_TD.device
    if backend == "flash":
        if device.type != "cuda":
            raise MachineError("model.attention: flash needs a GPU; choose auto or sdpa")
        if tokens_TD.dtype == torch.float32:
            raise ConfigError(
                "model.attention: flash computes in half precision; set train.precision: bfloat16 "
                "or choose auto or sdpa"
            )
    if owner_S is None:
        return None
    return PackMask(
        prefix_length=prefix_length,
        mask_11ST=_rounded(suffix_mask(prefix_length, owner_S)),
        flash=backend == "flash",
    )


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PackMask | None,
    scaling: float | None = None,
    questions: QuestionAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from ``query`` (B, heads, Q, d) to ``key`` and ``value`` (B, key heads, T, d).

    Queries are causal, unless ``attention_mask`` or ``questions`` know what they attend to. Returns
    (B, Q, heads, d).
    """
    if questions is not None:
        assert scaling is not None
        assert isinstance(module.layer_idx, int)
        return questions.attend(module.layer_idx, query, key, value, scaling), None
    if attention_mask is not None:
        assert scaling is not None
        return attention_mask.attend(query, key, value, scaling), None
    with fast_kernels():
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **kwargs)


AttentionInterface.register(PACKED, packed_attention)
