"""VGGT's aggregator against slow implementations typed from its description."""

import math

import pytest
import torch
from torch import Tensor

from threedrs.teachers.vggt.aggregator import VGGTAggregator
from threedrs.teachers.vggt.attention import grid_positions, rotate, rotation_tables
from threedrs.teachers.vggt.transformer import Block
from threedrs.teachers.vggt.vision_transformer import EncoderSize, VisionTransformer
from threedrs.teachers.vggt.weights import fill_random

SMALL = {
    "embed_dim": 384,
    "depth": 2,
    "num_heads": 6,
    "patch_embed": "dinov2_vits14_reg",
    "img_size": 56,
    "patch_embed_depth": 1,
}


def small_model(seed: int = 0, **changes: object) -> VGGTAggregator:
    model = VGGTAggregator(**(SMALL | changes))
    fill_random(model, seed)
    with torch.no_grad():  # tokens and biases large enough to be seen in the output
        generator = torch.Generator().manual_seed(seed + 1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "token" in name or "pos_embed" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def pictures(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- slow, obvious versions -----------------------------------------------------------------------


def slow_norm(x_TD: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    centred = x_TD - x_TD.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weight + bias


def slow_rotation(x_TE: Tensor, positions: list[tuple[int, int]]) -> Tensor:
    """Rotate each channel pair as a complex number; first half by row, second by column."""
    out = torch.empty_like(x_TE)
    half = x_TE.shape[1] // 2
    quarter = half // 2
    for token, position in enumerate(positions):
        for axis in (0, 1):
            for i in range(quarter):
                angle = position[axis] * 100.0 ** (-2 * i / half)
                a, b = axis * half + i, axis * half + i + quarter
                z = complex(x_TE[token, a], x_TE[token, b])
                z *= complex(math.cos(angle), math.sin(angle))
                out[token, a], out[token, b] = z.real, z.imag
    return out


def slow_block(
    block: Block, x_TD: Tensor, epsilon: float, positions: list[tuple[int, int]] | None
) -> Tensor:
    """One sequence through a block, head by head and query by query."""
    p = {name: value.detach().double() for name, value in block.state_dict().items()}
    heads, E = block.attn.heads, x_TD.shape[1] // block.attn.heads
    normed = slow_norm(x_TD, p["norm1.weight"], p["norm1.bias"], epsilon)
    qkv = normed @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]
    q_all, k_all, v_all = qkv.split(x_TD.shape[1], dim=1)
    results = []
    for head in range(heads):
        q, k, v = (a[:, head * E : (head + 1) * E] for a in (q_all, k_all, v_all))
        if positions is not None:
            q = slow_norm(q, p["attn.q_norm.weight"], p["attn.q_norm.bias"], 1e-5)
            k = slow_norm(k, p["attn.k_norm.weight"], p["attn.k_norm.bias"], 1e-5)
            q, k = slow_rotation(q, positions), slow_rotation(k, positions)
        rows = []
        for query in q:
            scores = torch.stack([query @ key for key in k]) / math.sqrt(E)
            shares = (scores - scores.max()).exp()
            rows.append((shares / shares.sum()) @ v)
        results.append(torch.stack(rows))
    attended = torch.cat(results, dim=1) @ p["attn.proj.weight"].T + p["attn.proj.bias"]
    x_TD = x_TD + p["ls1.gamma"] * attended
    normed = slow_norm(x_TD, p["norm2.weight"], p["norm2.bias"], epsilon)
    hidden = normed @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x_TD + p["ls2.gamma"] * (hidden @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"])


def slow_encoder(encoder: VisionTransformer, image_3HW: Tensor) -> Tensor:
    """One normalised picture on the stored grid: (P, D) patch tokens."""
    p = {name: value.detach().double() for name, value in encoder.state_dict().items()}
    kernel = p["patch_embed.proj.weight"]
    patches = [
        (kernel * image_3HW[:, 14 * r : 14 * r + 14, 14 * c : 14 * c + 14]).sum((1, 2, 3))
        + p["patch_embed.proj.bias"]
        for r in range(image_3HW.shape[1] // 14)
        for c in range(image_3HW.shape[2] // 14)
    ]
    tokens = torch.cat((p["cls_token"][0], torch.stack(patches))) + p["pos_embed"][0]
    tokens = torch.cat((tokens[:1], p["register_tokens"][0], tokens[1:]))
    for block in encoder.blocks:
        tokens = slow_block(block, tokens, 1e-6, None)
    return slow_norm(tokens, p["norm.weight"], p["norm.bias"], 1e-6)[5:]


def slow_aggregator(model: VGGTAggregator, images_S3HW: Tensor) -> Tensor:
    """One scene whose pictures have the stored size: (S, P, 2 D)."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    grid = images_S3HW.shape[2] // 14
    positions = [(0, 0)] * 5 + [(r + 1, c + 1) for r in range(grid) for c in range(grid)]
    frames = []
    for number, image in enumerate(images_S3HW.double()):
        version = 0 if number == 0 else 1
        camera = model.camera_token.detach().double()[0, version]
        registers = model.register_token.detach().double()[0, version]
        patches = slow_encoder(model.patch_embed, (image - mean) / std)
        frames.append(torch.cat((camera, registers, patches)))
    for frame_block, global_block in zip(model.frame_blocks, model.global_blocks, strict=True):
        within = [slow_block(frame_block, tokens, 1e-5, positions) for tokens in frames]
        together = slow_block(global_block, torch.cat(within), 1e-5, positions * len(frames))
        frames = list(together.split(len(positions)))
    return torch.stack([torch.cat((a, b), 1)[5:] for a, b in zip(within, frames, strict=True)])


# --- tests ----------------------------------------------------------------------------------------


def test_positions_hand_computed() -> None:
    assert grid_positions(2, 3, special_tokens=2).tolist() == [
        [0, 0], [0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3],
    ]  # fmt: skip


def test_rotation_is_the_complex_one() -> None:
    positions_T2 = grid_positions(3, 4, special_tokens=5)
    x = pictures(1, 17, 2, 16) - 0.5
    found = rotate(x, *rotation_tables(positions_T2, 16, 100.0))
    places = [(int(r), int(c)) for r, c in positions_T2]
    for head in (0, 1):
        torch.testing.assert_close(found[0, :, head], slow_rotation(x[0, :, head], places))
    torch.testing.assert_close(found[0, :5], x[0, :5])  # special tokens do not turn


def test_rotated_products_depend_on_offsets_alone() -> None:
    cosine, sine = rotation_tables(torch.tensor([[1, 7], [3, 4], [11, 27], [13, 24]]), 64, 100.0)
    q, k = pictures(2, 64, seed=3)
    q_T, k_T = (rotate(x.expand(1, 4, 1, 64), cosine, sine)[0, :, 0] for x in (q, k))
    torch.testing.assert_close(q_T[0] @ k_T[1], q_T[2] @ k_T[3])


@pytest.mark.parametrize("with_rotation", [True, False])
def test_block_matches_explicit_attention(with_rotation: bool) -> None:
    epsilon = 1e-5 if with_rotation else 1e-6
    block = Block(32, 2, norm_epsilon=epsilon, layer_scale=0.7, query_key_norm=with_rotation).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(5))
    positions_T2 = grid_positions(2, 2, special_tokens=5)
    x = pictures(2, 9, 32)
    tables = rotation_tables(positions_T2, 16, 100.0) if with_rotation else None
    places = [(int(r), int(c)) for r, c in positions_T2] if with_rotation else None
    with torch.no_grad():
        found = block(x, tables)
    for sequence in (0, 1):
        expected = slow_block(block, x[sequence].double(), epsilon, places)
        torch.testing.assert_close(found[sequence].double(), expected, atol=1e-5, rtol=1e-5)


def test_whole_model_matches_slow_one() -> None:
    model = small_model()
    images = pictures(1, 3, 3, 56, 56)
    with torch.no_grad():
        found = model(images)
    assert found.shape == (1, 3, 16, 768)
    torch.testing.assert_close(
        found[0].double(), slow_aggregator(model, images[0]), atol=2e-4, rtol=2e-4
    )


def test_scenes_of_a_batch_do_not_affect_each_other() -> None:
    model = small_model()
    images = pictures(3, 2, 3, 42, 56)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(scene[None]) for scene in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_frames_of_a_scene_affect_each_other_and_only_the_first_is_special() -> None:
    model = small_model()
    images = pictures(1, 3, 3, 28, 28)
    with torch.no_grad():
        found = model(images)
        swapped = model(images[:, [0, 2, 1]])
        other_first = model(images[:, [1, 0, 2]])
        changed = model(torch.cat((images[:, :2], 1 - images[:, 2:]), dim=1))
    torch.testing.assert_close(found[:, [0, 2, 1]], swapped, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[:, [1, 0, 2]], other_first, atol=1e-2)
    assert not torch.allclose(found[:, 0], changed[:, 0], atol=1e-3)


def test_position_embedding_is_resized_only_off_the_stored_grid() -> None:
    encoder = VisionTransformer(EncoderSize(channels=8, depth=1, heads=2), img_size=70)
    with torch.no_grad():
        encoder.pos_embed.copy_(pictures(1, 26, 8))
    assert torch.equal(encoder.positions(5, 5), encoder.pos_embed)
    resized = encoder.positions(4, 6)
    assert resized.shape == (1, 25, 8)
    assert torch.equal(resized[:, 0], encoder.pos_embed[:, 0])
    # shrinking by a factor of 5: the antialiased kernel spans the grid; a ramp keeps its order
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = torch.arange(5.0).repeat_interleave(5)[:, None]
    rows = encoder.positions(3, 5)[0, 1:, 0].view(3, 5)
    torch.testing.assert_close(rows, slow_resize(torch.arange(5.0), 3)[:, None].expand(3, 5))


def slow_resize(values: Tensor, size: int) -> Tensor:
    """Antialiased bicubic (a = -0.5, kernel widened by the scale) of a line, edges renormalised."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    scale = len(values) / size
    out = []
    for i in range(size):
        centre = (i + 0.5) * scale
        weights = [cubic((j + 0.5 - centre) / scale) for j in range(len(values))]
        out.append(sum(w * float(v) for w, v in zip(weights, values, strict=True)) / sum(weights))
    return torch.tensor(out)


def test_real_size_has_the_public_names_and_shapes() -> None:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in VGGTAggregator().state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {
        "camera_token": (1, 2, 1, 1024),
        "register_token": (1, 2, 4, 1024),
        "patch_embed.cls_token": (1, 1, 1024),
        "patch_embed.pos_embed": (1, 1370, 1024),
        "patch_embed.register_tokens": (1, 4, 1024),
        "patch_embed.mask_token": (1, 1024),
        "patch_embed.patch_embed.proj.weight": (1024, 3, 14, 14),
        "patch_embed.patch_embed.proj.bias": (1024,),
        "patch_embed.norm.weight": (1024,),
        "patch_embed.norm.bias": (1024,),
    }
    inside = {
        "norm1.weight": (1024,), "norm1.bias": (1024,),
        "attn.qkv.weight": (3072, 1024), "attn.qkv.bias": (3072,),
        "attn.proj.weight": (1024, 1024), "attn.proj.bias": (1024,),
        "ls1.gamma": (1024,),
        "norm2.weight": (1024,), "norm2.bias": (1024,),
        "mlp.fc1.weight": (4096, 1024), "mlp.fc1.bias": (4096,),
        "mlp.fc2.weight": (1024, 4096), "mlp.fc2.bias": (1024,),
        "ls2.gamma": (1024,),
    }  # fmt: skip
    head_norms = {
        f"attn.{which}_norm.{kind}": (64,) for which in "qk" for kind in ("weight", "bias")
    }
    for number in range(24):
        expected |= {f"patch_embed.blocks.{number}.{k}": v for k, v in inside.items()}
        for kind in ("frame", "global"):
            expected |= {f"{kind}_blocks.{number}.{k}": v for k, v in (inside | head_norms).items()}
    assert shapes == expected
    assert len(shapes) == 1210
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(909e6, rel=1e-3)


def test_bfloat16_stays_near_float32() -> None:
    """Stated bounds: 2 % of the features' norm, no token further than a cosine of 0.999."""
    model = small_model()
    images = pictures(1, 2, 3, 56, 56)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert rough.dtype == torch.float32  # the residual stream
    assert (rough - exact).norm() / exact.norm() < 0.02
    assert torch.nn.functional.cosine_similarity(rough, exact, dim=-1).min() > 0.999
