"""The settings of a student."""

from pathlib import Path

import pytest

from threedrs.config.schema import SupervisionSettings
from threedrs.errors import CheckpointError, ConfigError
from threedrs.models.model_settings import ModelSettings


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"name": "llava"}, ConfigError, "model.name is 'llava'; choose one of: llava-video"),
        ({"size": "13b"}, ConfigError, "choose one of: tiny, mini, small, 7b"),
        ({"attention": "xla"}, ConfigError, "choose one of: auto, sdpa, flash"),
        ({"coordinate_dtype": "int8"}, ConfigError, "choose one of: float32, bfloat16, float16"),
        ({"seed": -1}, ConfigError, "model.seed: -1 is less than"),
        ({"size": "7b"}, CheckpointError, "LLaVA-Video-7B-Qwen2 .*16 GB, Apache-2.0.*model.path"),
        (
            {"size": "7b", "name": "llava-onevision"},
            CheckpointError,
            "fetch lmms-lab/llava-onevision-qwen2-7b-ov .*random_weights: true",
        ),
        ({"size": "7b", "name": "qwen2-vl"}, CheckpointError, "Qwen/Qwen2-VL-7B-Instruct"),
        ({"random_weights": True, "path": Path("m")}, ConfigError, "model.path names a checkpoint"),
    ],
)
def test_bad_settings(values: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ModelSettings(**values)


@pytest.mark.parametrize(
    ("file", "name", "grid"),
    [
        (None, "qwen2-vl", None),  # on its way
        ("{}", "qwen2-vl", 14),
        ('{"threedrs": {}}', "qwen2-vl", 14),
        ('{"threedrs": {"grid": 7}}', "qwen2-vl", 7),
        ('{"threedrs": {"grid": 7}}', None, 7),
        ("{}", None, None),  # whose grid it is, the family in the file decides
    ],
)
def test_the_grid_of_a_checkpoint(
    tmp_path: Path, file: str | None, name: str | None, grid: int | None
) -> None:
    if file is not None:
        (tmp_path / "config.json").write_text(file)
    settings = ModelSettings(name=name, path=tmp_path)
    assert settings.known_grid == grid
    if name is not None:
        assert settings.frame_tokens == (None if grid is None else grid * grid)


def test_settings_from_config() -> None:
    config = {
        "model": {
            "name": "qwen2-vl",
            "size": "tiny",
            "path": None,
            "grid": 7,
            "attention": "flash",
            "random_weights": True,
        },
        "geometry": {"coordinate_dtype": "bfloat16"},
        "train": {"seed": 7},
        "supervision": {"weight": 0.5, "loss": "both", "layer": 1},
    }
    settings = ModelSettings.from_config(config)
    assert (settings.name, settings.grid, settings.attention) == ("qwen2-vl", 7, "flash")
    assert settings.random_weights
    assert (settings.seed, settings.coordinate_dtype, settings.path) == (7, "bfloat16", None)
    supervision = SupervisionSettings(**config["supervision"])
    assert (supervision.weight, supervision.loss, supervision.layer) == (0.5, "both", 1)
