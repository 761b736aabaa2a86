"""The register of backbones, and a family that another package brings along."""

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.plain_answers import plain_choices
from fixtures.repository import ROOT
from fixtures.students import BOX_IDS, MIXED, TEXT, scene
from fixtures.toy_backbone import ToyFamily
from threedrs.config.load import check_config
from threedrs.config.schema import SupervisionSettings
from threedrs.config.yaml_files import read_yaml
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.backbones import known_backbones
from threedrs.models.backbones.family import TensorNames
from threedrs.models.backbones.fused_layers import fuse_projections
from threedrs.models.checkpoint.decoding import Decoding
from threedrs.models.checkpoint.load_save import load_student, save_student
from threedrs.models.inference import SceneSession
from threedrs.models.model_settings import ModelSettings
from threedrs.models.packing import Pack
from threedrs.models.prompt import build_query, build_sample
from threedrs.workflow.code_hash import STAGES
from threedrs.workflow.code_walk import reached_code

ENTRY_POINTS = """[threedrs.backbones]
toy = fixtures.toy_backbone:ToyFamily
half = fixtures.toy_backbone:HalfFamily
lost = fixtures.toy_backbone:LostFamily
grid = fixtures.toy_backbone:VisualGrid
alias = fixtures.toy_backbone:ToyFamily
qwen2-vl = fixtures.toy_backbone:ToyFamily
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package with backbones, as pip leaves it."""
    folder = tmp_path / "site" / "toy-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(folder.parent)
    known_backbones._known.cache_clear()
    yield
    known_backbones._known.cache_clear()


def test_a_family_of_another_package_learns_is_saved_and_answers(tmp_path: Path) -> None:
    settings = ModelSettings(name="toy")
    assert settings.frame_tokens == 81
    student, tokenizer = load_student(settings, teacher_channels=16)
    seen = scene(grid=student.family.grid)
    samples = [build_sample(one, BOX_IDS, tokenizer, label_chat_tokens=True) for one in MIXED]
    pack = Pack(scene=seen, samples=tuple(samples))
    losses = student(pack, SupervisionSettings())
    losses.total(1.0).backward()
    assert all(parameter.grad is not None for parameter in student.projector.parameters())

    save_student(student, tokenizer, tmp_path / "model")
    again, _ = load_student(ModelSettings(path=tmp_path / "model"))  # the folder says which family
    found = again(pack, SupervisionSettings())
    torch.testing.assert_close(found.text_K, losses.text_K)
    torch.testing.assert_close(found.supervision, losses.supervision)

    session = SceneSession(again, tokenizer, seen, prompt="reference")
    query = build_query(TEXT, tokenizer, prompt="reference")
    assert len(session.ground_all([query])[0]) == len(BOX_IDS) + 1
    with torch.no_grad():
        # Norms of queries and keys that are not 1, as Qwen3 begins with, have to reach the passes.
        for layer in again.language_model.model.layers:
            for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
                norm.weight.copy_(torch.linspace(0.5, 3.0, len(norm.weight)))
    plain = deepcopy(again)
    for _ in range(2):
        session = SceneSession(again, tokenizer, seen, prompt="reference")
        session.decoding = Decoding(ends=frozenset())
        (answer,) = session.generate([query], max_new_tokens=9)
        assert plain_choices(plain, query, answer, seen)[0][:9] == answer
        fuse_projections(again.language_model)


def test_a_part_without_a_name_to_be_saved_by_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nameless = TensorNames(pairs=(("model.tower.", "vision_tower."),))
    monkeypatch.setattr(ToyFamily, "tensor_names", nameless)
    with pytest.raises(ConfigError, match=r"^projector\.weight: no pair of the backbone's tensor_"):
        load_student(ModelSettings(name="toy"), teacher_channels=16)


def test_a_field_that_is_not_saved_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(self: ToyFamily, teacher_channels: int, dtype: str) -> dict[str, Any]:
        fields = whole(self, teacher_channels, dtype)
        return {name: fields[name] for name in fields if name != "rope_theta"}

    whole = ToyFamily.config_json
    monkeypatch.setattr(ToyFamily, "config_json", forgetful)
    message = (
        r"^model\.name toy: what config_json writes .* another rope_parameters of the text_config"
    )
    with pytest.raises(ConfigError, match=message):
        load_student(ModelSettings(name="toy"), teacher_channels=16)


def test_names_are_ours_and_then_those_of_known() -> None:
    names = known_backbones.backbone_names()
    assert names[:3] == ("llava-video", "llava-onevision", "qwen2-vl")
    assert sorted(names[3:]) == ["alias", "grid", "half", "lost", "toy"]
    assert known_backbones.find_family("qwen2-vl").model_type == "qwen2_vl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llava_video", r"is 'llava_video'; choose .*did you mean llava-video\?"),
        ("zebra", "is 'zebra'; choose one of: llava-video, llava-onevision, qwen2-vl"),
        (
            "half",
            r"half \(entry point .*toy_backbone:HalfFamily .* lacks config_json, read;",
        ),
        ("lost", "lost .* cannot be loaded: AttributeError"),
        ("grid", "grid .* is not a subclass of .*Family"),
        ("alias", "alias .*: its checkpoints do not list alias"),
    ],
)
def test_a_name_that_means_no_family_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        ModelSettings(name=name)
    assert "\n" not in str(raised.value)


def test_a_package_that_cannot_be_loaded_hides_no_other_problem() -> None:
    config = read_yaml(ROOT / "config/config.yaml")
    model = {"name": "lost", "path": "nowhere"}
    _, problems = check_config({**config, "model": model, "report": {"baseline": "none"}})
    assert problems[0].startswith("report.baseline is 'none'")
    told = [line for line in problems if line.startswith("runs.3drs: model.")]
    assert len(told) == 2
    assert "lost" in told[0]
    assert "model.path: nowhere is not a folder; " in told[1]


def test_weights_to_fetch_are_those_of_the_family() -> None:
    with pytest.raises(CheckpointError, match=r"fetch us/toy \(about 1 GB, MIT\)"):
        ModelSettings(name="toy", size="7b")


def test_the_configuration_is_checked_without_torch() -> None:
    code = (
        "import sys, threedrs.models.model_settings as s; s.ModelSettings(name='qwen2-vl', grid=7)"
    )
    # The file of a family is imported too, by whoever copies this one.
    code += (
        "; import fixtures.toy_backbone; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "tests")


def test_every_family_of_ours_counts_in_the_code_of_training() -> None:
    reached = {module for module, _ in reached_code(STAGES["train"].entries)}
    files = Path(known_backbones.__file__).parent.glob("*.py")
    expected = {f"threedrs.models.backbones.{file.stem}" for file in files}
    assert expected - {"threedrs.models.backbones.__init__"} <= reached
