"""Folders of the published code: loaded with every used tensor, and written as it reads them."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.reference_folder import (
    ADDED,
    GENERATION,
    MERGES,
    SIZES,
    TABLE,
    TEACHER,
    TOKENS,
    TOWER,
    WIDTH,
    WORDS,
    base_shapes,
    head_shapes,
    write_reference_folder,
)
from fixtures.students import MIXED, SCENE, pack, scene
from threedrs.config.schema import SupervisionSettings
from threedrs.errors import CheckpointError
from threedrs.models.backbones import llava
from threedrs.models.checkpoint.folder import hash_files, reference_name
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.model_settings import ModelSettings
from threedrs.models.prompt import build_sample
from threedrs.models.tokenizer import add_tokens, load_tokenizer

UNUSED = {
    "model.corres_linear.weight",
    "model.linear_dc.weight",
    "model.geometric_linear.weight",
    "model.vision_tower.vision_tower.vision_model.post_layernorm.weight",
    "model.vision_tower.vision_tower.vision_model.post_layernorm.bias",
}
TEXT = "Is the <ground> at <coord>?\n\n<|im_end|>"


@pytest.fixture(autouse=True)
def small_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the public tower, which folders name without sizes, be a small one."""
    monkeypatch.setattr(llava, "SO400M", TOWER)


def load(folder: Path, **options: int) -> tuple:
    return load_student(ModelSettings(path=folder), **options)  # type: ignore[arg-type]


def published(student) -> dict[str, torch.Tensor]:
    name = student.family.tensor_names.published_name
    return {name(own): tensor for own, tensor in student.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_the_real_layout_has_as_many_tensors_as_published() -> None:
    assert len(base_shapes(28, 26)) == 765
    assert len(base_shapes(28, 26) | head_shapes()) == 785


@pytest.mark.parametrize(
    ("sharded", "tower"),
    [
        (True, "google/siglip-so400m-patch14-384"),
        (False, "data/models/siglip-so400m-patch14-384"),
        (True, "/elsewhere/models/siglip-so400m-patch14-384/"),
    ],
)
def test_every_used_tensor_is_loaded_and_the_others_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sharded: bool, tower: str
) -> None:
    tensors = write_reference_folder(tmp_path / "m", sharded=sharded, mm_vision_tower=tower)
    with caplog.at_level(logging.INFO):
        student, text = load(tmp_path / "m")
    used = {name: tensor for name, tensor in tensors.items() if name not in UNUSED}
    assert_same(published(student), used)
    assert "5 tensors are not used" in caplog.text
    assert all(name in caplog.text for name in UNUSED)
    assert "start at random" not in caplog.text
    assert (len(text), student.teacher_channels) == (TOKENS, TEACHER)
    assert text.convert_tokens_to_ids(ADDED) == [len(WORDS) + number for number in range(6)]
    # "Is", " the" by its merges, " ", ... the marks, two newlines.
    own = [WORDS.index(word) for word in ("I", "s", "Ġthe", "Ġ")]
    assert text(TEXT)["input_ids"][:5] == [*own, TABLE["ground_token_ids"][0]]
    assert student.generation == GENERATION


def test_a_checkpoint_of_video_3d_llm_has_no_projection_head(tmp_path: Path) -> None:
    tensors = write_reference_folder(tmp_path / "m", sharded=False)
    kept = {name: tensor for name, tensor in tensors.items() if "proj_3d" not in name}
    save_file(kept, tmp_path / "m/model.safetensors")
    student, _ = load(tmp_path / "m")
    assert student.proj_3d is None
    assert torch.equal(student.grounding_head.zero_target, tensors["ground_head_zero_target"])
    supervised, _ = load(tmp_path / "m", teacher_channels=8)
    assert supervised.proj_3d[2].out_features == 8


def test_what_lies_in_folders_beside_the_model_is_not_hashed(tmp_path: Path) -> None:
    write_reference_folder(tmp_path / "m")
    before = hash_files(tmp_path / "m")
    (tmp_path / "m/checkpoint-13944").mkdir()
    (tmp_path / "m/checkpoint-13944/optimizer.pt").write_text("100 GB")
    assert hash_files(tmp_path / "m") == before
    assert "training_args.bin" in before


def test_a_loaded_folder_computes_the_losses(tmp_path: Path) -> None:
    write_reference_folder(tmp_path / "m")
    student, text = load(tmp_path / "m")
    samples = tuple(
        build_sample(item, (10, 11, 12, 13), text, label_chat_tokens=True) for item in MIXED
    )
    inputs = scene(channels=TEACHER)
    with torch.no_grad():
        losses = student(type(pack())(scene=inputs, samples=samples), SupervisionSettings())
    assert inputs.scene == SCENE
    assert losses.total(1.0).isfinite()
    assert 0 < losses.supervision < 4


