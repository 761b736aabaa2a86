"""Runs inherit and override, extend each other, are switched off, and hold what concerns them."""

from pathlib import Path

import pytest

from threedrs.config.load import load_config, resolve_run
from threedrs.errors import ConfigError


def test_a_run_that_overrides_into_nonsense_is_named(config: dict) -> None:
    config["runs"]["odd"] = {"train": {"pack": 3}}
    with pytest.raises(ConfigError, match=r"runs\.odd: train\.pack 3 .* may be 1, 2, 4, 8"):
        load_config(config)


def test_a_run_holds_nothing_that_does_not_concern_it(config: dict) -> None:
    config["teacher"] |= {"name": "vggt-tiny", "weights": {"dinov2": "a", "mae": "b"}}
    config["runs"]["other"] = {"teacher": {"name": "random"}}
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
    one, other = load_config(config), load_config(turned)
    assert str(resolve_run(one, "3drs")) == str(resolve_run(other, "3drs"))
    assert (list(one["runs"]), list(other["runs"])) == (["3drs", "baseline"], ["baseline", "3drs"])
    assert list(one["instructions"]["mixes"]) == ["full", "a"]
    assert str(one["instructions"]["mixes"]["a"]) == "{'balance': 'all', 'seed': 1}"


# Runs that build on others, and those that are switched off


def test_a_run_extends_another_one(config: dict) -> None:
    config["runs"] |= {
        "b": {"extends": "a", "train": {"seed": 2}},
        "a": {"extends": "baseline", "train": {"seed": 1, "epochs": 5}, "execution": {"keep": 1}},
    }
    loaded = load_config(config)
    assert loaded["runs"]["b"] == {
        "teacher": {"name": "none"},
        "train": {"epochs": 5, "seed": 2},
        "execution": {"keep": 1},
    }
    assert list(loaded["runs"]) == ["3drs", "baseline", "b", "a"]
    run = resolve_run(loaded, "b")
    assert (run["teacher"]["name"], run["train"]["epochs"], run["train"]["seed"]) == ("none", 5, 2)
    assert run["execution"]["keep"] == 1


def test_the_model_before_training_is_no_folder_of_its_name(config: dict, tmp_path: Path) -> None:
    (tmp_path / "initial").mkdir()
    config["data"] |= {"root": str(tmp_path), "demo": None}
    config["runs"]["start"] = {"checkpoint": "initial"}
    assert load_config(config, files=False)["runs"]["start"] == {"checkpoint": "initial"}


def test_a_run_is_switched_off(config: dict) -> None:
    config["runs"]["baseline"] = None
    with pytest.raises(ConfigError, match=r"report\.baseline is 'baseline', which is not a run"):
        load_config(config)
    config["report"]["baseline"] = "3drs"
    assert list(load_config(config)["runs"]) == ["3drs"]


@pytest.mark.parametrize(
    ("runs", "lines"),
    [
        ({"a": {"extends": "3dr"}}, ["runs.a.extends is '3dr', which is not a run; choose one of"]),
        (
            {"a": {"extends": "baseline"}, "baseline": None},
            ["runs.a.extends is 'baseline', which is not a run; choose one of: 3drs"],
        ),
        (
            {"a": {"extends": "b"}, "b": {"extends": "a"}},
            ["runs: extends leads in a circle, a -> b -> a"],
        ),
        ({"a": {"extends": "b"}, "b": {"extends": "x"}}, ["runs.b.extends is 'x', which is no"]),
        ({"3drs": None, "baseline": None}, ["runs: all are switched off (null); keep one"]),
        ({"a": {"extend": "3drs"}}, ["runs.a.extend is not a key; did you mean extends?"]),
    ],
)
def test_a_run_that_leads_nowhere_is_named(
    config: dict, runs: dict[str, object], lines: list[str]
) -> None:
    config["runs"] |= runs
    with pytest.raises(ConfigError) as error:
        load_config(config)
    said = str(error.value).splitlines()
    assert len(said) == len(lines)
    for line, start in zip(said, lines, strict=True):
        assert line.startswith(f"config: {start}")


def test_a_key_of_another_section_is_pointed_to(config: dict) -> None:
    config["train"]["keep"] = 7
    config["runs"]["3drs"] = {"train": {"workers": 3}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert str(error.value).splitlines() == [
        "config: runs.3drs.train.workers is not a key; the section execution has such a key",
        "config: train.keep is not a key; the section execution has such a key",
    ]
