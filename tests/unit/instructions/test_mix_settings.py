"""Settings of a training mix: what is asked of a source, and what is refused."""

from typing import Any

import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config.load import load_config
from threedrs.errors import ConfigError
from threedrs.instructions.mix_settings import MixSettings, SourceSampling


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"balance": "some"}, "balance is 'some'; choose one of: all, sampling"),
        ({"balance": "all", "size": 5}, "balance all has no key size; remove it"),
        ({"balance": "temperature", "temperature": 2}, "balance temperature needs the key size"),
        ({"balance": "weights", "size": 2}, "balance weights needs the key weights"),
        ({"balance": "temperature", "temperature": 0, "size": 1}, "temperature: 0 is less than"),
        ({"balance": "temperature", "temperature": float("nan"), "size": 1}, "a finite number"),
        (
            {"balance": "weights", "weights": {"sqa3d": -1}, "size": 1},
            "weights.sqa3d: -1 is less than",
        ),
        ({"balance": "sampling", "sampling": {"sqa3d": "last:3"}}, "write all, first:N, end:N"),
        ({"balance": "sampling", "sampling": {"sqa3d": "random:-3"}}, "sampling.sqa3d is"),
        ({"balance": "all", "caps": {"max_per_scene": 0}}, "caps.max_per_scene: 0 is less than"),
        ({"balance": "all", "matching": "(red"}, "matching: '(red' is not a regular expression"),
        ({"balance": "all", "seed": -1}, "seed: -1 is less than"),
        ({"balance": "all", "shuffle": True}, "shuffle is not a key; valid keys: balance"),
    ],
)
def test_refused_settings(mix: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        MixSettings(**mix)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "available", "count"),
    [
        ("all", 7, 7),
        ("random:3", 7, 3),
        ("first:50%", 7, 4),
        ("end:0.1%", 3000, 3),
        ("end:200%", 2, 4),
    ],
)
def test_counts(text: str, available: int, count: int) -> None:
    assert SourceSampling.parse(text, "x").count(available) == count


def test_the_configuration_reports_bad_mixes_at_start() -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    config["instructions"]["mixes"] |= {
        "a": {"balance": "temperature", "size": 3},
        "b": {"balance": "sampling", "sampling": {"sqa3d": "some"}},
    }
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert "instructions.mixes.a: balance temperature needs the key temperature" in str(error.value)
    assert "instructions.mixes.b: sampling.sqa3d is 'some'" in str(error.value)