def test_export_holds_what_the_published_code_reads(tmp_path: Path) -> None:
    tensors = write_reference_folder(tmp_path / "m", sharded=False)
    student, text = load(tmp_path / "m")
    out = tmp_path / "out"
    save_student(student, text, out)
    used = {name: tensor for name, tensor in tensors.items() if name not in UNUSED}
    assert_same(load_file(out / "model.safetensors"), used)
    config = json.loads((out / "config.json").read_text())
    assert {name: config.get(name) for name in TABLE | SIZES} == TABLE | SIZES
    assert json.loads((out / "generation_config.json").read_text()) == GENERATION
    whole = json.loads((out / "tokenizer.json").read_text())
    assert whole["model"]["merges"] == MERGES
    assert [token["content"] for token in whole["added_tokens"]] == ADDED
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        says = json.loads((out / name).read_text())
        assert says["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
        assert "extra_special_tokens" not in says
    assert json.loads((out / "vocab.json").read_text()) == {w: n for n, w in enumerate(WORDS)}
    assert (out / "merges.txt").read_text().splitlines() == ["#version: 0.2", *MERGES]
    decoder = says_of_tokens(out)
    assert decoder["<image>"]["special"]
    assert not decoder["<ground>"]["special"]


def says_of_tokens(folder: Path) -> dict[str, dict]:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    return {token["content"]: token for token in config["added_tokens_decoder"].values()}


def test_ours_to_the_published_form_and_back_gives_equal_tensors(tmp_path: Path) -> None:
    write_reference_folder(tmp_path / "m")
    first, text = load(tmp_path / "m")
    for number in (1, 2):
        folder = tmp_path / str(number)
        save_student(first, text, folder)
        # As the published training leaves it: no section of ours, its unused heads, another shard.
        config = json.loads((folder / "config.json").read_text())
        del config["threedrs"]
        (folder / "config.json").write_text(json.dumps(config))
        tensors = load_file(folder / "model.safetensors")
        extra = {n: torch.zeros(s).bfloat16() for n, s in head_shapes().items() if n in UNUSED}
        save_file(tensors | extra, folder / "model.safetensors")
        again, text = load(folder)
        assert_same(again.state_dict(), first.state_dict())
        assert text(TEXT)["input_ids"] == load_tokenizer(tmp_path / "m")(TEXT)["input_ids"]
        assert text.decode(text(TEXT)["input_ids"], skip_special_tokens=True) == (
            "Is the <ground> at <coord>?\n\n"
        )


def test_a_base_with_padding_rows_is_cut_to_its_tokens(tmp_path: Path) -> None:
    """The published training cuts both matrices and starts the two rows as the mean of the rest."""
    tensors = write_reference_folder(tmp_path / "m", sharded=False, vocab_size=TOKENS + 30)
    base = {name: tensors[name] for name in base_shapes()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        base[name] = torch.cat([tensors[name], torch.full((30, WIDTH), 9.0).bfloat16()])
    save_file(base, tmp_path / "m/model.safetensors")
    whole = json.loads((tmp_path / "m/tokenizer.json").read_text())
    whole["added_tokens"] = whole["added_tokens"][:-2]
    (tmp_path / "m/tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "m/added_tokens.json").unlink()
    config = json.loads((tmp_path / "m/tokenizer_config.json").read_text())
    for number in (TOKENS - 2, TOKENS - 1):
        del config["added_tokens_decoder"][str(number)]
    (tmp_path / "m/tokenizer_config.json").write_text(json.dumps(config))
    student, text = load(tmp_path / "m", teacher_channels=8)
    assert len(text) == TOKENS
    for own in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        matrix = student.get_parameter(own)
        old = base[student.family.tensor_names.published_name(own)][: TOKENS - 2]
        assert matrix.shape == (TOKENS, WIDTH)
        assert torch.equal(matrix[:-2], old)
        assert torch.equal(matrix[-2:], old.float().mean(0).bfloat16().expand(2, -1))


def test_one_token_of_two_is_refused(tmp_path: Path) -> None:
    write_reference_folder(tmp_path / "m")
    text = load_tokenizer(tmp_path / "m")
    assert not add_tokens(text)
    for name in ("tokenizer.json", "added_tokens.json", "tokenizer_config.json"):
        path = tmp_path / "m" / name
        path.write_text(path.read_text().replace("<coord>", "<other>"))
    with pytest.raises(CheckpointError, match="has only one of <ground> and <coord>"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "run", ["3drs", "baseline", "lora-16", "LLaMA", "yi_seed", "Moe", "flying", "seed-43"]
)
def test_the_name_of_a_folder_chooses_the_loader(run: str) -> None:
    name = reference_name(run)
    assert "llava" in name.lower()
    assert "qwen" in name.lower()
    assert not any(word in name.lower() for word in ("lora", "moe", "llama", "yi"))
    assert name == f"llava-qwen-{run}" or run not in ("3drs", "baseline", "seed-43")
