"""The shipped configurations are valid; runs inherit and override."""

from pathlib import Path

import pytest
import yaml

from threedrs.config import load_config, resolve_run
from threedrs.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(ROOT)
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def test_the_default_is_valid_and_complete(config: dict) -> None:
    loaded = load_config(config, SCHEMA)
    assert loaded["frames"] == config["frames"]
    baseline = resolve_run(loaded, "baseline")
    assert baseline["teacher"]["name"] == "none"
    assert resolve_run(loaded, "3drs")["teacher"]["name"] == config["teacher"]["name"]
    assert "runs" not in baseline


def test_defaults_are_filled_in(config: dict) -> None:
    del config["frames"]["stride"], config["data"]["scans"]
    loaded = load_config(config, SCHEMA)
    assert loaded["frames"]["stride"] == 10
    assert loaded["data"]["scans"] == "scannet/scans"


def test_the_papers_recipe(config: dict) -> None:
    paper = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    for section, values in paper.items():
        config[section].update(values)
    train = config["train"]
    assert (train["global_batch"], train["pack"], config["frames"]["count"]) == (16, 1, 32)
    assert (train["learning_rate"], train["learning_rate_vision_tower"]) == (1e-5, 2e-6)
    with pytest.raises(ConfigError, match=r"teacher\.weights") as error:
        load_config(config, SCHEMA)
    # Only what nobody ships is missing.
    for line in str(error.value).splitlines():
        assert "data/models" in line


def test_every_problem_has_a_line(config: dict) -> None:
    config["train"]["epocs"] = 1
    config["frames"]["count"] = 0
    config["model"]["size"] = "8b"
    with pytest.raises(ConfigError) as error:
        load_config(config, SCHEMA)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert any("train.epocs is not a key; did you mean epochs?" in line for line in lines)
    assert any("frames.count" in line for line in lines)
    assert any("model.size is '8b'; choose one of: tiny, small, 7b" in line for line in lines)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "data",
            "demo",
            {"scenes": 4, "seed": 0, "frmes": 50},
            "data.demo.frmes is not a key; did",
        ),
        ("data", "demo", {"scenes": 1, "seed": 0}, "data.demo.scenes: 1 is less than"),
        ("data", "demo", 3, "data.demo: 3 is not of type 'object', 'null'"),
        ("teacher", "weights", {"dinov3": "a"}, "weights.dinov3 is not a key; did you mean dinov2"),
        (
            "teacher",
            "weights",
            {"other": "a"},
            "weights.other is not a key; valid keys: vggt, dino",
        ),
        ("teacher", "weights", {"vggt": ""}, "teacher.weights.vggt: '' should be non-empty"),
        ("teacher", "weights", "", "teacher.weights: '' should be non-empty"),
        ("boxes", "ready", "boxes.json", "boxes.ready: 'boxes.json' does not match"),
        ("supervision", "layer", "lst", "supervision.layer: 'lst' does not match '^last$'"),
        ("supervision", "layer", -1, "supervision.layer: -1 is less than"),
    ],
)
def test_a_problem_below_a_section_of_several_forms_is_named(
    config: dict, section: str, key: str, value: object, message: str
) -> None:
    config[section][key] = value
    with pytest.raises(ConfigError) as error:
        load_config(config, SCHEMA)
    (line,) = str(error.value).splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "demo", None),
        ("teacher", "weights", None),
        ("teacher", "weights", {"vggt": "a"}),
        ("boxes", "ready", None),
        ("boxes", "ready", "{split}_{set}.json"),
        ("supervision", "layer", "last"),
        ("supervision", "layer", 3),
    ],
)
def test_every_form_of_such_a_section_is_taken(
    config: dict, section: str, key: str, value: object
) -> None:
    config[section][key] = value
    assert load_config(config, SCHEMA)[section][key] == value


def test_defaults_of_the_demo_are_filled_in(config: dict) -> None:
    config["data"]["demo"] = {"scenes": 4, "seed": 0}
    filled = load_config(config, SCHEMA)["data"]["demo"]
    assert filled == {"scenes": 4, "seed": 0, "frames": 104, "rounds": 1}


@pytest.mark.parametrize(
    ("section", "change", "line"),
    [
        ("supervision", {"weight": float("nan")}, "supervision.weight is nan; expected a finite"),
        ("train", {"learning_rate": float("inf")}, "train.learning_rate is inf; expected a finite"),
        ("train", {"learning_rate": "1e-5"}, "to YAML this is a text, write 1.0e-05"),
        ("runs", {42: {"train": {"seed": 42}}}, "runs: the key 42 is not a text to YAML"),
        ("data", {"splits": "scannet/{nope}{split}.txt"}, "data.splits is .* KeyError"),
        ("data", {"splits": "scannet/{set}{split}.txt"}, "data.splits is .* KeyError"),
        ("boxes", {"ready": "{split}/{set}/{0}"}, "boxes.ready is .* cannot be filled in"),
    ],
)
def test_what_a_schema_does_not_see_is_named(
    config: dict, section: str, change: dict, line: str
) -> None:
    config[section].update(change)
    with pytest.raises(ConfigError, match=line) as error:
        load_config(config, SCHEMA)
    assert "\n" not in str(error.value)


def test_a_run_that_overrides_into_nonsense_is_named(config: dict) -> None:
    config["runs"]["odd"] = {"train": {"pack": 3}}
    with pytest.raises(ConfigError, match=r"runs\.odd: train\.pack is 3"):
        load_config(config, SCHEMA)


def test_a_run_holds_nothing_that_does_not_concern_it(config: dict) -> None:
    config["teacher"] |= {"name": "vggt-tiny", "weights": {"dinov2": "a", "mae": "b"}}
    config["runs"]["other"] = {"teacher": {"name": "mae-tiny"}}
    before = {run: resolve_run(config, run) for run in config["runs"]}
    config["teacher"] |= {"weights": {"dinov2": "c"}}
    config["boxes"]["eval"] = "gt"
    assert {run: resolve_run(config, run) for run in config["runs"]} == before
    config["teacher"] |= {"seed": 3, "grid": "full"}
    config["supervision"]["weight"] = 0.25
    changed = {run for run in before if resolve_run(config, run) != before[run]}
    assert changed == {"3drs", "other"}
    assert before["baseline"]["teacher"] == {"name": "none", "weights": None}
    assert before["baseline"]["supervision"]["weight"] == 0.0


def test_the_order_of_keys_says_nothing_but_that_of_runs_and_mixes(config: dict) -> None:
    config["instructions"]["mixes"]["a"] = {"seed": 1, "balance": "all"}
    turned = {
        name: dict(reversed(section.items())) if isinstance(section, dict) else section
        for name, section in reversed(config.items())
    }
    turned["runs"] = {"baseline": config["runs"]["baseline"], "3drs": {}}
    one, other = load_config(config, SCHEMA), load_config(turned, SCHEMA)
    assert str(resolve_run(one, "3drs")) == str(resolve_run(other, "3drs"))
    assert (list(one["runs"]), list(other["runs"])) == (["3drs", "baseline"], ["baseline", "3drs"])
    assert list(one["instructions"]["mixes"]) == ["full", "a"]
    assert str(one["instructions"]["mixes"]["a"]) == "{'balance': 'all', 'seed': 1}"
