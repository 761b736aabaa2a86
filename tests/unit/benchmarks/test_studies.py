"""The studies of config/small.yaml: their runs, and what docs/TRAINING.md says to expect."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fixtures.repository import ROOT
from threedrs.config.load import load_config, resolve_run
from threedrs.config.resources import TRAIN_NEEDS
from threedrs.config.yaml_files import merged
from threedrs.demo.annotations import annotate
from threedrs.demo.rooms import make_room
from threedrs.demo.write import demo_scenes
from threedrs.instructions.mix_settings import MixSettings
from threedrs.tasks.record import GROUND, Record, conversation

TOLD = (ROOT / "docs" / "TRAINING.md").read_text().partition("## Does it learn?")[2]
MEASURED = (ROOT / "benchmarks" / "RESULTS.md").read_text()


def study(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    return load_config(merged([Path(f"config/{name}.yaml") for name in names], "plan"), files=False)


def seeds_of_settings(config: dict[str, Any]) -> dict[str, set[int]]:
    """Return the seeds of each setting; its runs have one recipe but for the seed."""
    seeds: dict[str, set[int]] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for run, overrides in config["runs"].items():
        if "checkpoint" in overrides:
            continue
        setting, _, named = run.partition("-seed")
        recipe = resolve_run(config, run)
        seed = recipe["train"].pop("seed")
        assert seed == int(named or 42)
        assert recipes.setdefault(setting, recipe) == recipe
        seeds.setdefault(setting, set()).add(seed)
    return seeds


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of a text's Markdown rows by the first two of them."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {" ".join(row[:2]): row[2:] for row in cells}


def numbers(text: str) -> list[int]:
    return [int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\b", text)]


def told(what: str) -> str:
    return re.search(rf"^\| {what} \| (.*) \|$", TOLD, re.MULTILINE)[1]


def test_what_is_told_of_the_study_is_what_its_configuration_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = study(monkeypatch, "small")
    demo, train = config["data"]["demo"], config["train"]
    scenes = demo_scenes(demo["scenes"])
    held_out = len(scenes["val"])
    assert numbers(told("generated rooms")) == [demo["scenes"], held_out, config["frames"]["count"]]
    sizes = [train["max_steps"], train["global_batch"], train["pack"]]
    assert numbers(told("a training")) == sizes
    first, last = numbers(told("seeds of each setting"))
    seeds = set(range(first, last + 1))
    assert seeds_of_settings(config) == {"3drs": seeds, "baseline": seeds}
    # A room has as many questions of these as any other; test has as many of SQA3D as val, but for
    # those that rooms cannot answer.
    made = annotate(
        scenes["val"][0],
        make_room("bedroom", np.random.default_rng(0)),
        np.random.default_rng(0),
        demo["rounds"],
    )
    asked = numbers(re.sub(r"\(\w+\)", "", told("questions about held-out rooms")))
    counts = [len(made[name]) * held_out for name in ("scanrefer", "scanqa", "sqa3d")]
    assert [asked[0], asked[3]] == counts[:2]
    assert 0.98 * counts[2] // 2 < asked[4] <= counts[2] // 2


def test_the_commands_give_each_training_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = TRAIN_NEEDS[study(monkeypatch, "small")["model"]["size"]]["threads"]
    command = r"--cores (\d+) --resources gpu=(\d+)(?: --set-threads train=(\d+))?"
    commands = re.findall(command, TOLD)
    assert len(commands) == 2
    for cores, trainings, threads in commands:
        assert int(cores) // int(threads or asked) >= int(trainings)


def test_the_scores_to_expect_are_those_measured() -> None:
    measured = rows(MEASURED.partition("\n## Does it learn?")[2].partition("\n### ")[0])
    expected = rows(TOLD.partition("What to expect")[2].partition("\nTwo more files")[0])
    del expected["benchmark metric"]
    assert len(expected) == 5
    for name, (chance, words, baseline, method) in expected.items():
        assert measured[name][:2] + measured[name][3:5] == [chance, words, baseline, method]
    # The held-out questions too, in the order of the benchmarks.
    asked = re.search(r"held\s+out;.*?((?:[\d,]+, ){3}[\d,]+ and [\d,]+) questions", MEASURED, re.S)
    told_of = re.sub(r"\(\w+\)", "", told("questions about held-out rooms"))
    assert numbers(told_of) == numbers(asked[1].replace(",", "").replace(" and", ""))


@pytest.mark.parametrize(
    ("head", "section", "settings"),
    [
        ("| 2,200 steps |", "What of the supervision matters?", 5),
        ("| 57,600 samples |", "Does packing cost anything?", 6),
    ],
)
def test_the_means_of_controls_and_packing_are_those_measured(
    head: str, section: str, settings: int
) -> None:
    """Tables of settings by row here, and by column there."""
    titles, _, *table = (head + TOLD.partition(head)[2].partition("\n\n")[0]).splitlines()
    here = [re.findall(r"[\d.]+ ± [\d.]+", line) for line in table]
    assert len(here) == settings
    metrics = re.findall(r"\b(ScanRefer|Multi3DRefer|ScanQA|SQA3D) ([\w@.]+)", titles)
    measured = MEASURED.partition(f"\n### {section}\n")[2].partition("\n### ")[0]
    for (benchmark, metric), *means in zip(metrics, *here, strict=True):
        row = re.search(rf"^\| {benchmark}[ |]+{re.escape(metric)} \|(.*)$", measured, re.MULTILINE)
        assert re.findall(r"[\d.]+ ± [\d.]+", row[1]) == means


def test_the_ablation_has_eight_seeds_of_its_hypothesis_and_four_of_each_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = seeds_of_settings(study(monkeypatch, "small", "ablation"))
    assert seeds.pop("early") == set(range(42, 50))
    for setting in ("random", "cosine"):
        assert seeds.pop(setting) == {42, 43, 44, 45}
    assert set(seeds) == {"3drs", "baseline"}


def test_packing_compares_equal_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    config = study(monkeypatch, "small", "packing")
    seeds = seeds_of_settings(config)
    del seeds["3drs"], seeds["baseline"]
    assert seeds.pop("long24") == set(range(45, 50))
    plain, long = (resolve_run(config, f"{run}-seed45")["train"] for run in ("baseline", "long24"))
    assert long == {**plain, "pack": 24}
    eight = {name: set(range(51, 59)) for name in ("k96", "k24", "k12", "k4", "k1")}
    assert seeds == {**eight, "b384": set(range(51, 55))}
    for name in seeds:
        train = resolve_run(config, f"{name}-seed51")["train"]
        assert train["pack"] == (96 if name == "b384" else int(name[1:]))
        assert train["max_steps"] * train["global_batch"] == 57_600


def test_the_demos_student_has_not_seen_the_demos_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    demo, made = study(monkeypatch), study(monkeypatch, "small", "demo_student")
    assert demo["data"]["demo"]["seed"] != made["data"]["demo"]["seed"]
    assert demo["frames"]["count"] == made["frames"]["count"]
    recipe, goes_on = resolve_run(made, "student-first"), resolve_run(demo, "baseline")
    assert (recipe["model"]["path"], recipe["teacher"]["name"]) == (None, "none")
    for section, key in (("model", "name"), ("model", "size"), ("train", "label_chat_tokens")):
        assert recipe[section][key] == goes_on[section][key]


def test_the_demos_student_begins_with_colours_and_ends_with_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the mix of its first part admits, and that of its last."""
    config = study(monkeypatch, "small", "demo_student")
    assert resolve_run(config, "student-first")["train"]["mix"] == "colours"
    assert config["data"]["demo"]["things"]
    described = "Given an object located at <coord> , describe the object in detail."
    texts = {
        ("scanrefer", "The red thing.", GROUND): (True, True),
        ("multi3drefer", "All blue things in the room.", GROUND): (True, True),
        ("scan2cap", described, "One green thing."): (True, False),
        ("scan2cap", described, "The green bed."): (False, True),
        ("scanqa", "What is the color of the bed?", "white"): (True, True),
        ("scanrefer", "The red chair in the room.", GROUND): (False, True),
        ("scanqa", "How many brown boxes are in this room?", "two"): (False, True),
    }
    for place, mix in enumerate(("colours", "named")):
        settings = MixSettings(**config["instructions"]["mixes"][mix])
        for (benchmark, question, answer), admitted in texts.items():
            one = Record(
                id="0", benchmark=benchmark, scene="scene0000_00",
                conversations=conversation(f"<image> {question}", answer),
            )  # fmt: skip
            assert settings.admits(one) is admitted[place]


