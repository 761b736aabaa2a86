"""The shipped configurations are valid; defaults are filled in; cross-checks name what is wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config.load import load_config, resolve_run
from threedrs.errors import ConfigError
from threedrs.tasks.registry import TASKS


def problems_of(config: dict) -> list[str]:
    """Return what is wrong with the run `3drs`, a line each."""
    config["runs"] = {"3drs": {}, "baseline": {"teacher": {"name": "none"}}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    lines = str(error.value).splitlines()
    return [line.removeprefix("config: ") for line in lines if "baseline" not in line]


def test_the_default_is_valid_and_complete(config: dict) -> None:
    loaded = load_config(config)
    assert loaded["frames"] == config["frames"]
    baseline = resolve_run(loaded, "baseline")
    assert baseline["teacher"]["name"] == "none"
    assert resolve_run(loaded, "3drs")["teacher"]["name"] == config["teacher"]["name"]
    assert "runs" not in baseline


def test_defaults_are_filled_in(config: dict) -> None:
    del config["frames"]["stride"], config["data"]["scans"]
    loaded = load_config(config)
    assert loaded["frames"]["stride"] == 10
    assert loaded["data"]["scans"] == "scannet/scans"


def test_the_papers_recipe(config: dict) -> None:
    paper = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    for section, values in paper.items():
        config[section].update(values)
    config["data"]["root"] = "."  # there, unlike what users put there
    train = config["train"]
    assert (train["global_batch"], train["pack"], config["frames"]["count"]) == (16, 1, 32)
    assert (train["learning_rate"], train["learning_rate_vision_tower"]) == (1e-5, 2e-6)
    with pytest.raises(ConfigError, match=r"teacher\.weights") as error:
        load_config(config)
    # Only what nobody ships is missing.
    for line in str(error.value).splitlines():
        assert "data/models" in line


def test_pages_about_other_data_than_the_demos_do_not_name_it() -> None:
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "config").glob("*.yaml")]
    others = [file for file in files if file.get("data", {"demo": {}}).get("demo", {}) is None]
    assert len(others) == 2  # paper.yaml and published.yaml
    assert not [file for file in others if "demo" in file.get("report", {}).get("title", "demo")]


def test_each_model_is_asked_as_it_is_meant_to_be() -> None:
    """The paper's as published; the demo's student as it was trained, on any folder."""
    layers = {
        name: yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()).get("eval", {})
        for name in ("config", "paper", "published")
    }
    assert (layers["config"] | layers["published"])["prompt"] == "as_trained"
    assert (layers["config"] | layers["paper"] | layers["published"])["prompt"] == "reference"


def test_defaults_of_the_demo_are_filled_in(config: dict) -> None:
    config["data"]["demo"] = {"scenes": 4, "seed": 0}
    filled = load_config(config)["data"]["demo"]
    assert filled == {"scenes": 4, "seed": 0, "frames": 104, "rounds": 1, "things": False}


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("supervision", {"weight": float("nan")}, "supervision.weight is nan; expected a finite"),
        ("train", {"learning_rate": float("inf")}, "train.learning_rate is inf; expected a finite"),
        ("train", {"learning_rate": "1e-5"}, "to YAML this is a text, write 1.0e-05"),
        ("runs", {42: {"train": {"seed": 42}}}, "runs: the key 42 is not a text to YAML"),
        (
            "data",
            {"splits": "scannet/{nope}{split}.txt"},
            "data.splits: .* cannot be filled in; in braces",
        ),
        (
            "data",
            {"splits": "scannet/{set}{split}.txt"},
            "data.splits: .* cannot be filled in; in braces",
        ),
        ("boxes", {"ready": "{split}/{set}/{0}"}, "boxes.ready: .* cannot be filled in"),
    ],
)
def test_what_a_schema_does_not_see_is_named(
    config: dict, section: str, change: dict, line: str
) -> None:
    config[section].update(change)
    with pytest.raises(ConfigError, match=line) as error:
        load_config(config)
    assert "\n" not in str(error.value)


def test_a_benchmark_that_lacks_a_part_is_named_at_the_start(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "scanqa", replace(TASKS["scanqa"], measure=None))
    with pytest.raises(ConfigError, match="benchmark scanqa: lacks measure; docs/ADD_A_BENCHMARK"):
        load_config(config)


def test_a_bad_download_hides_nothing(config: dict) -> None:
    config["download"] = [
        {"repo": "a/b", "files": ["../x", "/y"], "to": "data"},
        {"repo": "a/c", "files": ["x"], "to": "data", "sha256": {"z": 64 * "0"}},
    ]
    config["train"]["mix"] = "none"
    lines = problems_of(config)
    assert lines[:3] == [
        "download of a/b: ../x leads out of data",
        "download of a/b: /y leads out of data",
        "download of a/c: sha256 names z, files does not",
    ]
    assert lines[3].startswith("runs.3drs: train.mix is 'none'")


def test_the_shipped_settings_keep_their_text(config: dict) -> None:
    """Whoever runs them as they are has the hashes that the files' own text gives."""
    loaded = load_config(config)
    for section in ("frames", "supervision", "model", "train", "execution"):
        assert json.dumps(loaded[section], sort_keys=True) == json.dumps(
            config[section], sort_keys=True
        )


def test_a_checkpoint_that_is_missing_is_looked_for_beside(config: dict, tmp_path: Path) -> None:
    (tmp_path / "train/3drs/model").mkdir(parents=True)
    (tmp_path / "train/3drs-b").mkdir()  # nearer by name would be no help without a model
    config["runs"]["own"] = {"checkpoint": f"{tmp_path}/train/3dr/model"}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert str(error.value).endswith(
        f"3dr/model is not a folder; did you mean {tmp_path}/train/3drs/model?"
    )
    config["runs"]["own"] = {"checkpoint": "elsewhere/model"}
    with pytest.raises(ConfigError, match="not a folder; correct the path, or put the checkpoint"):
        load_config(config)


def test_a_backbone_that_is_missing_says_where_to_get_it(config: dict) -> None:
    config["model"] = {"name": "llava-video", "size": "7b", "path": "models/LLaVA-Video-7B-Qwen2"}
    there = r"there \(lmms-lab/LLaVA-Video-7B-Qwen2 of the Hugging Face Hub, 16 GB\)"
    with pytest.raises(ConfigError, match=there):
        load_config(config)
    config["model"]["path"] = "models/own"  # may be anything
    with pytest.raises(ConfigError, match=r"put the checkpoint there$"):
        load_config(config)
