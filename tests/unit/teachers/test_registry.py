"""The table of teachers, and the picture teachers of transformers: weights, order, errors."""

import io
import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import Dinov2Model, SiglipModel, SiglipVisionModel, ViTMAEForPreTraining

from fixtures.repository import ROOT
from fixtures.teacher_scenes import payload, write_scene
from threedrs.config.resources import TEACHER_NEEDS
from threedrs.errors import CheckpointError, ConfigError, StoreError
from threedrs.teachers import dinov2, mae, siglip2
from threedrs.teachers.extract import TeacherSettings, extract_shard
from threedrs.teachers.registry import (
    NO_TEACHER,
    TEACHERS,
    get_teacher,
    open_source,
    teacher_channels,
    weight_files,
    weights_of,
    weights_problem,
)
from threedrs.teachers.store import FeatureStore
from threedrs.teachers.verify import verify_store
from threedrs.teachers.vggt.weights import fill_random

RIVALS = {"dinov2": dinov2, "siglip2": siglip2, "mae": mae}


def published(name: str, folder: Path, **changes: int) -> Path:
    """Write a model folder as the Hub has it: with text tower, decoder, config.json."""
    config = RIVALS[name].TINY | changes
    if name == "dinov2":
        model = Dinov2Model(Dinov2Model.config_class(**config))
    elif name == "mae":
        decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
        decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
        model = ViTMAEForPreTraining(ViTMAEForPreTraining.config_class(**config, **decoder))
    else:
        text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "vocab_size": 50, "projection_size": 64}
        whole = SiglipModel.config_class(text_config=text, vision_config=config)
        model = SiglipModel(whole)
    fill_random(model, 7)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


# --- the table ------------------------------------------------------------------------------------


def test_channels(tmp_path: Path) -> None:
    assert {
        name: teacher_channels(name) for name in (*TEACHERS, NO_TEACHER) if name != "import"
    } == {
        "vggt": 2048,
        "dinov2": 1024,
        "siglip2": 1152,
        "mae": 1024,
        "pointmap": 53,
        "vggt-tiny": 768,
        "dinov2-tiny": 64,
        "siglip2-tiny": 64,
        "mae-tiny": 64,
        "none": 0,
    }
    with pytest.raises(ConfigError, match="known once features are extracted"):
        teacher_channels("import")
    with pytest.raises(ConfigError, match="'clip' is unknown; choose one of vggt, dinov2"):
        teacher_channels("clip")
    with pytest.raises(ConfigError, match="'clip' has no features to extract"):
        get_teacher("clip")