def test_the_trial_of_one_recipe_stays_the_one_that_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the demo's student and recipe are; the two settings differ in nothing."""
    trial = runpy.run_path(str(ROOT / "benchmarks/same_recipe.py"))["configuration"](20, 40)
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(trial))
    monkeypatch.chdir(ROOT)
    files = [ROOT / "config/config.yaml", tmp_path / "trial.yaml"]
    config = load_config(merged(files, "plan"), files=False)
    recipes, seeds = [], set()
    for run in set(config["runs"]) - {"3drs"}:
        recipe = resolve_run(config, run)
        seeds.add(recipe["train"].pop("seed"))
        mix = "full" if run.startswith("baseline") else "full-again"
        assert recipe["train"].pop("mix") == mix
        recipes.append(recipe)
    assert seeds == {*range(42, 48)}
    assert all(recipe == recipes[0] for recipe in recipes)
    model, train = recipes[0]["model"], recipes[0]["train"]
    assert (model["name"], model["size"], model["path"]) == ("llava-video", "tiny", None)
    assert (train["learning_rate"], train["learning_rate_vision_tower"]) == (3e-3, 1e-3)
    assert train["label_chat_tokens"]
    assert recipes[0]["teacher"]["name"] == "none"
    assert config["eval"]["prompt"] == "reference"
