"""What lies between the matrix products of a transformer block, one pass over memory each (CUDA).

Written out, layer norm, layer scale, residual sum, query and key norm, rotary embedding and GELU
are some twenty passes over the tokens a block: 0.17 s of the 0.61 s that VGGT-1B takes for a scene
on an H100. torch.compile saves these too, but compiles for 14 s, which 81 scenes pay back: more
than a shard has. The kernels here take three seconds of one core, once a machine (Triton keeps what
it compiled), and read and write each value once. They compute in float32 and round once, to the
bfloat16 that the next matrix product takes; `threedrs.teachers.vggt.transformer` holds the same
arithmetic in plain torch.

U tokens of all sequences, D channels, M heads, E channels of a head.
"""

# kernels are not Python: their parameters are pointers and compile-time constants
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_norm_kernel(
    x_UD,
    branch_UD,
    gamma_D,
    weight_D,
    bias_D,
    sum_UD,
    normed_UD,
    epsilon,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
    NORM: tl.constexpr,
):
    channel = tl.arange(0, BLOCK)
    inside = channel < D
    at = tl.program_id(0).to(tl.int64) * D + channel
    x = tl.load(x_UD + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        gamma = tl.load(gamma_D + channel, mask=inside, other=0.0)
        x += gamma * tl.load(branch_UD + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(sum_UD + at, x, mask=inside)
    if NORM:
        centred = tl.where(inside, x - tl.sum(x, axis=0) / D, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / D + epsilon)
        weight = tl.load(weight_D + channel, mask=inside, other=0.0)
        bias = tl.load(bias_D + channel, mask=inside, other=0.0)
        normed = centred * scale * weight + bias
        tl.store(normed_UD + at, normed.to(normed_UD.dtype.element_ty), mask=inside)


def _launch_add_norm(x, branch, gamma, weight, bias, total, normed, epsilon, add, norm):
    D = x.shape[-1]
    _add_norm_kernel[(x.numel() // D,)](
        x,
        branch,
        gamma,
        weight,
        bias,
        total,
        normed,
        epsilon,
        D=D,
        BLOCK=triton.next_power_of_2(D),
        ADD=add,
        NORM=norm,
        num_warps=4,
    )


def norm(x_NTD: Tensor, weight_D: Tensor, bias_D: Tensor, epsilon: float) -> Tensor:
    """Return the layer norm of ``x_NTD`` in bfloat16; the other arguments are float32."""
    x = x_NTD.contiguous()
    normed = torch.empty_like(x, dtype=torch.bfloat16)
    _launch_add_norm(x, x, x, weight_D, bias_D, x, normed, epsilon, False, True)
    return normed


def scaled_sum(x_NTD: Tensor, branch_NTD: Tensor, gamma_D: Tensor) -> Tensor:
    """Return ``x + gamma * branch`` in float32; ``branch_NTD`` is bfloat16."""
    x = x_NTD.contiguous()
    total = torch.empty_like(x, dtype=torch.float32)
    branch = branch_NTD.contiguous()
    _launch_add_norm(x, branch, gamma_D, x, x, total, x, 0.0, True, False)
    return total


def scaled_sum_norm(
    x_NTD: Tensor,
    branch_NTD: Tensor,
    gamma_D: Tensor,
    weight_D: Tensor,
    bias_D: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Return ``x + gamma * branch`` in float32 and its layer norm in bfloat16."""
    x = x_NTD.contiguous()
    total = torch.empty_like(x, dtype=torch.float32)
    normed = torch.empty_like(x, dtype=torch.bfloat16)
    branch = branch_NTD.contiguous()
    _launch_add_norm(x, branch, gamma_D, weight_D, bias_D, total, normed, epsilon, True, True)
    return total, normed


@triton.jit
def _norm_rotate_kernel(
    qkv_U3ME,
    q_weight_E,
    q_bias_E,
    k_weight_E,
    k_bias_E,
    cosine_TE,
    sine_TE,
    q_UME,
    k_UME,
    T,
    epsilon,
    M: tl.constexpr,
    HEADS: tl.constexpr,
    E: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    is_key = tl.program_id(1)
    head = tl.arange(0, HEADS)[:, None]
    channel = tl.arange(0, E)[None, :]
    inside = (head < M) & (channel < E)
    # the other member of the pair that is rotated: within each half of the head, half of it away
    quarter: tl.constexpr = E // 4
    is_first = (channel // quarter) % 2 == 0
    partner = tl.where(is_first, channel + quarter, channel - quarter)
    source = qkv_U3ME + (token * 3 + is_key) * M * E + head * E
    x = tl.load(source + channel, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(source + partner, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=1)[:, None] / E
    centred = x - mean
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1)[:, None] / E + epsilon)
    if is_key == 0:
        weights, biases, out = q_weight_E, q_bias_E, q_UME
    else:
        weights, biases, out = k_weight_E, k_bias_E, k_UME
    x = centred * scale * tl.load(weights + channel) + tl.load(biases + channel)
    y = (y - mean) * scale * tl.load(weights + partner) + tl.load(biases + partner)
    at = (token % T) * E + channel
    turned = tl.where(is_first, -y, y)
    rotated = x * tl.load(cosine_TE + at) + turned * tl.load(sine_TE + at)
    target = out + token * M * E + head * E + channel
    tl.store(target, rotated.to(out.dtype.element_ty), mask=inside)


def norm_rotate(
    qkv_NT3ME: Tensor,
    query_norm: torch.nn.LayerNorm,
    key_norm: torch.nn.LayerNorm,
    rotation: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return queries and keys, normed per head and rotated by position, (N, T, M, E) bfloat16.

    Args:
        qkv_NT3ME: bfloat16, contiguous.
        query_norm: over E channels, float32; ``key_norm`` likewise, with the same epsilon.
        rotation: cosine and sine, each (T, E) float32; E a power of two.
    """
    N, T, _, M, E = qkv_NT3ME.shape
    q = torch.empty((N, T, M, E), dtype=qkv_NT3ME.dtype, device=qkv_NT3ME.device)
    k = torch.empty_like(q)
    _norm_rotate_kernel[(N * T, 2)](
        qkv_NT3ME,
        query_norm.weight,
        query_norm.bias,
        key_norm.weight,
        key_norm.bias,
        *rotation,
        q,
        k,
        T,
        query_norm.eps,
        M=M,
        HEADS=triton.next_power_of_2(M),
        E=E,
        num_warps=4,
    )
    return q, k


@triton.jit
def _gelu_kernel(x, out, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    result = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


def gelu(x: Tensor) -> Tensor:
    """Return the exact GELU of a contiguous tensor, in its dtype."""
    out = torch.empty_like(x)
    block = 4096
    _gelu_kernel[(triton.cdiv(x.numel(), block),)](x, out, x.numel(), BLOCK=block, num_warps=8)
    return out
