"""The list of teachers, a teacher from outside the package, the image encoders of transformers."""

import builtins
import io
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional
from transformers import Dinov2Model, SiglipModel, SiglipVisionModel, ViTMAEForPreTraining

from fixtures.repository import ROOT
from fixtures.teacher_scenes import payload, write_scene
from threedrs.config.load import load_config, resolve_run
from threedrs.errors import CheckpointError, ConfigError, StoreError
from threedrs.teachers.extract import extract_shard
from threedrs.teachers.feature_shards import verify_store
from threedrs.teachers.feature_store import FeatureStore
from threedrs.teachers.hub_encoders import DINOV2, MAE, SIGLIP2
from threedrs.teachers.known_teachers import (
    NO_TEACHER,
    TEACHERS,
    get_teacher,
    open_extractor,
    teacher_channels,
    teacher_code_hash,
    teacher_settings,
    weight_files,
    weights_of,
    weights_problem,
)
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.vggt.weights import fill_random
from threedrs.workflow.code_hash import _hash as code_hash

RIVALS = {"dinov2": DINOV2, "siglip2": SIGLIP2, "mae": MAE}


def published(name: str, folder: Path, **changes: int) -> Path:
    """Write a model folder as the Hub has it: with text tower, decoder, config.json."""
    config = {**RIVALS[name].tiny, **changes}
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
        "random": 53,
        "vggt-tiny": 768,
        "dinov2-tiny": 64,
        "siglip2-tiny": 64,
        "mae-tiny": 64,
        "none": 0,
    }
    with pytest.raises(ConfigError, match="known once features are extracted"):
        teacher_channels("import")
    with pytest.raises(ConfigError, match="'clip' is unknown; choose one of: vggt, dinov2"):
        teacher_channels("clip")
    with pytest.raises(ConfigError, match=r"'vgtt-tiny' is unknown; .*did you mean vggt-tiny\?"):
        get_teacher("vgtt-tiny")
    with pytest.raises(ConfigError, match="'none' has no features to extract"):
        get_teacher(NO_TEACHER)


