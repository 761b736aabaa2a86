"""Qwen2-VL against transformers' own model and preprocessing, and the packing on top of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from fixtures.qwen2_vl import CHANNELS, SUPERVISION, inputs, loaded, pack
from fixtures.students import BOX_IDS, GROUNDING, MIXED, TEXT, scene
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.backbones.qwen2_modules import pixel_patches
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.heads import info_nce
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import IGNORE
from threedrs.models.prompt import build_query, build_sample, shared_prefix
from threedrs.models.scene_inputs import grid_masks
from threedrs.models.student import Student
from threedrs.models.tokenizer import tiny_tokenizer
from threedrs.scannet.geometry import patch_means


def test_patches_are_those_of_transformers_processor() -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 392, 392, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil()
    for frame in frames:
        expected = processor(Image.fromarray(frame), return_tensors="pt")
        assert expected["image_grid_thw"].tolist() == [[1, 28, 28]]
        found = pixel_patches(torch.from_numpy(frame)[None], side=28, patch=14, merge=2, repeats=2)
        torch.testing.assert_close(found, expected["pixel_values"], rtol=1e-5, atol=1e-5)


def test_resized_patches_are_close_to_pils_bicubic() -> None:
    smooth = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(smooth, (384, 384), mode="bicubic").clamp(0, 255)
    frame = smooth[0].permute(1, 2, 0).to(torch.uint8)
    expected = Qwen2VLImageProcessorPil()(Image.fromarray(frame.numpy()), return_tensors="pt")
    found = pixel_patches(frame[None], side=28, patch=14, merge=2, repeats=2)
    one_step = 1 / 255 / 0.26
    assert (found - expected["pixel_values"]).abs().max() < 1.5 * one_step


def test_positions_equal_transformers_rope_index() -> None:
    student, _ = loaded()
    before, frames, own = 5, 3, 4
    visual = frames * 14 * 14
    total = before + visual + own
    config = Qwen2VLConfig(
        text_config=student.text_config.to_dict(),
        vision_config=student.family.vision_config.to_dict(),
    )
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config).model
    kinds = torch.tensor([[0] * before + [2] * visual + [0] * own])
    expected, _ = model.get_rope_index(
        torch.zeros(1, total, dtype=torch.long),
        kinds,
        video_grid_thw=torch.tensor([[frames, 28, 28]]),
    )
    found = student.family.position_ids(torch.arange(total)[None], before, frames)
    assert torch.equal(found, expected)


def test_prompt_has_the_marks_of_its_tokenizer() -> None:
    tokenizer = loaded()[1]
    for prompt in ("reference", "as_trained"):
        prefix = shared_prefix(tokenizer, prompt, label_chat_tokens=True)
        before = tokenizer.decode(prefix.before_ids)
        assert before.endswith("<|im_start|>user\n<|vision_start|>")
        assert tokenizer.decode(prefix.after_ids).startswith("<|vision_end|>")
        mark = len(prefix.before_ids)
        assert prefix.labels(0)[mark - 1 : mark + 1] == [IGNORE, IGNORE]
    plain = tiny_tokenizer()
    prefix = shared_prefix(plain, "reference", label_chat_tokens=True)
    assert plain.decode(prefix.before_ids).endswith("user\n")
    assert prefix.after_ids == ()


def test_logits_equal_transformers_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, tokenizer = loaded()
    save_student(student, tokenizer, tmp_path / "m")
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "m").eval()
    sample = build_sample(TEXT, BOX_IDS, tokenizer, label_chat_tokens=True)
    part, prefix = inputs(), sample.prefix
    pad = len(tokenizer) - 1
    ids = [*prefix.before_ids, *[pad] * part.visual_tokens, *prefix.after_ids]
    ids += sample.input_ids.tolist()
    theirs.config.video_token_id = pad
    theirs.model.config.video_token_id = pad
    pixels = pixel_patches(part.rgb_VHWC, side=28, patch=14, merge=2, repeats=2)
    before = len(prefix.before_ids)
    kinds = torch.zeros(1, len(ids), dtype=torch.int)
    kinds[0, before : before + part.visual_tokens] = 2
    # transformers knows no position embedding of world points.
    monkeypatch.setattr(
        Student, "position_embedding", lambda self, points: torch.zeros(*points.shape[:-1], 96)
    )
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor([ids]),
            pixel_values_videos=pixels,
            video_grid_thw=torch.tensor([[2, 28, 28]]),
            mm_token_type_ids=kinds,
        ).logits[0]
        visual = student.visual_tokens(part)
        text = student.embed(torch.tensor([i for i in ids if i != pad]))
        tokens = torch.cat([text[:before], visual.sequence_TD, text[before:]])
        positions = student.position_ids(torch.arange(len(ids))[None], prefix, part)
        hidden, _ = student.run_language_model(tokens, positions, None)
        found = student.language_model.lm_head(hidden)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", [14, 7])
def test_packed_gradients_equal_the_sum_over_single_samples(grid: int) -> None:
    model, _ = loaded(grid)
    sums = []
    for packs in ([pack(MIXED, grid)], [pack((record,), grid) for record in MIXED]):
        model.zero_grad()
        for one in packs:
            model(one, SUPERVISION).total(SUPERVISION.weight).backward()
        sums.append({name: p.grad.clone() for name, p in model.named_parameters()})
    model.zero_grad()
    together, alone = sums
    for name, gradient in alone.items():
        # Softmax cancels what is added to all keys alike; it is a third of the qkv bias.
        assert (together[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, name


def test_a_step_waits_for_no_value_of_the_device() -> None:
    # A tensor without values raises where the host would have to wait for a GPU.
    nowhere = torch.device("meta")
    student, _ = load_student(ModelSettings(name="qwen2-vl"), teacher_channels=CHANNELS)
    one = pack(MIXED).to(nowhere)
    student.to(nowhere)(one, SUPERVISION).total(SUPERVISION.weight).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_frames_at_once_equal_transformers_frame_by_frame() -> None:
    tower = loaded()[0].vision_tower
    theirs = Qwen2VisionTransformerPretrainedModel(tower.config)
    theirs.set_submodule("merger", torch.nn.Identity())
    theirs.load_state_dict(tower.state_dict())
    patches = torch.randn(3 * 28 * 28, 3 * 2 * 14 * 14, generator=torch.manual_seed(0))
    outputs = []
    for one in (tower, theirs):
        one.zero_grad()
        outputs.append(one(patches, grid_thw=torch.tensor([[3, 28, 28]])).last_hidden_state)
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs)
    expected = dict(theirs.named_parameters())
    for name, parameter in tower.named_parameters():
        difference = parameter.grad - expected[name].grad
        assert difference.norm() <= 1e-5 * expected[name].grad.norm(), name
    tower.zero_grad()


@pytest.mark.parametrize("grid", [14, 7])
def test_round_trip(tmp_path: Path, grid: int) -> None:
    student, tokenizer = loaded(grid)
    save_student(student, tokenizer, tmp_path / "m")
    again, text = load_student(ModelSettings(path=tmp_path / "m"))
    assert again.family.grid.coarse == grid
    assert len(text) == len(tokenizer)
    with torch.no_grad():
        found, expected = (m(pack(MIXED, grid), SUPERVISION) for m in (again, student))
    assert torch.equal(found.text_K, expected.text_K)
    assert torch.equal(found.grounding_K, expected.grounding_K)
    names = set(load_file(tmp_path / "m/model.safetensors"))
    assert {
        "visual.patch_embed.proj.weight",
        "visual.blocks.1.attn.qkv.bias",
        "visual.merger.ln_q.weight",
        "visual.merger.mlp.2.bias",
        "model.embed_tokens.weight",
        "model.layers.2.mlp.down_proj.weight",
        "lm_head.weight",
        "ground_head_zero_target",
        "model.proj_3d.2.weight",
    } <= names
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["architectures"] == ["Qwen2VLForConditionalGeneration"]
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [4, 4, 4]}


def test_checkpoints_of_another_family_or_grid(tmp_path: Path) -> None:
    save_student(*loaded(7), tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"checkpoint of qwen2-vl, model\.name is llava"):
        load_student(ModelSettings(name="llava-video", path=tmp_path / "m"))
    with pytest.raises(CheckpointError, match=r"trained with model\.grid 7, this run has 14"):
        load_student(ModelSettings(name="qwen2-vl", grid=14, path=tmp_path / "m"))
    with pytest.raises(ConfigError, match="llava-video has a 14x14 grid"):
        ModelSettings(name="llava-video", grid=7)
    with pytest.raises(ConfigError, match=r"model.grid: 13 .*valid: 7, 14"):
        ModelSettings(name="qwen2-vl", grid=13)
    with pytest.raises(AssertionError, match="read for another token grid"):
        loaded()[0](replace(pack((TEXT,)), scene=scene()), SUPERVISION)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        (
            {"type": "yarn", "factor": 4.0},
            r"scaling\.type is 'yarn'.* knows default or mrope;",
        ),
        (None, "lacks rope_scaling.mrope_section"),
    ],
)
def test_rotary_embeddings_that_cannot_be_saved_are_refused(
    tmp_path: Path, rope: dict | None, message: str
) -> None:
    save_student(*loaded(), tmp_path / "m")
    path = tmp_path / "m/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_scaling": rope}))
    with pytest.raises(CheckpointError, match=message):
        load_student(ModelSettings(path=tmp_path / "m"))


def test_session_scores_give_the_training_loss() -> None:
    model, tokenizer = loaded()
    session = SceneSession(model, tokenizer, inputs(), prompt="as_trained")
    scores = session.ground_all([build_query(GROUNDING, tokenizer, prompt="as_trained")])[0]
    with torch.no_grad():
        losses = model(pack((GROUNDING,)), SUPERVISION)
    targets = torch.isin(torch.arange(len(scores)), torch.tensor([2, 0]))
    loss = info_nce(torch.tensor([scores]), targets[None]).item()
    assert loss == pytest.approx(losses.grounding_K[0].item(), rel=1e-4)


@pytest.mark.parametrize("grid", [14, 7])
def test_masks_and_coordinates_equal_loops(grid: int) -> None:
    random = np.random.default_rng(0)
    # Blocks of equal pixels, so that patches are partly inside.
    coordinates = random.uniform(-1, 1, (32, 32, 3)).repeat(12, 0).repeat(12, 1).astype(np.float32)
    valid = random.random((384, 384)) > 0.2
    boxes = np.array([[0, 0, 0, 1.9, 1.8, 1.7], [0.5, 0, 0, 1, 1, 2]], np.float32)
    mask_a, mask_b = grid_masks(coordinates, boxes, valid, grid)
    means = patch_means(coordinates.astype(np.float64), valid, grid)
    patch = 378 // grid
    for row, column in ((0, 0), (grid // 2, 3), (grid - 1, grid - 1)):
        part = (slice(row * patch, (row + 1) * patch), slice(column * patch, (column + 1) * patch))
        np.testing.assert_allclose(
            means[row, column], coordinates[part][valid[part]].mean(0), atol=1e-5
        )
        for number, box in enumerate(boxes):
            low, high = box[:3] - box[3:] / 2, box[:3] + box[3:] / 2
            count = sum(
                bool(ok and (point >= low).all() and (point <= high).all())
                for point, ok in zip(
                    coordinates[part].reshape(-1, 3), valid[part].ravel(), strict=True
                )
            )
            assert mask_a[number, row, column] == (count >= patch**2 / 2)
            assert mask_b[number, row, column] == (count >= patch**2 // 8)
    assert 0 < mask_a.sum() < mask_b.sum() < mask_b.size
