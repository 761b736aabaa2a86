"""Loading the aggregator's checkpoint: strict, and safe against hostile files."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fixtures.vggt_models import SMALL, empty_model
from threedrs.errors import CheckpointError
from threedrs.teachers.known_teachers import open_extractor
from threedrs.teachers.teacher import TeacherSettings
from threedrs.teachers.vggt.aggregator import VGGTAggregator
from threedrs.teachers.vggt.extractor import tiny_model
from threedrs.teachers.vggt.weights import fill_random, load_aggregator


@pytest.fixture(scope="module")
def source() -> VGGTAggregator:
    model = VGGTAggregator(**SMALL)
    fill_random(model, seed=4)
    return model


@pytest.fixture
def state(source: VGGTAggregator) -> dict[str, Tensor]:
    heads = ("camera_head.token", "point_head.a.weight", "depth_head.b", "track_head.c")
    parameters = {
        f"aggregator.{name}": value.clone() for name, value in source.state_dict().items()
    }
    return parameters | {name: torch.zeros(2) for name in heads}


def save_flat(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "model.pt")
    return folder / "model.pt"


def save_nested(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"model": state, "epoch": 3}, folder / "model.pt")
    return folder / "model.pt"


def save_legacy(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=False)
    return folder / "model.pt"


def save_safe(state: dict[str, Tensor], folder: Path) -> Path:
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize("save", [save_flat, save_nested, save_legacy, save_safe])
def test_every_file_format_gives_the_same_model(
    save: Callable, state: dict[str, Tensor], source: VGGTAggregator, tmp_path: Path
) -> None:
    model = empty_model()
    load_aggregator(model, save(state, tmp_path))
    images = torch.rand(1, 2, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(model(images), source(images))


def test_half_precision_is_loaded_as_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    model = empty_model()
    load_aggregator(model, save_flat({k: v.bfloat16() for k, v in state.items()}, tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def change(state: dict, case: str) -> None:
    if case == "missing":
        del state["aggregator.camera_token"]
    elif case == "unexpected":
        state["aggregator.frame_blocks.7.ls1.gamma"] = torch.zeros(384)
    elif case == "shape":
        state["aggregator.patch_embed.norm.bias"] = torch.zeros(5)
    elif case == "foreign":
        state["optimizer.step"] = torch.zeros(1)
    elif case == "integers":
        state["aggregator.camera_token"] = torch.zeros(1, 2, 1, 384, dtype=torch.int8)
    elif case == "number":
        state["aggregator.camera_token"] = 3


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "aggregator.camera_token is missing"),
        ("unexpected", "aggregator.frame_blocks.7.ls1.gamma is unexpected"),
        ("shape", r"aggregator.patch_embed.norm.bias has shape \(5,\), expected \(384,\)"),
        ("foreign", "optimizer.step is unexpected"),
        ("integers", "aggregator.camera_token is not a tensor of floating-point numbers"),
        ("number", "aggregator.camera_token is not a tensor of floating-point numbers"),
    ],
)
def test_another_checkpoint_is_named(
    case: str, message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    change(state, case)
    path = save_flat(state, tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_aggregator(empty_model(), path)
    assert str(path) in str(caught.value)
    assert "facebook/VGGT-1B" in str(caught.value)


def test_only_the_first_problems_are_listed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"; and \d+ more") as caught:
        load_aggregator(empty_model(), save_flat({}, tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(plain_pickle: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "was_run", tmp_path / "model.pt"
    if plain_pickle:
        path.write_bytes(pickle.dumps({"aggregator.camera_token": Hostile(marker)}))
    else:
        torch.save({"aggregator.camera_token": Hostile(marker)}, path)
    with pytest.raises(CheckpointError, match="holds code or objects other than tensors") as caught:
        load_aggregator(empty_model(), path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 1000, -100])
def test_damaged_files_end_in_one_line(
    name: str, keep: int, state: dict[str, Tensor], tmp_path: Path
) -> None:
    whole = save_flat(state, tmp_path) if name == "model.pt" else save_safe(state, tmp_path)
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=str(whole)) as caught:
        load_aggregator(empty_model(), whole)
    assert "\n" not in str(caught.value)


def test_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds a list, not a state dict"):
        load_aggregator(empty_model(), tmp_path / "model.pt")


def test_without_weights_the_error_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needs teacher\.weights.*licence"):
        open_extractor(TeacherSettings(name="vggt"))
    with pytest.raises(CheckpointError, match=r"nowhere\.pt is not a file.*facebook/VGGT-1B"):
        open_extractor(TeacherSettings(name="vggt", weights=tmp_path / "nowhere.pt"))


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = tiny_model(0).state_dict()
    torch.manual_seed(2)
    again, other = tiny_model(0).state_dict(), tiny_model(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["camera_token"], other["camera_token"])
    hashes = [
        open_extractor(TeacherSettings(name="vggt-tiny", seed=s)).identify("") for s in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