def test_channels_of_stores_count(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scenes", 1)
    shards = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    extract_shard([scene], TeacherSettings(name="vggt-tiny"), shards[0])
    extract_shard([scene], TeacherSettings(name="pointmap"), shards[1])
    assert teacher_channels("import", shards[:1]) == 768
    with pytest.raises(StoreError, match=r"b\.zarr: features of 53 channels, .*a\.zarr has 768"):
        teacher_channels("mae", shards)


def test_the_schema_and_the_rules_know_every_teacher() -> None:
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    names = schema["$defs"]["Teacher"]["properties"]["name"]["anyOf"][0]["enum"]
    assert names == [*TEACHERS, NO_TEACHER]
    docs = (ROOT / "docs/TEACHERS.md").read_text()
    for name in TEACHERS:
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


def test_the_descriptions_of_teachers_do_not_import_what_computes() -> None:
    program = (
        "import sys, threedrs.teachers.known_teachers\n"
        "heavy = {'torch', 'transformers', 'zarr', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from threedrs.teachers.vggt import VGGTAggregator\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- a teacher outside the package ----------------------------------------------------------------

OUTSIDE = """
import hashlib
import numpy as np
from threedrs.scenes.store import SceneStore
from threedrs.teachers.teacher import LAST, SceneFeatures, Teacher, Weights, job_needs

DOUBLED = {factor}


class MeanColour:
    recipe = {{}}

    def __init__(self, weights):
        self.weights = weights

    def identify(self, scene):
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def features(self, due, *, grid):
        for path, origin in due.items():
            colour_V3 = SceneStore.open(path).rgb().mean((1, 2)) + DOUBLED
            features = np.broadcast_to(colour_V3[:, None, None], (len(colour_V3), 14, 14, 3))
            yield SceneFeatures(
                origin=origin, taps={{LAST: features.astype(np.float16)}}, input_size=(384, 384)
            )


COLOUR = Teacher(
    name="colour",
    description="mean colour of a frame",
    channels=3,
    open=lambda settings: MeanColour(settings.weights),
    needs=job_needs(gpu=0, mem_mb=1000, runtime=10),
    weights=Weights(kind="file", what="any file"),
)
"""


def write_outside(folder: Path, monkeypatch: pytest.MonkeyPatch, factor: int = 2) -> str:
    """Write a module with a teacher as a user may have it; return its import path."""
    (folder / "my_lab").mkdir(exist_ok=True)
    (folder / "my_lab" / "teachers.py").write_text(OUTSIDE.format(factor=factor))
    monkeypatch.syspath_prepend(folder)
    for name in ("my_lab", "my_lab.teachers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_lab.teachers:COLOUR"


def test_a_teacher_outside_the_package_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_outside(tmp_path, monkeypatch)
    weights = tmp_path / "weights"
    section = {"name": name, "weights": {name: str(weights)}, "seed": 0, "grid": 14}
    assert (
        weights_problem(section, name) == f"teacher.weights: {weights} is not a file; "
        "docs/TEACHERS.md says more"
    )
    weights.touch()
    assert weights_problem(section, name) is None
    assert weight_files(section, name, ["scene0001_00"]) == [weights]
    assert teacher_channels(name) == 3
    scene = write_scene(tmp_path / "scenes", 1)
    manifest = extract_shard([scene], teacher_settings(section), tmp_path / "a.zarr")
    assert manifest["teacher"] == name
    assert manifest["channels"] == 3
    assert verify_store(tmp_path / "a.zarr") == []
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "a.zarr").features("scene0001_00"), 2
    )

    # An edit of the user's file makes the features stale; an edit of a comment does not.
    before = teacher_code_hash(name)
    file = tmp_path / "my_lab" / "teachers.py"
    file.write_text(file.read_text() + "# A comment.\n")
    code_hash.cache_clear()
    assert teacher_code_hash(name) == before
    write_outside(tmp_path, monkeypatch, factor=4)
    code_hash.cache_clear()
    assert teacher_code_hash(name) != before


def test_the_configuration_names_a_teacher_outside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_outside(tmp_path, monkeypatch)
    (tmp_path / "weights").touch()
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["teacher"] |= {"name": name, "weights": str(tmp_path / "weights")}
    checked = load_config(config)
    assert checked["teacher"]["name"] == name
    assert resolve_run(checked, "3drs")["teacher"]["name"] == name
    config["teacher"]["name"] = "vggt-tinny"
    with pytest.raises(ConfigError, match=r"is 'vggt-tinny'; choose .*; did you mean vggt-tiny\?"):
        load_config(config)
    config["teacher"]["name"] = "my_lab.nothing:COLOUR"
    with pytest.raises(ConfigError, match=r"my_lab\.nothing cannot be imported"):
        load_config(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_lab.nothing:COLOUR", r"my_lab\.nothing cannot be imported \(No module named"),
        ("my_lab.teachers:COLOR", r"has no threedrs\.teachers\.teacher\.Teacher .*mean COLOUR\?"),
        ("my_lab.teachers:MeanColour", r"of the name MeanColour; it has COLOUR"),
    ],
)
def test_a_mistyped_import_path_is_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outside(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=message) as caught:
        get_teacher(name)
    assert "\n" not in str(caught.value)


# --- image teachers ------------------------------------------------------------------------------


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
def test_tiny_teachers_depend_on_seed_and_image(name: str, tmp_path: Path) -> None:
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
    assert cosine.mean() < 0.999  # two images, two features


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", RIVALS)
def test_offline_without_a_folder_the_error_says_what_to_fetch(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_extractor(TeacherSettings(name=name))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"teacher {name}: teacher.weights is not set and")
    assert RIVALS[name].repository in text
    assert "GB, Apache-2.0 licence" in text
    assert "set teacher.weights" in text
    with pytest.raises(CheckpointError, match=r"nowhere is not a folder; download"):
        open_extractor(TeacherSettings(name=name, weights=tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"holds no config\.json or no weights; download"):
        open_extractor(TeacherSettings(name=name, weights=tmp_path))


def test_other_and_damaged_model_folders_are_named(tmp_path: Path) -> None:
    folder = published("dinov2", tmp_path / "dinov2")
    with pytest.raises(CheckpointError, match="model_type is 'dinov2', teacher mae needs vit_mae"):
        open_extractor(TeacherSettings(name="mae", weights=folder))
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
    before = open_extractor(settings).identify("")
    published("mae", tmp_path / "mae", num_hidden_layers=1)
    assert open_extractor(settings).identify("") != before


def test_code_that_a_model_folder_brings_along_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def agrees(*arguments: object) -> str:
        asked.append(arguments)
        return "y"

    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", agrees)
    mark = tmp_path / "was_run"
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    described = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        open_extractor(TeacherSettings(name="dinov2", weights=tmp_path))
    assert not mark.exists()
    assert not asked