def test_channels_of_stores_count(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scenes", 1)
    shards = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    extract_shard([scene], TeacherSettings(name="mae-tiny"), shards[0])
    extract_shard([scene], TeacherSettings(name="pointmap"), shards[1])
    assert teacher_channels("import", shards[:1]) == 64
    with pytest.raises(StoreError, match=r"b\.zarr: features of 53 channels, .*a\.zarr has 64"):
        teacher_channels("mae", shards)


def test_the_schema_and_the_rules_know_every_teacher() -> None:
    schema = (ROOT / "workflow/schemas/config.schema.yaml").read_text()
    line = next(text for text in schema.splitlines() if "enum: [vggt," in text)
    names = [name.strip(" ]") for name in line.split("[")[1].split(",")]
    assert names == [*TEACHERS, NO_TEACHER]
    docs = (ROOT / "docs/TEACHERS.md").read_text()
    for name in TEACHERS:
        assert TEACHER_NEEDS[name]["gpu"] == int(TEACHERS[name].on_gpu)
        assert f"`{name}`" in docs


def test_weights_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.touch()
    assert weights_of({"weights": "a"}, "vggt") == Path("a")
    assert weights_of({"weights": "a"}, "pointmap") is None
    both = {"weights": {"vggt": str(file), "dinov2": str(tmp_path)}}
    assert weights_of(both, "dinov2") == tmp_path
    assert weights_of(both, "mae") is None
    assert weights_problem(both, "vggt") is None
    assert weights_problem(both, "dinov2") is None
    assert weights_problem({"weights": None}, "mae") is None  # the Hub's
    assert "needs teacher.weights" in str(weights_problem({"weights": None}, "import"))
    assert "is not a folder" in str(weights_problem({"weights": str(file)}, "mae"))
    assert "is not a file" in str(weights_problem({"weights": str(tmp_path)}, "vggt"))
    (tmp_path / "scene0001_00.npz").touch()
    scenes = ["scene0000_00", "scene0001_00"]
    here = {"weights": str(tmp_path)}
    assert weight_files(here, "import", scenes) == [tmp_path / "scene0001_00.npz"]
    assert weight_files({"weights": str(file)}, "vggt", scenes) == [file]


# --- picture teachers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIVALS)
def test_published_folders_give_the_same_features_as_the_plain_model(
    name: str, tmp_path: Path
) -> None:
    folder = published(name, tmp_path / "model")
    scene = write_scene(tmp_path / "scenes", 3)
    settings = TeacherSettings(name=name, weights=folder, grid="full")
    manifest = extract_shard([scene], settings, tmp_path / "a.zarr")
    found = FeatureStore.open(tmp_path / "a.zarr").features("scene0003_00")
    assert manifest["channels"] == 64
    assert verify_store(tmp_path / "a.zarr") == []

    size = (224, 168) if name == "dinov2" else (112, 112)
    patch = 14 if name == "dinov2" else 8
    mean, std = (0.5, 0.5) if name == "siglip2" else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for frame, seed in enumerate((30, 31)):
        with Image.open(io.BytesIO(payload(seed))) as picture:
            resized = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        pixels = (np.asarray(resized) / 255 - mean) / std
        x = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            if name == "mae":  # the encoder by hand: nothing masked, so nothing shuffled
                encoder = ViTMAEForPreTraining.from_pretrained(folder).vit.eval()
                parts = encoder.embeddings
                tokens = parts.patch_embeddings(x) + parts.position_embeddings[:, 1:]
                first = parts.cls_token + parts.position_embeddings[:, :1]
                tokens = torch.cat((first, tokens), dim=1)
                for layer in encoder.layers:
                    tokens = layer(tokens)
                expected = encoder.layernorm(tokens)[0, 1:]
            elif name == "dinov2":
                expected = Dinov2Model.from_pretrained(folder).eval()(x).last_hidden_state[0, 1:]
            else:
                model = SiglipVisionModel.from_pretrained(folder).eval()
                expected = model(x).last_hidden_state[0]
        rows, columns = size[1] // patch, size[0] // patch
        assert found[frame].shape == (rows, columns, 64)
        np.testing.assert_allclose(
            found[frame], expected.reshape(rows, columns, 64), atol=4e-3, rtol=4e-3
        )


@pytest.mark.parametrize("name", RIVALS)
def test_tiny_teachers_depend_on_seed_and_picture(name: str, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scenes", 2)
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        settings = TeacherSettings(name=f"{name}-tiny", seed=seed)
        manifest = extract_shard([scene], settings, tmp_path / f"{number}.zarr")
        digests.append(manifest["scenes"]["scene0002_00"]["features_sha256"])
    assert digests[0] == digests[1] != digests[2]
    features = torch.from_numpy(FeatureStore.open(tmp_path / "0.zarr").features("scene0002_00"))
    assert features.shape == (2, 14, 14, 64)
    cosine = functional.cosine_similarity(features[0].float(), features[1].float(), dim=-1)
    assert cosine.mean() < 0.999  # two pictures, two features


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", RIVALS)
def test_offline_without_a_folder_the_error_says_what_to_fetch(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_source(TeacherSettings(name=name))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"teacher {name}: teacher.weights is not set and")
    assert RIVALS[name].PUBLISHED.repository in text
    assert "GB, Apache-2.0 licence" in text
    assert "set teacher.weights" in text
    with pytest.raises(CheckpointError, match=r"nowhere: there is no such folder; download"):
        open_source(TeacherSettings(name=name, weights=tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"holds no config\.json or no weights; download"):
        open_source(TeacherSettings(name=name, weights=tmp_path))


def test_other_and_damaged_model_folders_are_named(tmp_path: Path) -> None:
    folder = published("dinov2", tmp_path / "dinov2")
    with pytest.raises(CheckpointError, match="model_type is 'dinov2', teacher mae needs vit_mae"):
        open_source(TeacherSettings(name="mae", weights=folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    scene = write_scene(tmp_path / "scenes", 1)
    settings = TeacherSettings(name="dinov2", weights=folder)
    with pytest.raises(CheckpointError, match=r"is not facebook/dinov2-large: .*layer\.2\."):
        extract_shard([scene], settings, tmp_path / "a.zarr")
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read as facebook/dinov2-large") as caught:
        extract_shard([scene], settings, tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    settings = TeacherSettings(name="mae", weights=published("mae", tmp_path / "mae"))
    before = open_source(settings).identify("")
    published("mae", tmp_path / "mae", num_hidden_layers=1)
    assert open_source(settings).identify("") != before
